"""Images in class folders: PATH/train/CLASS/* and PATH/test/CLASS/*, or PATH/CLASS/*."""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from blocklab.data.arrangement import AS_CLASSES, find_splits, folders_in, refuse_reading
from blocklab.data.faults import Faults, first_few
from blocklab.data.pictures import EXTENSIONS, Contents, Picture, Pictures, Source
from blocklab.data.split import TEST_SEED, stratified_split
from blocklab.data.split_names import is_split_name
from blocklab.errors import InputError

TEST_FRACTION = 0.2
NO_PICTURES = ("thumbs.db", "desktop.ini")  # notes of a system, which nobody misses


class Listed(NamedTuple):
    """One image file: its name relative to the root, with / on every system."""

    name: str
    class_name: str
    size: int
    mtime_ns: int


@dataclass
class Listing:
    """The image files of a folder by split ("train", "test" and so on, or "all"), by name.

    `left_out` counts the files that are not read, of which `first_left_out` is one.
    """

    splits: dict[str, list[Listed]] = field(default_factory=dict)
    left_out: int = 0
    first_left_out: str = ""
    faults: Faults = field(default_factory=Faults)

    def leave_out(self, path: str) -> None:
        """Count a file that is not read."""
        self.left_out += 1
        self.first_left_out = min(self.first_left_out or path, path)

    def notes(self) -> tuple[str, ...]:
        """Say in words what was left out, and what is not validated on."""
        notes = []
        if self.left_out:
            files = "1 file is" if self.left_out == 1 else f"{self.left_out:,} files are"
            notes.append(
                f"{files} left out, of a kind that is not read or in no class folder"
                f" (the first: {self.first_left_out})"
            )
        classes = {split: {f.class_name for f in files} for split, files in self.splits.items()}
        held = classes.get("validation", set())
        if lacking := sorted(classes.get("train", held) - held if held else ()):
            notes.append(f"no validation image is of class {first_few(lacking, most=3)}")
        return tuple(notes)


def folder_source(root: Path, splits: str = "auto", measure: bool = False) -> Source:
    """Describe a folder of class folders.

    Without folders of splits, a fixed stratified 20 % of the images is the test split; with
    `measure`, all of them are, and classes may be few. `splits` is "none" where folders that are
    called like splits are classes.

    Raises:
        InputError: if it is not such a folder, a class is empty, or the splits' classes differ.
    """
    listed = list_folder(root, splits, measure)
    # Hashed file by file: the identity of a million files as JSON would be 100 MB of text.
    listing = hashlib.sha256()
    for split, files in listed.splits.items():
        for file in files:
            listing.update(repr((split, *file)).encode())
    identity = [str(root.resolve()), listing.hexdigest()]
    if measure and "all" in listed.splits:
        listed.splits = {"train": [], "test": listed.splits["all"]}
        identity.append("measured whole")
    return Source(
        root.resolve().name,
        identity,
        lambda _: _contents(root, listed.splits),
        notes=listed.notes(),
    )


def list_folder(root: Path, splits: str = "auto", measure: bool = False) -> Listing:
    """List the image files, by split and sorted by name.

    Raises:
        InputError: as `folder_source`.
    """
    if not os.path.isdir(root):  # unlike Path.is_dir, never raises
        what = "is a file" if os.path.isfile(root) else "does not exist"
        raise InputError(f"the data folder {root} {what}; give the folder of the class folders")
    found = Listing()
    places = find_splits(root, splits, measure)
    for split, place in places.items():
        found.splits[split] = _list_classes(root, place, splits, found)
    found.faults.refuse("files or folders cannot be used")
    classes = {split: {f.class_name for f in files} for split, files in found.splits.items()}
    leading = next(iter(classes))  # "train" or "all", or "test" alone
    first = classes[leading]
    if len(first) < 2 and not measure:
        raise InputError(
            f"{root / places[leading]} has one class alone ({min(first)}), which "
            "leaves nothing to tell apart; give the folder whose folders are the classes"
        )
    for split, there in classes.items():
        lacking = first - there if split == "test" else set()
        for odd, has, has_not in ((lacking, leading, split), (there - first, split, leading)):
            if odd:
                raise InputError(
                    f"class '{first_few(sorted(odd), most=3)}' is in {root / places[has]} but not "
                    f"in {root / places[has_not]}; both need the same class folders"
                )
    return found


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
        validation = pictures(splits["validation"]) if "validation" in splits else None
        return Contents(
            classes, pictures(splits.get("train", [])), pictures(splits["test"]), validation
        )
    files = splits["all"]
    train, test = stratified_split(pictures(files).labels, TEST_FRACTION, TEST_SEED)
    if not len(test):
        raise InputError(f"{root} has only {len(files)} images: too few for a test split; add more")
    return Contents(
        classes, pictures([files[i] for i in train]), pictures([files[i] for i in test])
    )


def _list_classes(root: Path, place: str, splits: str, found: Listing) -> list[Listed]:
    folder = root / place
    classes = folders_in(folder)
    if not classes:
        raise InputError(
            f"{folder} has no class folders; put each class's images in a folder of its own"
        )
    _note_files_beside(folder, found)
    files: list[Listed] = []
    for class_name in classes:
        relative = f"{place}/{class_name}" if place else class_name
        inside: list[str] = []
        images = sorted(
            _list_images(folder / class_name, relative, _as_text(class_name), found, inside)
        )
        if len({split for split in map(is_split_name, inside) if split}) > 1 and splits != "none":
            raise InputError(
                f"class '{class_name}' ({folder / class_name}) holds splits "
                f"({first_few(sorted(inside), most=5)}); turn the folders round, as "
                f"train/{class_name}; {AS_CLASSES}"
            )
        if not images:
            found.faults.add(
                f"class '{class_name}' ({folder / class_name}) has no images "
                f"({', '.join(EXTENSIONS)}); add some or remove the folder"
            )
        files += images
    return files


def _list_images(
    folder: Path, relative: str, class_name: str, found: Listing, inside: list[str]
) -> Iterator[Listed]:
    """List the images of a class, those in folders inside it too; linked folders are left out.

    `relative` is the folder's name as seen from the root. Names that begin with a dot are notes
    of the file system or of an editor, whatever they end in. `inside` gets the names of the
    folders just below the class.
    """
    waiting = [(str(folder), relative)]
    first = True
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
                        if first:
                            inside.append(entry.name)
                    elif not entry.name.lower().endswith(EXTENSIONS):
                        if entry.name.lower() not in NO_PICTURES:
                            found.leave_out(entry.path)
                    elif listed := _listed(entry, name, class_name, found):
                        yield listed
        except OSError as error:
            refuse_reading(error)
        first = False


def _listed(entry: os.DirEntry[str], name: str, class_name: str, found: Listing) -> Listed | None:
    try:
        facts = entry.stat()
    except OSError as error:
        found.faults.add(
            f"cannot read {entry.path}: {error.strerror}; check the path and its permissions"
        )
        return None
    if not stat.S_ISREG(facts.st_mode):
        found.faults.add(f"{entry.path} is no ordinary file; remove it")
        return None
    return Listed(name, class_name, facts.st_size, facts.st_mtime_ns)


def _note_files_beside(folder: Path, found: Listing) -> None:
    """Count pictures that lie beside the class folders, in none of them."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.lower().endswith(EXTENSIONS) and not entry.name.startswith("."):
                found.leave_out(entry.path)


def _as_text(name: str) -> str:
    """Write bytes of a file's name that are no UTF-8 as escapes: other files hold class names."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
