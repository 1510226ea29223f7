"""A study with the cores shared across its runs, against the same runs one after another.

    python benchmarks/study.py [--model resnet20] [--seeds 24] [--images 512] [--epochs 2]
                               [--rounds 3]

Both ways train the same runs on the same images, in alternation, each in a fresh folder: once as
``--workers auto`` shares the machine, once with one worker that has all cores. Images a second
are training images over the whole time of the study: starting workers, evaluation and writing
results included.

What sharing can give at most is printed too: the training steps alone, in one process with all
cores and in a process a core at once, which share nothing. Prints Markdown.
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from side_by_side import training_step

from blocklab.execution.crew import Silent
from blocklab.execution.sharing import Sharing
from blocklab.execution.train_studies import train_studies
from blocklab.measure.device import processor
from blocklab.measure.memory import keep_freed_memory
from blocklab.study.study import Study
from blocklab.training.device import available_cores

STEPS = 40


class Noting(Silent):
    """Remembers how the machine was shared."""

    sharing: Sharing

    def planned(self, jobs: Any, finished: int, sharing: Sharing) -> None:
        """Note it."""
        self.sharing = sharing


def timed(study: Study, workers: int | None, threads: int | None) -> tuple[float, Sharing]:
    """Run the study in a fresh folder; return its training images a second."""
    noting = Noting()
    with tempfile.TemporaryDirectory(prefix="blocklab-study-") as out:
        began = time.perf_counter()
        results = train_studies((study,), Path(out), workers, noting, threads=threads)[0]
        seconds = time.perf_counter() - began
    runs = [run for row in results.rows for run in row.runs]
    assert len(runs) == len(study.rows) * len(study.seeds), "a run failed"
    images = sum(run.run["train_images"] * run.result["epochs"] for run in runs)
    return images / seconds, noting.sharing


def steps(model: str, stem: str, batch: int, threads: int, start: Any) -> float:
    """Training images a second of steps alone, begun when all processes are ready."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    step = training_step(model, stem, batch)
    for _ in range(5):
        step()
    start.wait()
    began = time.perf_counter()
    for _ in range(STEPS):
        step()
    return batch * STEPS / (time.perf_counter() - began)


def ceiling(model: str, stem: str, batch: int) -> str:
    """What sharing the cores can give at most, in words."""
    cores, found = available_cores(), []
    context = multiprocessing.get_context("spawn")
    for processes in (1, cores):
        with context.Manager() as manager, context.Pool(processes) as pool:
            start = manager.Barrier(processes)
            given = [(model, stem, batch, cores // processes, start)] * processes
            found.append(sum(pool.starmap(steps, given, chunksize=1)))
    return (
        f"steps alone: 1 x {cores} gives {found[0]:,.0f} images/s, {cores} x 1 give "
        f"{found[1]:,.0f} together: at most {found[1] / found[0]:.2f} times"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--stem", default="cifar", help="'' is the model's own")
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    study = Study.parse(
        {
            "title": "Runs to be timed",
            "data": {"source": "digits", "train_images": given.images, "test_images": 100},
            "recipe": {**{"base": "quick", "epochs": given.epochs, "batch_size": given.batch_size}},
            "seeds": given.seeds,
            "varies": [],
            **({"model": {"stem": given.stem}} if given.stem else {}),
            "rows": {"model": given.model},
        },
        "timed",
    )
    ways = {"shared": (None, None), "one after another": (1, available_cores())}
    speeds: dict[str, list[float]] = {way: [] for way in ways}
    shared: dict[str, Sharing] = {}
    for _ in range(given.rounds):
        for way, (workers, threads) in ways.items():
            speed, shared[way] = timed(study, workers, threads)
            speeds[way].append(speed)
    print(
        f"{given.seeds} runs of {given.model} at 32x32, {given.images} images x {given.epochs} "
        f"epochs, batch {given.batch_size}; {available_cores()} cores of {processor()}, PyTorch "
        f"{torch.__version__}; median of {given.rounds} rounds in alternation (lowest - highest)\n"
    )
    print("| runs | workers x threads | images/s of the study |\n|---|---|---|")
    for way, found in speeds.items():
        split = f"{shared[way].workers} x {shared[way].threads}"
        low, middle, high = min(found), statistics.median(found), max(found)
        print(f"| {way} | {split} | {middle:,.0f} ({low:,.0f} - {high:,.0f}) |")
    ratios = [a / b for a, b in zip(*speeds.values(), strict=True)]
    print(
        f"\nshared / one after another: {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} - {max(ratios):.2f})\n"
    )
    print(ceiling(given.model, given.stem, given.batch_size))


if __name__ == "__main__":
    main()
