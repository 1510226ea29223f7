"""What a folder of many images costs: time, memory, files and room on the disk.

    python benchmarks/folder_growth.py [IMAGES] [--classes 1000] [--jpeg-share 0.9] [--in FOLDER]

Makes IMAGES (100,000) small images in class folders in a temporary folder, once half of them and
once all, and prints what each step takes as a Markdown table. Each step is a process of its own,
so that a peak of memory is that of the step.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

IMAGE_SIZE = 32
# What is timed, by name; the names are those of PROGRAM.
STEPS = {
    "imports alone": "",
    "list": "from blocklab.data.folders import list_folder; list_folder(root)",
    "fingerprint": "from blocklab.data.sources import portable_address as f; f(address)",
    "fingerprint, five times": (
        "from blocklab.data.sources import portable_address as f; [f(address) for _ in range(5)]"
    ),
    "decode at 32": "open_data(spec)",
    "open again": "open_data(spec)",
    "read one epoch": (
        "data = open_data(spec)\n"
        "batches = Batches(data.train, 256, mean=data.mean, std=data.std, shuffle=True,"
        " augmentation=Augmentation(4, True))\n"
        "for _ in batches.epoch(0): pass"
    ),
}

PROGRAM = """
import json, threading, time
from pathlib import Path
from blocklab.data.image_data import open_data
from blocklab.data.augmentation import Augmentation
from blocklab.data.loader import Batches
from blocklab.data.spec import DataSpec

root = Path({folder!r})
address = f"folder:{{root}}"
spec = DataSpec(source=address, image_size={size})
peak, done = 0, threading.Event()

def watch():
    global peak
    while True:
        status = Path("/proc/self/status").read_text().split()
        peak = max(peak, 1024 * int(status[status.index("RssAnon:") + 1]))
        if done.wait(0.01):
            return

thread = threading.Thread(target=watch)
thread.start()
started, cpu = time.perf_counter(), time.process_time()
{step}
seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
done.set()
thread.join()
print(json.dumps({{"seconds": seconds, "cpu_seconds": cpu, "peak": peak}}))
"""


def main() -> None:
    """Make the folder, measure each step, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", type=int, nargs="?", default=100_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--jpeg-share", type=float, default=0.9)
    parser.add_argument("--in", dest="place", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.place) as folder:
        root = Path(folder)
        rows: dict[str, list[dict[str, float]]] = {step: [] for step in STEPS}
        made, notes = 0, []
        for count in (options.images // 2, options.images):
            made_in = write_images(root / "images", made, count, options)
            made = count
            for step in STEPS:
                rows[step].append(measure(step, root, root / f"cache{count}"))
            size, files = used(root / f"cache{count}")
            notes.append((count, used(root / "images")[0], size, files, made_in))
    print(f"{options.classes:,} classes, {options.jpeg_share:.0%} JPEG, the rest PNG\n")
    counts = [f"{note[0]:,} images" for note in notes]
    head = " | ".join(f"{count}: s | CPU s | peak MB" for count in counts)
    print(f"| step | {head} | bytes an image more |\n|{'---|' * 8}")
    for step, (half, whole) in rows.items():
        more = (whole["peak"] - half["peak"]) / (notes[1][0] - notes[0][0])
        cells = " | ".join(
            f"{run['seconds']:.2f} | {run['cpu_seconds']:.2f} | {run['peak'] / 1e6:,.0f}"
            for run in (half, whole)
        )
        print(f"| {step} | {cells} | {more:,.0f} |")
    for count, source, size, files, seconds in notes:
        print(
            f"\n{count:,} images: {source / 1e6:,.0f} MB of files (the last of them made in "
            f"{seconds:.0f} s); cache {size / 1e6:,.0f} MB in {files} files"
        )


def write_images(root: Path, first: int, last: int, options: argparse.Namespace) -> float:
    """Write images number `first` to `last`: smooth colours and some noise, 40 to 80 pixels."""
    started = time.perf_counter()
    rng = np.random.default_rng(first)
    for number in range(first, last):
        place = root / f"class_{number % options.classes:04}"
        place.mkdir(parents=True, exist_ok=True)
        height, width = rng.integers(40, 80, 2)
        small = Image.fromarray(rng.integers(0, 256, (3, 3, 3), np.uint8))
        image = small.resize((int(width), int(height)), Image.Resampling.BILINEAR)
        jpeg = rng.random() < options.jpeg_share
        stream = io.BytesIO()
        image.save(stream, "JPEG" if jpeg else "PNG")
        (place / f"{number:07}{'.jpg' if jpeg else '.png'}").write_bytes(stream.getvalue())
    return time.perf_counter() - started


def measure(step: str, root: Path, cache: Path) -> dict[str, float]:
    """Run a step in a new process: its seconds without imports, and its peak of memory in bytes.

    CPU seconds are of all its threads. Memory is what is its own: pages of the mapped
    cache can be dropped at any time.
    """
    program = PROGRAM.format(folder=str(root / "images"), size=IMAGE_SIZE, step=STEPS[step])
    environment = {**os.environ, "BLOCKLAB_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def used(folder: Path) -> tuple[int, int]:
    """Return bytes and files below a folder."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(sizes), len(sizes)


if __name__ == "__main__":
    main()
