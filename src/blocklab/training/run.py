"""One run: what defines it, its folder, and doing it from wherever it stopped."""

import hashlib
import json
import platform
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from filelock import FileLock, Timeout
from safetensors.torch import save_file

from blocklab.data import DataSpec, ImageData, open_data
from blocklab.errors import InputError, RunError
from blocklab.files import read_json, write_atomically, write_json
from blocklab.measure import Cost, cost
from blocklab.models import ModelSpec
from blocklab.training.device import Setup, available_cores, choose_setup
from blocklab.training.loop import Record, State, evaluate, prepare, train
from blocklab.training.recipe import Recipe

OnEpoch = Callable[[Record], None]


class BusyError(RunError):
    """Another process is training the run."""


@dataclass(frozen=True)
class RunDefinition:
    """All that decides a run's results; its hash names the run's folder."""

    model: ModelSpec
    data: DataSpec
    recipe: Recipe
    seed: int

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"a seed is 0 or more, not {self.seed}")

    def to_dict(self) -> dict[str, Any]:
        """Return the definition as plain JSON, all defaults filled in."""
        return {
            "model": self.model.to_dict(),
            "data": self.data.definition(),
            "recipe": self.recipe.model_dump(mode="json"),
            "seed": self.seed,
        }

    @property
    def hash(self) -> str:
        """16 hexadecimal digits of the definition's SHA-256."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_finished(folder: Path) -> bool:
    """Whether a run's folder holds its result, which is written last."""
    return (folder / "result.json").exists()


def check_fits(definition: RunDefinition, data: ImageData) -> Cost:
    """Check that a run can train on its data, before anything is trained; return its cost.

    Raises:
        InputError: if the network cannot take the images, or they do not fill a batch.
    """
    recipe = definition.recipe
    if recipe.drop_last and len(data.train) < recipe.batch_size:
        raise InputError(
            f"{len(data.train)} training images do not fill one batch of {recipe.batch_size}; "
            f"set batch_size={min(len(data.train), 32)} or use more images"
        )
    if not recipe.drop_last and len(data.train) % recipe.batch_size == 1:
        raise InputError(
            f"{len(data.train)} images leave a last batch of one, which BatchNorm cannot train on; "
            "set drop_last=true or another batch_size"
        )
    return cost(definition.model.build_meta(len(data.class_names)), data.image_size)


def execute_run(
    definition: RunDefinition,
    out: Path,
    label: str = "",
    threads: int | None = None,
    on_epoch: OnEpoch | None = None,
) -> Path:
    """Train one run to its end, from its last checkpoint if there is one; return its folder.

    A finished run is left as it is. `threads` are this process's for the run (default: all cores);
    a resumed run keeps those that it began with, so that its bits do not change.

    Raises:
        InputError: if the definition does not fit the data or the machine.
        RunError: if the folder cannot be written or another process is training this run.
    """
    folder = out / definition.hash
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {folder}: {error.strerror}; choose another --out") from error
    try:
        with FileLock(folder / "lock", timeout=0):
            if not is_finished(folder):
                _train_to_the_end(definition, folder, label, threads, on_epoch)
    except Timeout:
        raise BusyError(f"another process is training {folder}; wait for it to end") from None
    except PermissionError as error:
        raise RunError(f"cannot write to {folder}; choose another --out") from error
    return folder


def _train_to_the_end(
    definition: RunDefinition,
    folder: Path,
    label: str,
    threads: int | None,
    on_epoch: OnEpoch | None,
) -> None:
    recipe, seed = definition.recipe, definition.seed
    data = open_data(definition.data)
    counted = check_fits(definition, data)
    begun = read_json(folder / "run.json") if (folder / "run.json").exists() else {}
    threads = int(begun.get("threads") or threads or available_cores())
    torch.set_num_threads(threads)
    setup = choose_setup(recipe, begun.get("precision"), begun.get("memory_format"))
    torch.manual_seed(seed)
    state = prepare(definition.model.build(len(data.class_names)), recipe, setup)
    if (folder / "last.ckpt").exists():
        _resume(state, folder / "last.ckpt", setup)
    if not begun:
        _write_run_file(definition, folder, label, data, counted, setup, threads)
    for record in train(state, data, recipe, setup, seed):
        write_atomically(folder / "last.ckpt", lambda path: torch.save(state.to_dict(), path))
        _write_log(folder, state.log)
        if on_epoch is not None:
            on_epoch(record)
    _write_log(folder, state.log)
    _finish(state, data, recipe, setup, folder)


def _resume(state: State, checkpoint: Path, setup: Setup) -> None:
    try:
        state.load(torch.load(checkpoint, map_location=setup.device, weights_only=True))
    except Exception as error:  # a damaged file fails in many ways
        raise RunError(
            f"cannot read {checkpoint} ({type(error).__name__}); delete it to train this run again"
        ) from error


def _write_run_file(
    definition: RunDefinition,
    folder: Path,
    label: str,
    data: ImageData,
    counted: Cost,
    setup: Setup,
    threads: int,
) -> None:
    write_json(
        folder / "run.json",
        {
            "definition": definition.to_dict(),
            "label": label,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {
                "blocklab": version("blocklab"),
                "torch": torch.__version__,
                "timm": timm.__version__,
                "python": platform.python_version(),
            },
            "machine": {
                "cpu": _processor(),
                "cores": available_cores(),
                "device": str(setup.device)
                if setup.device.type == "cpu"
                else torch.cuda.get_device_name(setup.device),
            },
            "precision": setup.precision,
            "memory_format": setup.layout,
            "threads": threads,
            "num_classes": len(data.class_names),
            "class_names": list(data.class_names),
            "data_address": definition.data.source,  # as given, to open the images again
            "data_mean": list(data.mean),
            "data_std": list(data.std),
            "image_size": data.image_size,
            "train_images": len(data.train),
            "validation_images": len(data.validation),
            "test_images": len(data.test),
            "data_fingerprint": data.fingerprint,
            "cost": {
                "macs": counted.macs,
                "params": counted.params,
                "input_size": data.image_size,
            },
        },
    )


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _write_log(folder: Path, log: list[Record]) -> None:
    lines = (json.dumps(record, allow_nan=False) for record in log)
    write_atomically(folder / "log.jsonl", "".join(f"{line}\n" for line in lines))


def _finish(state: State, data: ImageData, recipe: Recipe, setup: Setup, folder: Path) -> None:
    seconds = sum(record["train_seconds"] for record in state.log)
    speeds = [record["images_per_second"] for record in state.log]
    result: Record = {
        "status": "diverged" if state.diverged else "finished",
        "epochs": state.epochs_done,
        "train_seconds": seconds,
        "images_per_second": float(np.median(speeds)),
        "peak_memory_bytes": _peak_memory(setup),
    }
    if not state.diverged:
        record, per_image = evaluate(state.evaluated, data, "test", recipe, setup)
        result |= record
        result["validation_top1_percent"] = state.log[-1].get("validation_top1_percent")
        if recipe.test_every_epoch:
            best = max(state.log, key=lambda line: line["test_top1_percent"])
            result["best_test_top1_percent"] = best["test_top1_percent"]
            result["best_test_top5_percent"] = best["test_top5_percent"]
            result["best_test_epoch"] = best["epoch"]
        write_atomically(folder / "predictions.npz", lambda path: _save_arrays(path, per_image))
    weights = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in state.evaluated.state_dict().items()
    }
    write_atomically(folder / "model.safetensors", lambda path: save_file(weights, path))
    write_json(folder / "result.json", result)


def _save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _peak_memory(setup: Setup) -> int:
    if setup.device.type == "cuda":
        return torch.cuda.max_memory_allocated(setup.device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
