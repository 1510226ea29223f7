"""Every source decoded once, into memory-mapped uint8 files.

A store is a folder below BLOCKLAB_CACHE (default: the user's cache folder):
  {train,test}_images.npy  uint8 (N, S, S, 3)       {train,test}_labels.npy  int64 (N,)
  {train,test}_order.npy   int64 (N,), the canonical order of the rows
  meta.json                class names, mean, std, fingerprint and a CRC-32 of each file
It is named by what it was decoded from, written under another name and renamed when whole, and
checked whenever it is opened; a damaged one is decoded again.
"""

import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock
from platformdirs import user_cache_path
from rich.console import Console
from rich.progress import Progress

from blocklab.data.pictures import Contents, Picture, Pictures, Source, decode, natural_size
from blocklab.errors import InputError, RunError
from blocklab.files import write_json

FORMAT_VERSION = 1
IMAGES_AT_ONCE = 256
FILES = tuple(
    f"{split}_{what}" for split in ("train", "test") for what in ("images", "labels", "order")
)


@dataclass(frozen=True)
class Store:
    """Decoded images of both splits, by name of the files above, and facts about them.

    `mean` and `std` are of the training images, per channel, in 0..1.
    """

    arrays: dict[str, np.ndarray]
    class_names: tuple[str, ...]
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fingerprint: str


def cache_folder() -> Path:
    """Return the folder of decoded images: BLOCKLAB_CACHE, else the user's cache folder."""
    named = os.environ.get("BLOCKLAB_CACHE")
    return Path(named).expanduser() if named else user_cache_path("blocklab")


def open_store(source: Source, image_size: int | None) -> Store:
    """Open the store of `source`, decoding it first if there is none or it is damaged.

    Raises:
        InputError: if an image cannot be used.
        RunError: if the cache cannot be written.
    """
    if source.embedded:
        return _in_memory(source.read(image_size), image_size)
    key = json.dumps([FORMAT_VERSION, source.name, source.identity, image_size])
    parent = cache_folder() / "data"
    folder = parent / f"{_plain(source.name)}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    store = _open(folder)
    if store is not None:
        return store
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with FileLock(parent / f"{folder.name}.lock"):
            store = _open(folder)  # another process may have just written it
            if store is None:
                _build(source, image_size, folder)
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
        arrays = {}
        for name in FILES:
            if _crc_of_file(folder / f"{name}.npy") != facts["crc32"][name]:
                return None
            arrays[name] = np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))
        return Store(
            arrays,
            tuple(facts["class_names"]),
            facts["image_size"],
            tuple(facts["mean"]),
            tuple(facts["std"]),
            facts["fingerprint"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _build(source: Source, image_size: int | None, folder: Path) -> None:
    for stale in folder.parent.glob(f".{folder.name}.*"):  # of a process that was killed
        shutil.rmtree(stale, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        contents = source.read(image_size)
        size = image_size or natural_size(contents)
        facts: dict[str, Any] = {"image_size": size, "class_names": contents.class_names}
        facts["crc32"], tally = {}, _Tally()
        with _Bar(source.name, contents) as bar:
            for split, pictures in (("train", contents.train), ("test", contents.test)):
                with (temporary / f"{split}_images.npy").open("wb") as file:
                    # Plain writes, not a writable memory map: on a full disk that would kill us.
                    header = {"descr": "|u1", "fortran_order": False}
                    shape = (len(pictures.labels), size, size, 3)
                    np.lib.format.write_array_header_1_0(file, {**header, "shape": shape})
                    for chunk in _decoded(pictures, image_size, size):
                        file.write(chunk.data)
                        tally.add(split, chunk)
                        bar.advance(len(chunk))
                    _sync(file)
                order = tally.order(split, pictures.labels, contents.order_by_content)
                for what, array in (("labels", pictures.labels), ("order", order)):
                    with (temporary / f"{split}_{what}.npy").open("wb") as file:
                        np.save(file, array)
                        _sync(file)
        for name in FILES:
            facts["crc32"][name] = _crc_of_file(temporary / f"{name}.npy")
        facts |= tally.facts(contents)
        write_json(temporary / "meta.json", {"facts": facts, "crc32": _crc_of_json(facts)})
        temporary.chmod(0o755)  # mkdtemp makes folders that only the owner can read
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _in_memory(contents: Contents, image_size: int | None) -> Store:
    size, tally, arrays = image_size or natural_size(contents), _Tally(), {}
    for split, pictures in (("train", contents.train), ("test", contents.test)):
        images = np.concatenate(list(_decoded(pictures, image_size, size)))
        tally.add(split, images)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images, pictures.labels
        arrays[f"{split}_order"] = tally.order(split, pictures.labels, contents.order_by_content)
    return Store(arrays, image_size=size, **tally.facts(contents))


def _decoded(pictures: Pictures, image_size: int | None, size: int) -> Iterator[np.ndarray]:
    """Decode in order, uint8 (n, size, size, 3) at a time; decoders run beside each other."""

    def one(picture: Picture) -> np.ndarray:
        pixels = decode(picture, image_size)
        if pixels.shape != (size, size, 3):
            raise InputError(
                f"{picture.origin} is {pixels.shape[1]}x{pixels.shape[0]} pixels, not "
                f"{size}x{size} as the first image; set image_size, e.g. image_size={size}"
            )
        return pixels

    items = pictures.items()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        while chunk := list(islice(items, IMAGES_AT_ONCE)):
            yield np.stack(list(threads.map(one, chunk)))


class _Tally:
    """What is learned from pixels as they pass: a histogram, and a hash of each image."""

    def __init__(self) -> None:
        self._histogram = np.zeros((3, 256), np.int64)  # of the training images
        self._digests: dict[str, list[int]] = {"train": [], "test": []}
        self._fingerprint = hashlib.sha256()

    def add(self, split: str, images: np.ndarray) -> None:
        if split == "train":
            for channel in range(3):
                values = images[..., channel].reshape(-1)
                self._histogram[channel] += np.bincount(values, minlength=256)
        self._digests[split] += (
            int.from_bytes(hashlib.blake2b(image, digest_size=8).digest(), "little")
            for image in images
        )

    def order(self, split: str, labels: np.ndarray, by_content: bool) -> np.ndarray:
        """Return the canonical order of a finished split, and note it in the fingerprint."""
        digests = np.array(self._digests[split], np.uint64)
        order = np.lexsort((labels, digests)) if by_content else np.arange(len(labels))
        self._fingerprint.update(digests[order].tobytes() + labels[order].tobytes())
        return order

    def facts(self, contents: Contents) -> dict[str, Any]:
        share = self._histogram / self._histogram.sum(1, keepdims=True)
        values = np.arange(256) / 255
        mean = share @ values
        std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(1))
        std[std == 0] = 1.0  # one flat colour: nothing to divide by
        self._fingerprint.update(json.dumps(contents.class_names).encode())
        return {
            "class_names": contents.class_names,
            "mean": tuple(mean.tolist()),
            "std": tuple(std.tolist()),
            "fingerprint": self._fingerprint.hexdigest()[:16],
        }


class _Bar:
    """Progress on a terminal's stderr; silent elsewhere."""

    def __init__(self, name: str, contents: Contents) -> None:
        console = Console(stderr=True)
        self._progress = Progress(console=console, transient=True, disable=not console.is_terminal)
        total = len(contents.train.labels) + len(contents.test.labels)
        self._task = self._progress.add_task(f"Decoding {name}", total=total)

    def advance(self, images: int) -> None:
        self._progress.advance(self._task, images)

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()


def _crc_of_json(value: Any) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def _crc_of_file(path: Path) -> int:
    return zlib.crc32(np.memmap(path, np.uint8, "r").data)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:40]
