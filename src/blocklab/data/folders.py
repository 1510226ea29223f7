"""Images in class folders: PATH/train/CLASS/* and PATH/test/CLASS/*, or PATH/CLASS/*."""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from blocklab.data.pictures import EXTENSIONS, Contents, Picture, Pictures, Source
from blocklab.data.split import TEST_SEED, stratified_split
from blocklab.errors import InputError

TEST_FRACTION = 0.2
TEST_FOLDERS = ("test", "val", "validation")  # the first that exists


class Listed(NamedTuple):
    """One image file: its name relative to the root, with / on every system."""

    name: str
    class_name: str
    size: int
    mtime_ns: int


def folder_source(root: Path) -> Source:
    """Describe a folder of class folders.

    Without PATH/train, a fixed stratified 20 % of the images is the test split.

    Raises:
        InputError: if it is not such a folder, a class is empty, or the splits' classes differ.
    """
    splits = list_folder(root)
    # Hashed file by file: the identity of a million files as JSON would be 100 MB of text.
    listing = hashlib.sha256()
    for split, files in splits.items():
        for file in files:
            listing.update(repr((split, *file)).encode())
    identity = [str(root.resolve()), listing.hexdigest()]
    return Source(root.resolve().name, identity, lambda _: _contents(root, splits))


def list_folder(root: Path) -> dict[str, list[Listed]]:
    """List the image files, by split ("train" and "test", or "all"), sorted by name.

    Raises:
        InputError: as `folder_source`.
    """
    if not os.path.isdir(root):  # unlike Path.is_dir, never raises
        what = "is a file" if os.path.isfile(root) else "does not exist"
        raise InputError(f"the data folder {root} {what}; give the folder of the class folders")
    folders = _folders(root)
    if "train" not in folders:
        return {"all": _list_classes(root, root)}
    test = next((name for name in TEST_FOLDERS if name in folders), None)
    if test is None:
        raise InputError(
            f"{root} has train/ but neither test/ nor val/; add one, or give {root / 'train'}, "
            "of which 20 % will be the test split"
        )
    splits = {
        "train": _list_classes(root, root / "train"),
        "test": _list_classes(root, root / test),
    }
    train_classes, test_classes = ({f.class_name for f in files} for files in splits.values())
    for odd, here, there in (
        (train_classes - test_classes, "train", test),
        (test_classes - train_classes, test, "train"),
    ):
        if odd:
            raise InputError(
                f"class '{min(odd)}' is in {root / here} but not in {root / there}; "
                "both need the same class folders"
            )
    return splits


def _contents(root: Path, splits: dict[str, list[Listed]]) -> Contents:
    classes = tuple(sorted({f.class_name for files in splits.values() for f in files}))
    numbers = {name: number for number, name in enumerate(classes)}

    def pictures(files: list[Listed]) -> Pictures:
        labels = np.array([numbers[file.class_name] for file in files], np.int64)

        def items() -> Iterator[Picture]:
            for file in files:
                yield Picture(str(root / file.name), root / file.name)

        return Pictures(labels, items)

    if "all" not in splits:
        return Contents(classes, pictures(splits["train"]), pictures(splits["test"]))
    files = splits["all"]
    train, test = stratified_split(pictures(files).labels, TEST_FRACTION, TEST_SEED)
    if not len(test):
        raise InputError(f"{root} has only {len(files)} images: too few for a test split; add more")
    return Contents(
        classes, pictures([files[i] for i in train]), pictures([files[i] for i in test])
    )


def _list_classes(root: Path, folder: Path) -> list[Listed]:
    classes = _folders(folder)
    if not classes:
        raise InputError(
            f"{folder} has no class folders; put each class's images in a folder of its own"
        )
    files: list[Listed] = []
    for class_name in classes:
        place = folder / class_name
        within = "" if folder == root else f"{folder.name}/"
        found = sorted(_list_images(place, f"{within}{class_name}", _as_text(class_name)))
        if not found:
            raise InputError(
                f"class '{class_name}' ({place}) has no images "
                f"({', '.join(EXTENSIONS)}); add some or remove the folder"
            )
        files += found
    return files


def _list_images(folder: Path, relative: str, class_name: str) -> Iterator[Listed]:
    """List the images of a class, those in folders inside it too; linked folders are left out.

    `relative` is the folder's name as seen from the root. Names that begin with a dot are notes
    of the file system or of an editor, whatever they end in.
    """
    waiting = [(str(folder), relative)]
    while waiting:
        place, relative = waiting.pop()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    name = f"{relative}/{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((entry.path, name))
                    elif entry.name.lower().endswith(EXTENSIONS):
                        found = entry.stat()
                        if not stat.S_ISREG(found.st_mode):
                            raise InputError(f"{entry.path} is no ordinary file; remove it")
                        yield Listed(name, class_name, found.st_size, found.st_mtime_ns)
        except OSError as error:
            _refuse(error)


def _as_text(name: str) -> str:
    """Write bytes of a file's name that are no UTF-8 as escapes: other files hold class names."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        _refuse(error)
        raise


def _refuse(error: OSError) -> None:
    raise InputError(
        f"cannot read {error.filename}: {error.strerror}; check the path and its permissions"
    ) from error
