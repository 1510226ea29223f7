"""One run: what defines it, its folder, and doing it from wherever it stopped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from blocklab.blocks.plugins import fault_line
from blocklab.data.image_data import ImageData, open_data
from blocklab.errors import BlocklabError, InputError, RunError
from blocklab.measure.alone import taking_turns
from blocklab.measure.footprint import check_memory
from blocklab.measure.memory import peak_memory, reset_peak_memory
from blocklab.measure.numerics import arithmetic
from blocklab.training.autotune import row_setup
from blocklab.training.checkpoints import CheckpointKeeper, Checkpoints
from blocklab.training.device import Setup, available_cores, resumed_setup
from blocklab.training.evaluation import evaluate, is_at_chance
from blocklab.training.logits import limit_mb, too_many
from blocklab.training.loop import OnStep, Record, State, prepare, train
from blocklab.training.provenance import describe_run, described_start, taken_over
from blocklab.training.recipe import Recipe
from blocklab.training.run_checks import (
    check_batches_fill,
    check_no_lone_image,
    check_start,
    count,
    normalisation_warning,
    training_memory,
)
from blocklab.training.run_definition import RunDefinition, row_hash
from blocklab.training.run_files import CHECKPOINT, LOG, RUN, RUN_HASH
from blocklab.training.run_folder import RunFolder
from blocklab.training.shorter_run import GOING_ON, shorter_run
from blocklab.training.workload import Workload

_PEAK = "peak_memory_bytes"  # of a result, and of a checkpoint for the process that goes on

OnEpoch = Callable[[Record], None]
OnNote = Callable[[str], None]


def execute_run(
    definition: RunDefinition,
    out: Path,
    label: str = "",
    threads: int | None = None,
    on_epoch: OnEpoch | None = None,
    on_note: OnNote | None = None,
    on_step: OnStep | None = None,
    checkpoints: Checkpoints | None = None,
    keep_empty: bool = False,
) -> Path:
    """Train one run to its end, from its last checkpoint if there is one; return its folder.

    A finished run is left as it is; a run that begins goes on from one that is finished and is the
    same but for fewer epochs, where its schedule allows and that one kept its checkpoint (see
    `shorter_run`). `threads` are this process's for the run (default: all cores); a resumed run
    keeps those that it began with, so that its bits do not change. `on_note` gets, in one line
    each, what was found damaged and how it was mended; `on_step` (steps done, steps of the epoch)
    after each step. `checkpoints` says how often they are written and whether the last is kept
    (default: as the environment says). A run that is refused leaves no folder, unless it is to
    `keep_empty` ones, for somebody to note why.

    Raises:
        InputError: if the definition does not fit the data or the machine, or the images changed
            since the run began.
        RunError: if it fails midway; the last whole epoch is kept.
        BusyError: if another process is training this run.
    """
    folder = RunFolder(out / definition.hash)
    fault = folder.reader.fault  # before the lock, with which another run's files go
    with folder.locked(keep_empty):
        tell_fault(folder, fault, on_note)
        if not folder.reader.finished:
            try:
                train_to_the_end(
                    definition,
                    folder,
                    label,
                    threads,
                    on_epoch,
                    on_note,
                    on_step,
                    checkpoints=checkpoints,
                )
            except BlocklabError as error:
                if _missed_a_file(error):
                    folder.check_there()  # that it is gone says more
                raise
            except (BrokenPipeError, ConnectionResetError):
                raise
            except Exception as error:  # whatever a block does wrong ends in one line
                raise RunError(_failure(error)) from error
    return folder.path


def tell_fault(folder: RunFolder, fault: str | None, on_note: OnNote | None) -> None:
    """Say what was found damaged of a run, and how it is mended."""
    if fault and on_note is not None:
        kept = (folder.path / CHECKPOINT).exists()
        how = "made again from the last checkpoint that is its own" if kept else "trained anew"
        on_note(f"{fault}; it is {how}")


def train_to_the_end(
    definition: RunDefinition,
    folder: RunFolder,
    label: str,
    threads: int | None,
    on_epoch: OnEpoch | None,
    on_note: OnNote | None,
    on_step: OnStep | None = None,
    setup: Setup | None = None,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Train a run in its folder, which is locked, and write its result; see `execute_run`.

    A `setup` that is given is one of several processes that train the run together.
    """
    recipe, seed = definition.recipe, definition.seed
    checkpoints = checkpoints or Checkpoints.named()
    reset_peak_memory()
    data = open_data(definition.data, seed=seed)
    check_batches_fill(recipe, data)
    counted, taken = count(definition.model, len(data.class_names), data.image_size)
    check_start(definition, len(data.class_names), data.image_size)
    check_no_lone_image(definition, data)
    if setup is None:
        check_memory(training_memory(taken, recipe, len(data.train)), "training")
    checkpoint, notes = folder.load_checkpoint(definition.hash)
    limit = limit_mb()
    unkept = too_many(len(data.test), len(data.class_names), limit)
    if unkept and limit > 0:
        notes.append(f"no logits are kept: {unkept}")
    if (begun := folder.reader.run) is None and (begun := (checkpoint or {}).get("run")):
        notes.append(f"{RUN} is damaged or gone; written again from the checkpoint")
        folder.write_run(begun)
    if warning := recipe.warning(len(data.train)):
        notes.append(warning)
    kept, shorter = begun or {}, None
    if begun is None and setup is None and recipe.schedule in GOING_ON:
        shorter = shorter_run(definition.to_dict(), folder.path.parent)
        if shorter and shorter.run["data_fingerprint"] == data.fingerprint:
            checkpoint = shorter.checkpoint()
        if shorter and checkpoint is not None:
            kept = shorter.run
            notes.append(
                f"goes on from {shorter.folder}, which has its epochs up to {shorter.epochs}"
            )
    if checkpoint is None and (warning := normalisation_warning(definition, data)):
        notes.append(warning)
    for note in notes:
        if on_note is not None:
            on_note(note)
    if kept and kept["data_fingerprint"] != data.fingerprint:
        raise InputError(
            f"the images of {definition.data.source} changed since {folder.path} began; delete "
            "that folder to train it anew, or put the images back"
        )
    threads = int(kept.get("threads") or threads or available_cores())
    torch.set_num_threads(threads)
    if setup is None:
        if kept:
            setup = resumed_setup(kept)
        else:
            work = Workload.of(definition.model, recipe, data, threads)
            setup = row_setup(work, folder.path.parent, row_hash(definition))
            reset_peak_memory()
    turns = taking_turns(setup.device, setup.world_size, on_step)
    with arithmetic(setup.device, setup.deterministic), turns as on_step:
        torch.manual_seed(seed)
        network = definition.model.build(len(data.class_names), input_size=data.image_size)
        loaded = None
        if definition.pretrained is not None and checkpoint is None:
            loaded = definition.pretrained.load(network)
            if on_note is not None:
                on_note(f"starts from {definition.pretrained.weights}: {loaded}")
        state = prepare(network, recipe, setup)
        if checkpoint is not None:
            _resume(state, checkpoint, folder)
        if begun is None:
            begun = describe_run(
                definition.to_dict(), definition.data.source, label, data, counted, setup, threads
            )
            if definition.pretrained is not None:
                begun["pretrained"] = (
                    described_start(definition.pretrained, loaded)
                    if loaded
                    else kept.get("pretrained")
                )
            if shorter and checkpoint is not None:
                begun = taken_over(begun, kept, setup.device, state.epochs_done)
                begun["went_on_from"] = shorter.folder.name
            folder.write_run(begun)
        elif (now := taken_over(begun, begun, setup.device, state.epochs_done)) != begun:
            begun = now
            folder.write_run(begun)
        extra = {RUN_HASH: definition.hash, "run": begun}
        most = int((checkpoint or {}).get(_PEAK, 0))  # in bytes, of the processes before
        if shorter and checkpoint is not None:  # a kill must not cost the epochs of that run
            folder.save_checkpoint(state.to_dict() | extra | {_PEAK: most})
        if (folder.path / LOG).exists():  # it may be of more epochs than the checkpoint
            folder.write_log(state.log)
        try:
            with CheckpointKeeper(folder.save_checkpoint, checkpoints) as keeper:
                for record in train(state, data, recipe, setup, seed, on_step):
                    most = max(most, setup.most(peak_memory(setup.device)))
                    if folder.writes and not state.diverged:  # else the last good one stays
                        keeper.epoch_ended(state.to_dict() | extra | {_PEAK: most})
                    folder.write_log(state.log)
                    if on_epoch is not None:
                        on_epoch(record)
                keeper.end(write=checkpoints.keep or state.diverged)
                folder.write_log(state.log)
                result = _end(state, data, recipe, setup, folder, keep_logits=not unkept)
                result[_PEAK] = max(most, setup.most(peak_memory(setup.device)))
                folder.finish(result, checkpoints.keep)
        except (BlocklabError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:
            raise RunError(f"epoch {state.epochs_done + 1}: {_failure(error)}") from error


def _resume(state: State, checkpoint: dict[str, Any], folder: RunFolder) -> None:
    try:
        state.load(checkpoint)
    except Exception as error:  # of another version of the code, which names things otherwise
        raise RunError(
            f"the checkpoint in {folder.path} does not fit this run ({type(error).__name__}); "
            "delete that folder to train it anew"
        ) from error


def _missed_a_file(error: BaseException | None) -> bool:
    return error is not None and (
        isinstance(error, FileNotFoundError) or _missed_a_file(error.__cause__)
    )


def _failure(error: Exception) -> str:
    line = fault_line(error)
    # On the CPU PyTorch raises a plain RuntimeError for it.
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in line:
        return "out of memory; use a smaller batch_size or fewer --workers"
    return line


def _end(
    state: State,
    data: ImageData,
    recipe: Recipe,
    setup: Setup,
    folder: RunFolder,
    keep_logits: bool,
) -> Record:
    """Evaluate a run that has ended, and write its weights; return its result."""
    seconds = sum(record["train_seconds"] for record in state.log)
    speeds = [record["images_per_second"] for record in state.log]
    result: Record = {
        "status": "diverged",
        "epochs": state.epochs_done,
        "train_seconds": seconds,
        "images_per_second": float(np.median(speeds)),
    }
    record, per_image = (
        (None, {})
        if state.diverged
        else evaluate(state.evaluated, data, "test", recipe, setup, keep_logits)
    )
    if record and record["test_loss"] is not None:  # else the last step broke the weights
        result |= {"status": "finished", **record}
        result["validation_top1_percent"] = state.log[-1].get("validation_top1_percent")
        if recipe.test_every_epoch:
            best = max(state.log, key=lambda line: line["test_top1_percent"])
            result["best_test_top1_percent"] = best["test_top1_percent"]
            result["best_test_top5_percent"] = best["test_top5_percent"]
            result["best_test_epoch"] = best["epoch"]
        train_top1 = state.log[-1]["train_top1_percent"]
        if is_at_chance(state.evaluated, data, recipe, setup, train_top1):
            result["at_chance"] = True
        logits = per_image.pop("logits", None)
        folder.write_predictions(per_image)
        folder.write_logits(logits)
        folder.write_weights(state.evaluated.state_dict())
    return result
