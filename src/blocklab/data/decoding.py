"""Pictures decoded in order, some at a time, and what is learned from them as they pass."""

import hashlib
import json
import os
import zlib
from array import array
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from blocklab.data.faults import Faults
from blocklab.data.pictures import Contents, Picture, Pictures, decode
from blocklab.errors import InputError

IMAGES_AT_ONCE = 256
BYTES_AT_ONCE = 64_000_000  # fewer images at once where they are large


def decoded(
    pictures: Pictures, image_size: int | None, size: int, faults: Faults
) -> Iterator[np.ndarray]:
    """Decode in order, uint8 (n, size, size, 3) at a time; decoders run beside each other.

    Images that cannot be read are left out and noted in `faults`, for the user to mend all of
    them at once; with any of them, what comes is not the split.

    Raises:
        InputError: if an image is of another size, or there are not as many as labels.
    """

    def one(picture: Picture) -> np.ndarray | InputError:
        try:
            pixels = decode(picture, image_size)
        except InputError as error:
            return error
        if pixels.shape != (size, size, 3):
            raise InputError(
                f"{picture.origin} is {pixels.shape[1]}x{pixels.shape[0]} pixels, not "
                f"{size}x{size} as the first image; set image_size, e.g. image_size={size}"
            )
        return pixels

    items, count, last = pictures.items(), 0, "the first image"
    workers = min(8, os.cpu_count() or 1)
    at_once = max(workers, min(IMAGES_AT_ONCE, BYTES_AT_ONCE // (3 * size * size)))
    with ThreadPoolExecutor(workers) as threads:
        while chunk := list(islice(items, at_once)):
            good: list[np.ndarray] = []
            for result in threads.map(one, chunk):
                faults.add(result) if isinstance(result, InputError) else good.append(result)
            if good:
                # Contiguous: pixels out of a pickle lie channel by channel, as stacking keeps them.
                yield np.ascontiguousarray(np.stack(good))
            count, last = count + len(chunk), chunk[-1].origin
    if count != len(pictures.labels):
        raise InputError(
            f"{count:,} images for {len(pictures.labels):,} labels, up to {last}; "
            "the data is damaged, fetch it again"
        )


class Tally:
    """A histogram of the training images, and two numbers of each image: a hash and a CRC-32."""

    def __init__(self) -> None:
        self._histogram = np.zeros((3, 256), np.int64)
        self._digests: dict[str, array[int]] = defaultdict(lambda: array("Q"))
        self._checksums: dict[str, array[int]] = defaultdict(lambda: array("I"))
        self._fingerprint = hashlib.sha256()

    def add(self, split: str, images: np.ndarray) -> None:
        """Take in the next images of a split, uint8 (n, S, S, 3)."""
        if split == "train":
            for channel in range(3):
                values = images[..., channel].reshape(-1)
                self._histogram[channel] += np.bincount(values, minlength=256)
        for image in images:
            digest = hashlib.blake2b(image, digest_size=8).digest()
            self._digests[split].append(int.from_bytes(digest, "little"))
            self._checksums[split].append(zlib.crc32(image))

    def finish(self, split: str, labels: np.ndarray, by_content: bool) -> dict[str, np.ndarray]:
        """Note a finished split in the fingerprint; return its labels, order and checksums."""
        digests = np.array(self._digests[split], np.uint64)
        order = np.lexsort((labels, digests)) if by_content else np.arange(len(labels))
        self._fingerprint.update(digests[order].tobytes() + labels[order].tobytes())
        checksums = np.array(self._checksums[split], np.uint32)
        return {"labels": labels, "order": order, "crc32": checksums}

    @property
    def brightest(self) -> int:
        """The largest value of any training image."""
        return int(np.flatnonzero(self._histogram.sum(0)).max(initial=0))

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
