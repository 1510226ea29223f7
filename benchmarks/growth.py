"""How time and memory of training grow with batch, resolution and epochs.

    python benchmarks/growth.py [--model resnet20] [--images 512] [--batches 32,64,128,256]
        [--sizes 16,32,64,128] [--epochs 1,2,4,8] [--threads 2]

Every point is a run of its own in a fresh process, on scikit-learn's digits. Seconds are the time
spent in training steps; memory is the most that the process held, beyond what it held before its
network was made. Prints Markdown.
"""

import argparse
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import date

import torch

from blocklab.data.image_data import open_data
from blocklab.data.spec import DataSpec
from blocklab.measure.device import processor
from blocklab.measure.memory import peak_memory, reset_peak_memory
from blocklab.models.spec import model_spec
from blocklab.training.device import choose_setup
from blocklab.training.loop import prepare, train
from blocklab.training.recipe import load_recipe


def measure(
    model: str, images: int, batch: int, size: int, epochs: int, threads: int
) -> tuple[float, float, float]:
    """Train; return seconds, images a second (after the first step) and MiB."""
    torch.set_num_threads(threads)
    data = open_data(
        DataSpec(source="digits", image_size=size, train_images=images, validation_fraction=0)
    )
    recipe = load_recipe("quick", {"batch_size": batch, "epochs": epochs})
    setup = choose_setup(recipe)
    reset_peak_memory()
    before = peak_memory(setup.device)
    state = prepare(model_spec(model).build(len(data.class_names)), recipe, setup)
    records = list(train(state, data, recipe, setup, 0))
    seconds = sum(record["train_seconds"] for record in records)
    rate = max(record["images_per_second"] for record in records)
    return seconds, rate, (peak_memory(setup.device) - before) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--images", type=int, default=512)
    numbers: Callable[[str], list[int]] = lambda text: [int(part) for part in text.split(",")]  # noqa: E731
    parser.add_argument("--batches", type=numbers, default="32,64,128,256")
    parser.add_argument("--sizes", type=numbers, default="16,32,64,128")
    parser.add_argument("--epochs", type=numbers, default="1,2,4,8")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    print(f"`python benchmarks/growth.py` on {date.today()}: {processor()}, ", end="")
    print(f"{os.cpu_count()} cores, {given.threads} threads, PyTorch {torch.__version__}; ", end="")
    print(f"`{given.model}`, {given.images} images.")
    points = [
        ("batch", [(batch, 32, 1) for batch in given.batches]),
        ("side in pixels", [(64, size, 1) for size in given.sizes]),
        ("epochs", [(64, 32, epochs) for epochs in given.epochs]),
    ]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
        for place, (what, settings) in enumerate(points):
            print(f"\n| {what} | seconds | images/s | MiB |")
            print("|--:|--:|--:|--:|")
            for batch, size, epochs in settings:
                given_ = (given.model, given.images, batch, size, epochs, given.threads)
                seconds, rate, memory = pool.submit(measure, *given_).result()
                varied = (batch, size, epochs)[place]
                print(f"| {varied} | {seconds:.2f} | {rate:,.0f} | {memory:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
