"""How fast a folder of photographs is decoded: as before, with all cores busy, and in draft mode.

    python benchmarks/decoding.py [--images 300] [--kept 256]

Makes JPEGs of 1,200 to 2,000 pixels a side and decodes them by turns, three times each:

- `in turn`: some at a time; the decoders wait while sums are taken and what came is written
- `beside`: what `data.image_size` does: sums by the decoders, which go on while that is written
- `draft`: what `data.kept_size` does: the same, of JPEGs decoded near the size that is kept
"""

import argparse
import hashlib
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from blocklab.data.decoding import IMAGES_AT_ONCE, decoded
from blocklab.data.faults import Faults
from blocklab.data.pictures import Picture, Pictures, decode


def photographs(folder: Path, count: int) -> Pictures:
    rng = np.random.default_rng(0)
    files = [folder / f"{number}.jpg" for number in range(count)]
    for file in files:
        coarse = Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8))
        width, height = map(int, rng.integers(1200, 2000, 2))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(file, quality=90)

    def items() -> Iterator[Picture]:
        return (Picture(str(file), file) for file in files)

    return Pictures(np.zeros(count, np.int64), items)


def in_turn(pictures: Pictures, size: int, out: Path) -> None:
    items, whole = list(pictures.items()), 0
    with ThreadPoolExecutor() as threads, out.open("wb") as file:
        for start in range(0, len(items), IMAGES_AT_ONCE):
            some = items[start : start + IMAGES_AT_ONCE]
            images = np.stack(list(threads.map(lambda one: decode(one, size), some)))
            for channel in range(3):
                np.bincount(images[..., channel].reshape(-1), minlength=256)
            for image in images:
                hashlib.blake2b(image.data, digest_size=8)
                zlib.crc32(image.data)
            whole = zlib.crc32(images.data, whole)
            file.write(images.data)


def beside(pictures: Pictures, size: int, out: Path, draft: bool = False) -> None:
    with out.open("wb") as file:
        for chunk in decoded(pictures, size, size, Faults(), draft):
            file.write(chunk.pixels.data)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--kept", type=int, default=256)
    given = parser.parse_args()
    ways: dict[str, Callable[[Pictures, int, Path], None]] = {
        "in turn": in_turn,
        "beside": beside,
        "draft": lambda pictures, size, out: beside(pictures, size, out, draft=True),
    }
    best: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        pictures = photographs(Path(folder), given.images)
        for _ in range(3):
            for name, way in ways.items():
                began = time.perf_counter()
                way(pictures, given.kept, Path(folder) / "images")
                taken = time.perf_counter() - began
                best[name] = min(taken, best.get(name, taken))
    for name, seconds in best.items():
        print(f"{name:8} {given.images / seconds:7.0f} images/s")


if __name__ == "__main__":
    main()
