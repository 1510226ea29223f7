"""Where images come from: a name (`cifar100`), or a kind and a path (`folder:PATH`)."""

import hashlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from platformdirs import user_data_path

from blocklab.data.cifar import CIFARS, find_cifar
from blocklab.data.cifar_download import download_cifar
from blocklab.data.folders import folder_source, list_folder
from blocklab.data.pictures import Contents, Picture, Pictures, Source
from blocklab.data.split import TEST_SEED, stratified_split
from blocklab.data.tables import identify, list_parquet, parquet_source
from blocklab.errors import InputError, RunError, did_you_mean

NAMES = ("digits", *CIFARS)
KINDS = ("folder", "parquet")
DIGITS_TEST_IMAGES = 500
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
    known = (*NAMES, *(f"{kind}:PATH" for kind in KINDS))
    if address in NAMES or (kind in KINDS and path.strip()):
        return address
    if kind in KINDS:
        raise InputError(f"'{address}' names no folder; write {kind}:PATH")
    guess = did_you_mean(kind, [f"{k}:PATH" for k in KINDS] if colon else [*NAMES, *KINDS])
    raise InputError(f"no data source '{address}'{guess or '.'} Sources: {', '.join(known)}")


def find_source(address: str) -> Source:
    """Find the data; CIFAR is downloaded if it is nowhere.

    Raises:
        InputError: if there is no such source, or its files are not usable.
        RunError: if a download failed.
    """
    kind, _, path = check_address(address).partition(":")
    if kind == "folder":
        return folder_source(_path(path))
    if kind == "parquet":
        return parquet_source(_path(path))
    if kind == "digits":
        return Source("digits", "digits", _digits, embedded=True)
    root = data_folder()
    source = find_cifar(CIFARS[kind], root)
    if source is None:
        download_cifar(CIFARS[kind], root)
        source = find_cifar(CIFARS[kind], root)
    if source is None:
        raise RunError(f"{kind} was downloaded to {root} but is gone; run again")
    return source


def portable_address(address: str) -> str:
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
    root = _path(path)
    known = _fingerprints.get(address)
    if known is None or known.times != _times(known.paths):
        known = _fingerprints[address] = _fingerprint(kind, root)
    return f"{kind}:{known.digest}"


class _Fingerprint(NamedTuple):
    """Of a folder of data, and the times of change of what it was taken from."""

    digest: str
    paths: list[Path]
    times: list[int] | None


_fingerprints: dict[str, _Fingerprint] = {}


def _fingerprint(kind: str, root: Path) -> _Fingerprint:
    if kind == "folder":
        files = sorted((f.name, f.size) for listed in list_folder(root).values() for f in listed)
        folders = {name.rpartition("/")[0] for name, _ in files}
        folders |= {folder.partition("/")[0] for folder in folders} | {""}  # train/, and the root
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
