"""One run on several devices: a process a device, through Fabric's DDP.

On one machine the processes are started here. Under torchrun, or in a SLURM step of several tasks,
each process calls `launch` itself and joins the others. Only the first process writes.

The same batches, gradients and schedule as on one device: every process takes its share of each
batch, and the gradient is that of the whole batch's mean. What differs is BatchNorm, whose
statistics are of the share unless the recipe says `sync_batchnorm`, and the draws of dropout,
stochastic depth, MixUp and CutMix, which are each process's own.
"""

import logging
import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric
from torch import Tensor, distributed
from torch.multiprocessing import (  # pyright: ignore[reportPrivateImportUsage]
    ProcessExitedException,
    ProcessRaisedException,
)

from blocklab.blocks.plugins import fault_line, load_plugin
from blocklab.data.image_data import open_data
from blocklab.errors import BlocklabError, InputError, RunError
from blocklab.measure.device import gpu_count
from blocklab.measure.launcher import launcher_number, started_elsewhere
from blocklab.training.autotune import row_setup
from blocklab.training.checkpoints import end_when_told
from blocklab.training.device import Setup, available_cores, resumed_setup
from blocklab.training.loop import OnStep, Record
from blocklab.training.recipe import Recipe
from blocklab.training.run import OnNote, execute_run, tell_fault, train_to_the_end
from blocklab.training.run_checks import (
    check_batches_fill,
    check_no_lone_image,
    check_start,
    check_threads,
    count,
)
from blocklab.training.run_definition import RunDefinition, row_hash
from blocklab.training.run_folder import RunFolder
from blocklab.training.workload import Workload

STEP_SECONDS = 0.1  # between two words about steps
PATIENCE_SECONDS = 30.0  # for processes that were told to end


def launch(
    definition: RunDefinition,
    out: Path,
    *,
    label: str = "",
    devices: int = 1,
    nodes: int = 1,
    threads: int | None = None,
    plugins: Sequence[str] = (),
    on_epoch: Callable[[Record], None] | None = None,
    on_step: OnStep | None = None,
    on_note: OnNote | None = None,
) -> Path:
    """Train one run on `devices` devices of each of `nodes` machines; return its folder.

    `threads` are each process's. `plugins` are files of blocks that the processes started here
    register.

    Raises:
        InputError: if the run does not fit the devices, or there are not that many.
        RunError: if it fails midway.
    """
    check_threads(threads)
    _check_processes(devices, nodes)
    world = devices * nodes
    if world == 1:
        return execute_run(definition, out, label, threads, on_epoch, on_note, on_step)
    threads = threads or max(1, available_cores() // devices)
    folder = RunFolder(out / definition.hash)
    fault = folder.reader.fault  # before the lock, with which another run's files go
    first = not started_elsewhere() or _outer_rank() == 0
    with folder.locked() if first else nullcontext():
        if first:
            tell_fault(folder, fault, on_note)
        if folder.reader.finished:
            return folder.path
        setup = _choose(definition, folder, threads, devices, nodes)
        if started_elsewhere():
            setup.fabric.launch()
            train_to_the_end(
                definition,
                folder if first else _Silent(folder.path),
                label,
                threads,
                on_epoch if first else None,
                on_note if first else None,
                on_step if first else None,
                setup,
            )
            _leave()
        else:
            task = _Task(
                run=definition.to_task(),
                folder=folder,
                label=label,
                threads=threads,
                plugins=tuple(str(path) for path in plugins),
                setup=setup.describe(),
                tells_steps=on_step is not None,
            )
            _start(setup, task, on_epoch, on_step, on_note)
    return folder.path


def check_shares(recipe: Recipe, train_images: int, world: int) -> None:
    """Check that every process gets images of every batch.

    Raises:
        InputError: if one does not, or would get too few for BatchNorm.
    """
    least = 2 * world
    if recipe.batch_size < least:
        raise InputError(
            f"{world} devices need a batch_size of {least} or more, two images each; "
            f"it is {recipe.batch_size}"
        )
    rest = train_images % recipe.batch_size
    if not recipe.drop_last and 0 < rest < least:
        raise InputError(
            f"the last batch of {rest} images gives {world} devices less than two each; set "
            "drop_last=true or another batch_size"
        )
    if (recipe.mixup or recipe.cutmix) and recipe.batch_size % least:
        raise InputError(
            f"mixup and cutmix pair the images of a device; on {world} set a batch_size that is a "
            f"multiple of {least}"
        )


def _check_processes(devices: int, nodes: int) -> None:
    if devices < 1 or nodes < 1:
        raise InputError("--devices and --nodes are 1 or more")
    if started_elsewhere():
        started = launcher_number("WORLD_SIZE", launcher_number("SLURM_NTASKS", 1))
        if started != devices * nodes:
            raise InputError(
                f"{started} processes were started for {nodes} nodes of {devices} devices; start "
                "one a device"
            )
    elif nodes > 1:
        raise InputError(
            f"start the processes of {nodes} nodes with torchrun or SLURM, one a device: on each "
            f"node, torchrun --nnodes {nodes} --nproc-per-node {devices} …; see docs/clusters.md"
        )
    gpus = gpu_count()
    there = gpus or available_cores()
    if devices > there:
        what = f"GPU{'s' * (gpus > 1)}" if gpus else "cores"
        raise InputError(f"this machine has {there} {what}: set --devices from 1 to {there}")


def _choose(
    definition: RunDefinition, folder: RunFolder, threads: int, devices: int, nodes: int
) -> Setup:
    world = devices * nodes
    begun = folder.reader.run
    data = open_data(definition.data)  # decoded once, before there are several processes
    check_shares(definition.recipe, len(data.train), world)
    # As each process does, but before one is started and anything is measured.
    check_batches_fill(definition.recipe, data)
    count(definition.model, len(data.class_names), data.image_size)
    check_start(definition, len(data.class_names), data.image_size)
    check_no_lone_image(definition, data)
    if begun is not None:
        return resumed_setup(begun, devices, nodes)
    work = Workload.of(definition.model, definition.recipe, data, threads)
    return row_setup(work, folder.path.parent, row_hash(definition), devices, nodes)


@dataclass(frozen=True)
class _Task:
    """The task of a process that is started here: plain data, as it travels."""

    run: dict[str, Any]
    folder: RunFolder
    label: str
    threads: int
    plugins: tuple[str, ...]
    setup: dict[str, Any]
    tells_steps: bool


def _start(
    setup: Setup,
    task: _Task,
    on_epoch: Callable[[Record], None] | None,
    on_step: OnStep | None,
    on_note: OnNote | None,
) -> None:
    """Start the processes and pass on what they say, until all have ended."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe(duplex=False)
    errors: list[BlocklabError] = []
    raised: list[BaseException] = []

    def listen() -> None:
        try:
            while (message := ours.recv()) is not None:
                kind, value = message
                if kind == "epoch" and on_epoch is not None:
                    on_epoch(value)
                elif kind == "step" and on_step is not None:
                    on_step(*value)
                elif kind == "note" and on_note is not None:
                    on_note(value)
                elif kind in ("InputError", "RunError"):
                    errors.append(InputError(value) if kind == "InputError" else RunError(value))
        except BaseException as error:  # what a callback raises is the caller's
            raised.append(error)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    failure = None
    others = set(multiprocessing.active_children())
    # That it ends the others where one fails is no news: what failed is.
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    try:
        setup.fabric.launch(partial(_train_rank, task=task, connection=theirs))
    except (ProcessExitedException, ProcessRaisedException) as error:
        failure = error
    except BaseException:  # Ctrl-C, to which they are deaf
        started = set(multiprocessing.active_children()) - others
        for process in started:
            process.terminate()
        for process in started:  # the first of them writes the last epoch
            process.join(PATIENCE_SECONDS)
        raise
    finally:
        theirs.send(None)
        listener.join()
    if raised:
        raise raised[0]
    if errors:
        raise errors[0]
    if failure is not None:
        lines = str(failure).strip().splitlines()
        raise RunError(f"a process of the run died: {lines[-1]}; run the same command to go on")


def _train_rank(fabric: Fabric, task: _Task, connection: Any) -> None:
    """Train as one of the processes started here."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the process that started us
    end_when_told()
    try:
        for path in task.plugins:
            load_plugin(path)
        setup = resumed_setup(task.setup, fabric=fabric)
        first = setup.rank == 0
        last_told = 0.0

        def tell_step(step: int, steps: int) -> None:
            nonlocal last_told
            if step == steps or time.monotonic() - last_told > STEP_SECONDS:
                last_told = time.monotonic()
                connection.send(("step", (step, steps)))

        train_to_the_end(
            RunDefinition.from_dict(task.run),
            task.folder if first else _Silent(task.folder.path),
            task.label,
            task.threads,
            (lambda record: connection.send(("epoch", record))) if first else None,
            (lambda note: connection.send(("note", note))) if first else None,
            tell_step if first and task.tells_steps else None,
            setup,
        )
        _leave()
    except Exception as error:
        kind = "InputError" if isinstance(error, InputError) else "RunError"
        connection.send((kind, fault_line(error)))
        sys.exit(1)


def _leave() -> None:
    """Part from the others in order: who exits first would break off what they still exchange."""
    distributed.barrier()
    distributed.destroy_process_group()


def _outer_rank() -> int:
    return launcher_number("RANK", launcher_number("SLURM_PROCID", 0))


class _Silent(RunFolder):
    """A run's folder for the processes that do not write."""

    writes = False

    def write_run(self, run: dict[str, Any]) -> None:
        """Leave it to the first process."""

    def write_log(self, log: list[dict[str, Any]]) -> None:
        """Leave it to the first process."""

    def write_predictions(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Leave it to the first process."""

    def write_logits(self, logits: np.ndarray | None) -> None:
        """Leave it to the first process."""

    def write_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Leave it to the first process."""

    def finish(self, result: dict[str, Any], keep_checkpoint: bool = False) -> None:
        """Leave it to the first process."""
