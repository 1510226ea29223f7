"""Every source decoded once, into memory-mapped uint8 files.

A store is a folder below BLOCKLAB_CACHE (default: the user's cache folder):
  {train,test}_images.npy  uint8 (N, S, S, 3)       {train,test}_labels.npy  int64 (N,)
  {train,test}_order.npy   int64 (N,), the canonical order of the rows
  {train,test}_crc32.npy   uint32 (N,), the CRC-32 of each image
  meta.json                class names, mean, std, fingerprint and a CRC-32 of each file
and of the same files of "validation", where the user keeps images for that.
It is named by what it was decoded from, written under another name and renamed when whole.

Whenever it is opened it is checked, and a damaged one is decoded again. Images of more than
LARGEST_CHECKED bytes would take too long to read through: each is checked when it is first used.
"""

import hashlib
import json
import os
import secrets
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from filelock import FileLock, Timeout

from blocklab.data.checksums import JoinedChecksum
from blocklab.data.decoding import DecodingBar, Tally, decoded
from blocklab.data.faults import Faults
from blocklab.data.pictures import Contents, Source, natural_size
from blocklab.errors import RunError
from blocklab.files import cache_folder, write_json

FORMAT_VERSION = 3
LARGEST_CHECKED = 1 << 30
SPARE_BYTES = 64 << 20  # of the volume, that a store leaves free
SPLITS = ("train", "test", "validation")
FILES = ("images", "labels", "order", "crc32")


@dataclass(frozen=True)
class Store:
    """Decoded images of the splits, by name of the files above, and facts about them.

    `mean` and `std` are of the training images, per channel, in 0..1. `check_images` says that
    the images are still to be checked against their CRC-32, each as it is used. `folder` is where
    it lies; None of one in memory.
    """

    arrays: dict[str, np.ndarray]
    class_names: tuple[str, ...]
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fingerprint: str
    check_images: bool = False
    folder: Path | None = None


def open_store(source: Source, image_size: int | None, draft: bool = False) -> Store:
    """Open the store of `source`, decoding it first if there is none or it is damaged.

    With `draft`, JPEGs are decoded so (see `pictures.decode`): a store of its own.

    Raises:
        InputError: if an image cannot be used.
        RunError: if the cache cannot be written.
    """
    if source.embedded:
        return _in_memory(source.read(image_size), image_size)
    how = ["draft"] if draft else []
    key = json.dumps([FORMAT_VERSION, source.name, source.identity, image_size, *how])
    parent = cache_folder() / "data"
    folder = parent / f"{_plain(source.name)}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    store = _open(folder)
    if store is not None:
        return store
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with FileLock(_lock(folder)):
            store = _open(folder)  # another process may have just written it
            if store is None:
                _sweep(folder)
                _build(source, image_size, draft, folder)
                store = _open(folder)
    except OSError as error:
        raise RunError(
            f"cannot write decoded images to {parent}: {error.strerror or error}; free some space "
            "or set BLOCKLAB_CACHE to another folder"
        ) from error
    if store is None:
        raise RunError(f"{folder} is damaged as soon as it is written; check the disk")
    return store


def _open(folder: Path) -> Store | None:
    """Open a store; None if it is not there or not as it was written."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        facts = meta["facts"]
        if meta["crc32"] != _crc_of_json(facts):
            return None
        size, arrays, check_images = facts["image_size"], {}, False
        splits = [split for split in SPLITS if f"{split}_images" in facts["crc32"]]
        for name in (f"{split}_{what}" for split in splits for what in FILES):
            path = folder / f"{name}.npy"
            large = name.endswith("_images") and path.stat().st_size > LARGEST_CHECKED
            if not large and _crc_of_file(path) != facts["crc32"][name]:
                return None
            check_images |= large
            arrays[name] = np.asarray(np.load(path, mmap_mode="r"))
        for split in splits:
            images = arrays[f"{split}_images"]
            shape = (len(arrays[f"{split}_labels"]), size, size, 3)
            if images.dtype != np.uint8 or images.shape != shape:
                return None
        return Store(
            arrays,
            tuple(facts["class_names"]),
            size,
            tuple(facts["mean"]),
            tuple(facts["std"]),
            facts["fingerprint"],
            check_images,
            folder,
        )
    except (OSError, ValueError, KeyError, TypeError, SyntaxError, RecursionError):
        return None


def _sweep(folder: Path) -> None:
    """Remove what killed processes left half-written: this store's, and any that is not locked."""
    for stale in folder.parent.glob(".*-*.*"):
        name = stale.name[1:].rpartition(".")[0]
        if name == folder.name:  # whose lock is ours
            shutil.rmtree(stale, ignore_errors=True)
            continue
        try:
            with FileLock(_lock(folder.parent / name), timeout=0):
                shutil.rmtree(stale, ignore_errors=True)
        except Timeout:  # it is being written
            continue


def _build(source: Source, image_size: int | None, draft: bool, folder: Path) -> None:
    temporary = folder.parent / f".{folder.name}.{secrets.token_hex(4)}"
    temporary.mkdir()  # with the mode that the process's umask gives
    try:
        contents = source.read(image_size)
        size = image_size or natural_size(contents)
        _check_space(source.name, contents, size, folder.parent)
        crc32: dict[str, int] = {}
        tally, faults = Tally(), Faults()
        with DecodingBar(source.name, contents) as bar:
            for split, pictures in contents.splits().items():
                with _writing(temporary / f"{split}_images.npy", crc32) as file:
                    # Plain writes, not a writable memory map: on a full disk that would kill us.
                    shape = (len(pictures.labels), size, size, 3)
                    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(cast("Any", file), header)
                    ordered = contents.order_by_content
                    for chunk in decoded(pictures, image_size, size, faults, draft, ordered):
                        file.write_images(chunk.pixels.data.cast("B"), chunk.checksums)
                        tally.add(split, chunk)
                        bar.advance(len(chunk.pixels))
                if faults.count:  # those of the other splits are wanted too, and nothing else
                    continue
                arrays = tally.finish(split, pictures.labels, contents.order_by_content)
                for what, values in arrays.items():
                    with _writing(temporary / f"{split}_{what}.npy", crc32) as file:
                        np.save(cast("Any", file), values)
        faults.refuse("images cannot be used")
        tally.check_brightness()
        facts = {"image_size": size, "crc32": crc32, **tally.facts(contents)}
        write_json(temporary / "meta.json", {"facts": facts, "crc32": _crc_of_json(facts)})
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_space(name: str, contents: Contents, size: int, parent: Path) -> None:
    """Refuse before the first byte what the volume cannot hold."""
    count = sum(len(pictures.labels) for pictures in contents.splits().values())
    needed = count * size * size * 3 + SPARE_BYTES
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise RunError(
            f"{count:,} images of {name} at {size}x{size} take {needed / 1e9:.1f} GB decoded and "
            f"{parent} has {free / 1e9:.1f} GB free; free some, set BLOCKLAB_CACHE to another "
            "folder, or set a smaller image_size"
        )


def _in_memory(contents: Contents, image_size: int | None) -> Store:
    size, tally, arrays = image_size or natural_size(contents), Tally(), {}
    for split, pictures in contents.splits().items():
        images: list[np.ndarray] = []
        ordered = contents.order_by_content
        for chunk in decoded(pictures, image_size, size, Faults(), by_content=ordered):
            images.append(chunk.pixels)
            tally.add(split, chunk)
        arrays[f"{split}_images"] = np.concatenate(images)
        finished = tally.finish(split, pictures.labels, contents.order_by_content)
        arrays |= {f"{split}_{what}": values for what, values in finished.items()}
    return Store(arrays, image_size=size, **tally.facts(contents))


class _Checked:
    """A file for writing that keeps the CRC-32 of what is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._joined: JoinedChecksum | None = None
        self.crc32 = 0

    def write(self, content: Any) -> int:
        self.crc32 = zlib.crc32(content, self.crc32)
        return self._file.write(content)

    def write_images(self, content: Any, checksums: Sequence[int]) -> None:
        """Write images of one size, whose own CRC-32s are known: they are not taken again."""
        if self._joined is None:
            self._joined = JoinedChecksum(len(content) // len(checksums))
        for checksum in checksums:
            self.crc32 = self._joined.of(self.crc32, checksum)
        self._file.write(content)


@contextmanager
def _writing(path: Path, crc32: dict[str, int]) -> Iterator[_Checked]:
    """Open a new file; once it is safely on the disk, note its CRC-32 under its name."""
    with path.open("wb") as file:
        checked = _Checked(file)
        yield checked
        file.flush()
        os.fsync(file.fileno())
    crc32[path.stem] = checked.crc32


def _crc_of_json(value: Any) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def _crc_of_file(path: Path) -> int:
    return zlib.crc32(np.memmap(path, np.uint8, "r").data)


def _lock(folder: Path) -> Path:
    return folder.parent / f"{folder.name}.lock"


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:40]
