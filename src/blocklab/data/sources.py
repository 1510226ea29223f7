"""Where images come from: a name (`cifar100`), or a kind and a path (`folder:PATH`)."""

import hashlib
import os
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from platformdirs import user_data_path

from blocklab.data.cifar import CIFARS, Cifar, find_cifar
from blocklab.data.cifar_download import download_cifar, mend_cifar
from blocklab.data.folders import folder_source, list_folder
from blocklab.data.hub_dataset import hub_fingerprint, hub_folder, mend_hub_folder
from blocklab.data.pictures import Contents, Picture, Pictures, Source
from blocklab.data.split import TEST_SEED, stratified_split
from blocklab.data.table_files import identify, list_parquet
from blocklab.data.tables import AS_USUAL, Columns, parquet_source
from blocklab.errors import InputError, RunError, did_you_mean

NAMES = ("digits", *CIFARS)
KINDS = {"folder": "PATH", "parquet": "PATH", "hf": "USER/NAME"}
PATH_KINDS = tuple(kind for kind, what in KINDS.items() if what == "PATH")
DIGITS_TEST_IMAGES = 500
LARGEST_DIGITS = 512
DIGITS_SIZE = 32
SAMPLED_FILES = 64
SAMPLED_BYTES = 1 << 16


def data_folder() -> Path:
    """Return the folder where data lies: BLOCKLAB_DATA, else the user's data folder."""
    named = os.environ.get("BLOCKLAB_DATA")
    return _path(named) if named else user_data_path("blocklab")


def check_address(address: str) -> str:
    """Return the address.

    Raises:
        InputError: if no source is called that.
    """
    kind, colon, path = address.partition(":")
    written = [f"{kind}:{what}" for kind, what in KINDS.items()]
    known = (*NAMES, *written)
    if address in NAMES or (kind in KINDS and path.strip()):
        return address
    if kind in KINDS:
        what = "data set" if kind == "hf" else "folder"
        raise InputError(f"'{address}' names no {what}; write {kind}:{KINDS[kind]}")
    guess = did_you_mean(kind, written if colon else [*NAMES, *KINDS])
    raise InputError(f"no data source '{address}'{guess or '.'} Sources: {', '.join(known)}")


def find_source(
    address: str,
    splits: str = "auto",
    columns: Columns = AS_USUAL,
    exif: bool = False,
    measure: bool = False,
) -> Source:
    """Find the data; CIFAR and what the hub has are downloaded if they are nowhere.

    `splits`, `columns` and `exif` are as in `DataSpec`. With `measure`, all images are for testing
    where there are no splits, or test images alone.

    Raises:
        InputError: if there is no such source, or its files are not usable.
        RunError: if a download failed.
    """
    kind, _, path = check_address(address).partition(":")
    if kind == "folder":
        source = folder_source(_path(path), splits, measure)
    elif kind == "parquet":
        source = parquet_source(_path(path), columns, measure)
    elif kind == "hf":
        source = _hub_source(path, columns, measure)
    elif kind == "digits":
        source = Source("digits", "digits", _digits, embedded=True)
    else:
        source = _cifar_source(CIFARS[kind])
    return _turned_upright(source) if exif else source


def _cifar_source(cifar: Cifar) -> Source:
    root = data_folder()
    source = find_cifar(cifar, root)
    if source is None:
        download_cifar(cifar, root)
        source = find_cifar(cifar, root)
    if source is None:
        raise RunError(f"{cifar.name} was downloaded to {root} but is gone; run again")

    def read(image_size: int | None) -> Contents:
        mended = find_cifar(cifar, root) if mend_cifar(cifar, root) else None
        return (mended or source).read(image_size)

    return replace(source, read=read)


def _hub_source(name: str, columns: Columns, measure: bool) -> Source:
    root = data_folder()
    source = parquet_source(hub_folder(name, root), columns, measure)

    def read(image_size: int | None) -> Contents:
        mend_hub_folder(name, root)
        return source.read(image_size)

    return replace(source, name=name, read=read)


def _turned_upright(source: Source) -> Source:
    def read(image_size: int | None) -> Contents:
        contents = source.read(image_size)
        turned = {split: _upright(pictures) for split, pictures in contents.splits().items()}
        return replace(contents, **turned)

    return replace(source, identity=[source.identity, "upright"], read=read)


def _upright(pictures: Pictures) -> Pictures:
    return replace(
        pictures, items=lambda: (picture._replace(upright=True) for picture in pictures.items())
    )


def portable_address(address: str, splits: str = "auto") -> str:
    """Return the address with a path replaced by a fingerprint of what lies there.

    So the same data under another path defines the same run. The fingerprint stays cheap for
    100,000 files: it is made of the files' names and sizes, and of the last 64 KiB of 64 files
    spread evenly. An image edited in place, to the same size, goes unnoticed here (though not by
    the cache, which looks at times of change too).

    A study asks for it many times: it is taken again only when a folder or one of the 64 files
    has changed.

    Raises:
        InputError: if the folder is not usable.
    """
    kind, _, path = check_address(address).partition(":")
    if kind not in KINDS:
        return address
    if kind == "hf":
        return f"hf:{hub_fingerprint(path, data_folder())}"
    known = _fingerprints.get((address, splits))
    if known is None or known.times != _times(known.paths):
        known = _fingerprints[address, splits] = _fingerprint(kind, _path(path), splits)
    return f"{kind}:{known.digest}"


class _Fingerprint(NamedTuple):
    """Of a folder of data, and the times of change of what it was taken from."""

    digest: str
    paths: list[Path]
    times: list[int] | None


_fingerprints: dict[tuple[str, str], _Fingerprint] = {}


def _fingerprint(kind: str, root: Path, splits: str) -> _Fingerprint:
    if kind == "folder":
        listed = list_folder(root, splits).splits.values()
        files = sorted((file.name, file.size) for some in listed for file in some)
        folders = {name.rpartition("/")[0] for name, _ in files} | {""}
        for folder in list(folders):  # train/ and the like, in which a class may be new
            while folder := folder.rpartition("/")[0]:
                folders.add(folder)
        watched = [root / folder for folder in sorted(folders)]
        sampled = [root / name for name, _ in files[:: max(1, len(files) // SAMPLED_FILES)]]
    else:
        tables = sorted(path for paths in list_parquet(root).values() for path in paths)
        files = [
            (path.name, size) for path, (_, size, _) in zip(tables, identify(tables), strict=True)
        ]
        watched = sorted({root, *(path.parent for path in tables)})
        sampled = tables[:: max(1, len(tables) // SAMPLED_FILES)]
    watched += sampled
    times = _times(watched)
    digest = hashlib.sha256()
    for name, size in files:
        digest.update(repr((name, size)).encode())
    try:
        for path in sampled:
            digest.update(_tail_crc32(path).to_bytes(4, "big"))
    except OSError as error:
        raise InputError(
            f"cannot read {error.filename}: {error.strerror}; check its mode"
        ) from error
    return _Fingerprint(digest.hexdigest()[:16], watched, times)


def _times(paths: list[Path]) -> list[int] | None:
    try:
        return [path.stat().st_mtime_ns for path in paths]
    except OSError:
        return None


def _path(text: str) -> Path:
    return Path(os.path.expanduser(text))  # unlike Path.expanduser, never raises


def _tail_crc32(path: Path) -> int:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - SAMPLED_BYTES))
        return zlib.crc32(file.read())


def _digits(image_size: int | None) -> Contents:
    """scikit-learn's 1,797 digits: 8x8 with values 0..16, shown larger (bilinear) and as RGB."""
    import torch
    from sklearn.datasets import load_digits  # slow to import
    from torch.nn import functional

    size = image_size or DIGITS_SIZE
    if size > LARGEST_DIGITS:  # all of them are held in memory
        raise InputError(
            f"digits are 8x8 pixels; image_size shows them with {LARGEST_DIGITS} a side at most, "
            f"not {size}"
        )
    images, labels = map(np.asarray, load_digits(return_X_y=True))
    grey = torch.from_numpy(images.reshape(-1, 1, 8, 8)).float() * (255 / 16)
    grey = functional.interpolate(grey, (size, size), mode="bilinear", antialias=size < 8)
    pixels = grey.round().to(torch.uint8).permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy()
    labels = labels.astype(np.int64)
    train, test = stratified_split(labels, DIGITS_TEST_IMAGES / len(labels), TEST_SEED)

    def pictures(rows: np.ndarray) -> Pictures:
        def items() -> Iterator[Picture]:
            return (Picture(f"digit {row}", pixels[row]) for row in rows)

        return Pictures(labels[rows], items)

    return Contents(tuple(map(str, range(10))), pictures(train), pictures(test))
