"""Pictures decoded in order, some at a time, and what is learned from them as they pass."""

import hashlib
import json
import os
import zlib
from array import array
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from blocklab.data.faults import Faults
from blocklab.data.pictures import (
    BRIGHTEST_OF_12_BITS,
    Contents,
    Picture,
    Pictures,
    decode,
    decode_with_depth,
)
from blocklab.errors import InputError

IMAGES_AT_ONCE = 256
BYTES_AT_ONCE = 32_000_000  # fewer images at once where they are large; twice as many are held


class Chunk(NamedTuple):
    """Images in order, uint8 (n, S, S, 3); of each a hash and a CRC-32; of all a histogram.

    `origins` are hashes of the images before they were resized. Of those that come from files of
    more than 8 bits a value, the brightest and its name.
    """

    pixels: np.ndarray
    digests: list[int]
    origins: list[int]
    checksums: list[int]
    histogram: np.ndarray  # int64 (3, 256)
    deep: tuple[int, str] | None


class _One(NamedTuple):
    pixels: np.ndarray
    digest: int
    origin: int
    checksum: int
    deep: tuple[int, str] | None  # as in Chunk


def decoded(
    pictures: Pictures,
    image_size: int | None,
    size: int,
    faults: Faults,
    draft: bool = False,
    by_content: bool = False,
) -> Iterator[Chunk]:
    """Decode in order, some at a time; decoders run beside each other and beside the caller.

    An image's hashes and checksum are taken by its decoder too; with `by_content` also that of the
    image as it comes. Images that cannot be read are left out and noted in `faults`, for the user
    to mend all of them at once; with any of them, what comes is not the split.

    Raises:
        InputError: if an image is of another size, or there are not as many as labels.
    """

    def one(picture: Picture) -> _One | InputError:
        try:
            pixels, brightest = decode_with_depth(picture, image_size, draft)
        except InputError as error:
            return error
        if pixels.shape != (size, size, 3):
            raise InputError(
                f"{picture.origin} is {pixels.shape[1]}x{pixels.shape[0]} pixels, not "
                f"{size}x{size} as the first image; set "
                f"data.image_size, such as data.image_size={size}"
            )
        # Contiguous: pixels out of a pickle lie channel by channel.
        pixels = np.ascontiguousarray(pixels)
        digest = origin = _digest(pixels)
        if by_content and image_size is not None:
            origin = _digest(decode(picture, None))
        deep = None if brightest is None else (brightest, picture.origin)
        return _One(pixels, digest, origin, zlib.crc32(pixels.data), deep)

    items, count, last = pictures.items(), 0, "the first image"
    workers = _cores()
    at_once = max(workers, min(IMAGES_AT_ONCE, BYTES_AT_ONCE // (3 * size * size)))
    threads = ThreadPoolExecutor(workers)
    try:

        def begin() -> list[tuple[str, Future[_One | InputError]]]:
            return [(item.origin, threads.submit(one, item)) for item in islice(items, at_once)]

        chunk = begin()
        while chunk:
            following = begin()  # decoded while the caller writes
            results = [future.result() for _, future in chunk]
            good = [result for result in results if isinstance(result, _One)]
            for result in results:
                if isinstance(result, InputError):
                    faults.add(result)
            count, last = count + len(chunk), chunk[-1][0]
            if good:
                yield _chunk(good)
            chunk = following
    finally:  # an image that is wrong, or Ctrl-C: what has not begun is not begun
        threads.shutdown(cancel_futures=True)
    if count != len(pictures.labels):
        raise InputError(
            f"{count:,} images for {len(pictures.labels):,} labels, up to {last}; "
            "the data is damaged, fetch it again"
        )


def _digest(pixels: np.ndarray) -> int:
    content = np.ascontiguousarray(pixels).data
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _chunk(images: list[_One]) -> Chunk:
    pixels, digests, origins, checksums, depths = zip(*images, strict=True)
    stacked = np.stack(pixels)
    # One picture of them all: the numbers of a histogram an image cost more than its pixels.
    tall = Image.fromarray(stacked.reshape(-1, *stacked.shape[2:]))
    histogram = np.array(tall.histogram(), np.int64).reshape(3, 256)
    deep = max((one for one in depths if one is not None), default=None)
    return Chunk(stacked, list(digests), list(origins), list(checksums), histogram, deep)


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Tally:
    """A histogram of the training images, and two numbers of each image: a hash and a CRC-32."""

    def __init__(self) -> None:
        self._histogram = np.zeros((3, 256), np.int64)
        self._deep: dict[str, tuple[int, str]] = {}
        self._digests: dict[str, array[int]] = defaultdict(lambda: array("Q"))
        self._origins: dict[str, array[int]] = defaultdict(lambda: array("Q"))
        self._checksums: dict[str, array[int]] = defaultdict(lambda: array("I"))
        self._fingerprint = hashlib.sha256()

    def add(self, split: str, images: Chunk) -> None:
        """Take in the next images of a split."""
        if split == "train":
            self._histogram += images.histogram
        if images.deep is not None and images.deep > self._deep.get(split, (0, "")):
            self._deep[split] = images.deep
        self._digests[split].extend(images.digests)
        self._origins[split].extend(images.origins)
        self._checksums[split].extend(images.checksums)

    def finish(self, split: str, labels: np.ndarray, by_content: bool) -> dict[str, np.ndarray]:
        """Note a finished split in the fingerprint; return its labels, order and checksums."""
        digests = np.array(self._digests[split], np.uint64)
        origins = np.array(self._origins[split], np.uint64)  # at whichever size they are stored
        order = np.lexsort((labels, origins)) if by_content else np.arange(len(labels))
        self._fingerprint.update(digests[order].tobytes() + labels[order].tobytes())
        checksums = np.array(self._checksums[split], np.uint32)
        return {"labels": labels, "order": order, "crc32": checksums}

    def check_brightness(self) -> None:
        """Refuse values of 12 bits in files of 16, which would be all but black.

        Files of 8 bits beside them say nothing of theirs; training images of 16 do, of every split.

        Raises:
            InputError: naming a split and the brightest of its images that are.
        """
        if self._deep.get("train", (0,))[0] > BRIGHTEST_OF_12_BITS:
            return
        for split, (brightest, origin) in self._deep.items():
            if 0 < brightest <= BRIGHTEST_OF_12_BITS:
                raise InputError(
                    f"no {'training' if split == 'train' else split} image of more than 8 bits is "
                    f"brighter than {brightest} of 255, as values of 12 bits or fewer in files of "
                    f"16 are ({origin}); save the images with 8 bits a channel"
                )

    def facts(self, contents: Contents) -> dict[str, Any]:
        """Return what a store says of its images."""
        share = self._histogram / np.maximum(1, self._histogram.sum(1, keepdims=True))
        values = np.arange(256) / 255
        mean = share @ values
        std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(1))
        std[std == 0] = 1.0  # one flat colour: nothing to divide by
        return {
            "class_names": contents.class_names,
            "mean": tuple(mean.tolist()),
            "std": tuple(std.tolist()),
            "fingerprint": self._fingerprint.hexdigest()[:16],
        }


class DecodingBar:
    """Progress on a terminal's stderr; silent elsewhere."""

    def __init__(self, name: str, contents: Contents) -> None:
        console = Console(stderr=True)
        self._progress = Progress(console=console, transient=True, disable=not console.is_terminal)
        total = sum(len(pictures.labels) for pictures in contents.splits().values())
        self._task = self._progress.add_task(
            f"Decoding {escape(json.dumps(name)[1:-1])}", total=total
        )

    def advance(self, images: int) -> None:
        """Say that so many more are decoded."""
        self._progress.advance(self._task, images)

    def __enter__(self) -> "DecodingBar":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()
