"""What a run takes of a GPU, measured by a process of its own before a study begins.

The process chooses what the run trains with, as the run would (it is remembered, so that the run
finds it), and trains a few steps. The study itself must not: what it began on a GPU it would hold
for as long as it lasts.
"""

import math
import multiprocessing
import signal
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from blocklab.data.image_data import open_data
from blocklab.execution.new_process import load_plugins, no_main_module
from blocklab.execution.sharing import GpuNeeds
from blocklab.measure.alone import alone_on_device
from blocklab.measure.device import (
    free_memory,
    gpu_count,
    most_reserved,
    probe_device,
    reset_peak,
    wait,
)
from blocklab.measure.graphs import WARM_UP_STEPS
from blocklab.measure.memory import release_memory
from blocklab.measure.numerics import arithmetic
from blocklab.training.autotune import row_setup, whole_step
from blocklab.training.device import Setup
from blocklab.training.run_definition import RunDefinition
from blocklab.training.workload import Workload

CONTEXT_BYTES = 600 << 20  # CUDA's own, a process: they are in no count of tensors


def measured_needs(definition: RunDefinition, least: int, plugins: Sequence[str] = ()) -> GpuNeeds:
    """Measure what a run takes of a GPU, and what the GPUs have free.

    `least` is an estimate in bytes, which stands where nothing can be measured: a run that fails
    says itself why.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    arguments = (theirs, definition.to_task(), tuple(plugins))
    process = context.Process(target=_measure_and_tell, args=arguments, daemon=True)
    with no_main_module():
        process.start()
    theirs.close()
    try:
        found: GpuNeeds | tuple[int, ...] = ours.recv()
    except EOFError:  # it died
        found = ()
    finally:
        process.terminate()
        process.join()
    if isinstance(found, GpuNeeds):
        return found
    return GpuNeeds(least, least, found or (0,) * gpu_count())


def measure_needs(definition: RunDefinition) -> GpuNeeds:
    """Measure in this process; see `measured_needs`."""
    device, recipe = probe_device(), definition.recipe
    free = _free(device)
    data = open_data(definition.data)
    work = Workload.of(definition.model, recipe, data, torch.get_num_threads())
    reset_peak(device)
    with tempfile.TemporaryDirectory() as folder:
        setup = row_setup(work, Path(folder), "row")
    measuring = most_reserved(device)
    release_memory()
    reset_peak(device)
    taken = _taken_by_steps(work, setup)
    splits = (data.train, data.validation, data.test)  # as large as they are kept
    pixels = sum(len(split) * math.prod(split.images.shape[1:]) for split in splits)
    own = CONTEXT_BYTES + min(pixels, min(free) // 4)  # what does not fit stays in main memory
    return GpuNeeds(taken + own, measuring + CONTEXT_BYTES, free)


@alone_on_device()
def _taken_by_steps(work: Workload, setup: Setup) -> int:
    with arithmetic(setup.device, setup.deterministic):
        step = whole_step(work, setup)
        for _ in range(WARM_UP_STEPS + 2):
            step()
    wait(setup.device)
    return most_reserved(setup.device)


def _measure_and_tell(connection: Connection, run: dict[str, Any], plugins: Sequence[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the study, which ends us
    free: tuple[int, ...] = ()
    try:
        load_plugins(plugins)
        free = _free(probe_device())
        connection.send(measure_needs(RunDefinition.from_dict(run)))
    except Exception:  # memory that one run has not, a block that fails: the run will say it
        connection.send(free)


def _free(device: torch.device) -> tuple[int, ...]:
    return tuple(free_memory(torch.device(device.type, n)) for n in range(gpu_count()))
