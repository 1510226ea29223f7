"""Training one finished run again and comparing every bit with what its folder holds."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from blocklab.errors import InputError
from blocklab.measure.device import processor
from blocklab.training.provenance import UNRECORDED, earlier_parts, versions
from blocklab.training.run import OnEpoch, execute_run
from blocklab.training.run_definition import RunDefinition
from blocklab.training.run_files import FINISHED, WEIGHTS
from blocklab.training.run_folder import RunFolder
from blocklab.training.run_reader import RunReader

_TIMINGS = ("_seconds", "_per_second", "_overhead_percent", "_bytes")  # how these names end


@dataclass(frozen=True)
class Verification:
    """Whether a run trained again gave the same bits; if not, where they first differ."""

    run: str
    same: bool
    compared: tuple[str, ...]
    difference: str | None
    threads: int
    precision: str
    memory_format: str
    changed: tuple[str, ...]  # what is no longer as it was: versions, the code, the processor
    earlier: tuple[str, ...] = ()  # which epochs of the run were trained otherwise than its last

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return asdict(self)

    def __str__(self) -> str:
        what = ", ".join(self.compared)
        plural = "s" * (self.threads > 1)
        with_ = f"{self.threads} thread{plural}, {self.precision}, {self.memory_format}"
        line = f"{self.run}: the same to the bit ({what}; {with_})"
        if not self.same:
            line = f"{self.run}: differs: {self.difference} ({with_})"
        line += f"; changed since: {', '.join(self.changed)}" if self.changed else ""
        return "; ".join([line, *self.earlier])


def verify_run(
    folder: Path, temporary: Path | None = None, on_epoch: OnEpoch | None = None
) -> Verification:
    """Train a finished run anew in a temporary folder, as it was trained, and compare.

    Threads, precision and layout are those that the run recorded.

    Raises:
        InputError: if the folder is no run's, has no result, its data or blocks are not here, or
            its images have changed.
        RunError: if its files are damaged, or training fails.
    """
    before = RunReader(folder)
    run = before.require_run()
    definition = RunDefinition.from_dict(
        run["definition"], run["data_address"], (run.get("pretrained") or {}).get("weights")
    )
    if definition.to_dict()["data"] != run["definition"]["data"]:
        raise InputError(
            f"the images in {run['data_address']} are not those that {folder} was trained on; put "
            "them back as they were, or run its study again on what is there"
        )
    with tempfile.TemporaryDirectory(dir=temporary, prefix="blocklab-verify-") as name:
        again = RunFolder(Path(name) / definition.hash)
        with again.locked():
            again.write_run(run)  # which decides threads, precision and layout
        execute_run(definition, Path(name), run["label"], on_epoch=on_epoch)
        difference, compared = compare_runs(before, again.reader)
    then = {**run["versions"], "cpu": run["machine"]["cpu"]}
    now = {**versions(), "cpu": processor()}
    changed = [
        f"{what} {then.get(what, UNRECORDED)} -> {now[what]}"
        for what in now
        if now[what] != then.get(what)
    ]
    return Verification(
        run=str(folder),
        same=difference is None,
        compared=compared,
        difference=difference,
        threads=run["threads"],
        precision=run["precision"],
        memory_format=run["memory_format"],
        changed=tuple(changed),
        earlier=tuple(earlier_parts(run)),
    )


def unequal_predictions(
    before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]
) -> str | None:
    """Return where arrays by image first differ; NaN, as the loss of one may be, is as NaN."""
    for name, now in after.items():
        then = before.get(name)
        if then is None or then.shape != now.shape:
            return f"the shape of {name}"
        if np.any(unequal := (then != now) & ~((then != then) & (now != now))):
            return f"{name} of test image {int(np.nonzero(unequal)[0][0])}"
    return None


def compare_runs(before: RunReader, after: RunReader) -> tuple[str | None, tuple[str, ...]]:
    """Return where two finished runs first differ (None: nowhere), and what was compared."""
    compared = ["log", "result"]
    for old, new in zip(before.log, after.log, strict=False):
        if found := _first_difference(untimed(old), untimed(new)):
            return f"epoch {old['epoch']}, {found}", tuple(compared)
    if len(before.log) != len(after.log):
        return f"{len(before.log)} epochs before, {len(after.log)} now", tuple(compared)
    results = [untimed(run.require_result()) for run in (before, after)]
    for result in results:
        del result["files"]
    if found := _first_difference(*results):
        return f"result, {found}", tuple(compared)
    if results[0]["status"] != FINISHED:
        return None, tuple(compared)
    compared.append("predictions")
    if found := unequal_predictions(before.arrays(), after.arrays()):
        return f"predictions, {found}", tuple(compared)
    compared.append("weights")
    if WEIGHTS in before.left_out:  # a record still says which bits they had
        old, new = (run.require_result()["files"][WEIGHTS]["sha256"] for run in (before, after))
        return (None if old == new else f"weights, SHA-256 {old} before, {new} now"), tuple(
            compared
        )
    weights = before.weights()
    for name, tensor in after.weights().items():
        if name not in weights or not torch.equal(weights[name], tensor):
            return f"weights, {name}", tuple(compared)
    return None, tuple(compared)


def untimed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what differs between two runs of the same bits: times and memory."""
    return {name: value for name, value in record.items() if not name.endswith(_TIMINGS)}


def _first_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    for name in (*old, *(name for name in new if name not in old)):
        if old.get(name) != new.get(name):
            return f"{name}: {old.get(name)} before, {new.get(name)} now"
    return None
