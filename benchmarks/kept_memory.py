"""A training step with and without freed memory kept by the C library, side by side.

    python benchmarks/kept_memory.py [--models resnet18,res2net50] [--stem cifar]
        [--batch-size 128] [--steps 5] [--rounds 3] [--threads N]

Two processes a model, which take turns: bf16, channels_last, made-up images of 32x32. Median and
spread in milliseconds a step, page faults a step, and the most memory that each process held.
"""

import argparse
import multiprocessing
import resource
import time
from multiprocessing.connection import Connection

import torch
from side_by_side import Seconds, Table, ratio, training_step

from blocklab.measure.memory import keep_freed_memory, peak_memory


def serve(name: str, kept: bool, given: argparse.Namespace, pipe: Connection) -> None:
    """Train `steps` steps whenever the pipe says so."""
    torch.set_num_threads(given.threads)
    if kept:
        keep_freed_memory()
    step = training_step(name, given.stem, given.batch_size)
    while pipe.recv():
        began, faults = time.perf_counter(), _faults()
        for _ in range(given.steps):
            step()
        seconds = (time.perf_counter() - began) / given.steps
        memory = peak_memory(torch.device("cpu"))
        pipe.send((seconds, (_faults() - faults) // given.steps, memory))


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", default="resnet18,res2net50")
    parser.add_argument("--stem", default="cifar", help="'' is the models' own")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    headings = ["model", "as it is (ms a step)", "kept (ms a step)", "times as fast"]
    headings += ["page faults a step", "peak memory (MB)"]
    table = Table(f"Freed memory kept, batch {given.batch_size}, stem {given.stem}", headings)
    context = multiprocessing.get_context("spawn")
    for name in given.models.split(","):
        pipes = []
        for kept in (False, True):
            ours, theirs = context.Pipe()
            context.Process(target=serve, args=(name, kept, given, theirs)).start()
            pipes.append(ours)
        found: list[list[tuple[float, int, int]]] = [[], []]
        for number in range(given.rounds + 1):
            for pipe, seen in zip(pipes, found, strict=True):
                pipe.send(True)
                one = pipe.recv()
                if number:  # the first round warms up
                    seen.append(one)
        for pipe in pipes:
            pipe.send(False)
        plain, kept = (Seconds(tuple(one[0] for one in seen)) for seen in found)
        faults = " to ".join(f"{max(one[1] for one in seen):,}" for seen in found)
        memory = " to ".join(f"{max(one[2] for one in seen) / 1e6:,.0f}" for seen in found)
        table.add([name, plain, kept, ratio(plain, kept), faults, memory])


if __name__ == "__main__":
    main()
