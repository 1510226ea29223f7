"""A run that has ended, read from its folder."""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from blocklab.errors import RunError
from blocklab.files import read_json
from blocklab.measure.activations import DIAGNOSIS_FILE
from blocklab.results.image_intervals import PerImage, read_per_image


@dataclass(frozen=True)
class RunRecord:
    """A run that has ended: its three files, read."""

    hash: str
    seed: int
    folder: Path
    run: dict[str, Any]  # run.json
    log: list[dict[str, Any]]  # log.jsonl, one an epoch
    result: dict[str, Any]  # result.json

    @property
    def diverged(self) -> bool:
        """Whether its loss stopped being a number: to be shown, never averaged."""
        return self.result["status"] == "diverged"

    @property
    def epochs(self) -> int | None:
        """How many epochs it trained."""
        return self.result.get("epochs")

    def figure(self, name: str) -> float | None:
        """Return a number of result.json, or None where it has none."""
        return _number(self.result.get(name))

    @cached_property
    def per_image(self) -> PerImage | None:
        """Its result on each test image, read when first asked for; None where it kept none."""
        return None if self.diverged else read_per_image(self.folder)

    @cached_property
    def zeros_percent(self) -> float | None:
        """Zeros after the last block, in % of its outputs; None if it was not diagnosed.

        See `blocklab.measure.activations`.
        """
        path = self.folder / DIAGNOSIS_FILE
        if not path.exists():
            return None
        last = _read_object(path).get("last_block")
        return _number(last.get("zero_percent")) if isinstance(last, dict) else None


def read_run(folder: Path) -> RunRecord | None:
    """Read a run's folder; None while it has no result.json, which is written last.

    Raises:
        RunError: if one of its files is damaged; the message names the file.
    """
    if not (folder / "result.json").exists():
        return None
    result, run = _read_object(folder / "result.json"), _read_object(folder / "run.json")
    if result.get("status") not in ("finished", "diverged"):
        raise _damaged(folder / "result.json", "its status is neither finished nor diverged")
    if result["status"] == "finished" and _number(result.get("test_top1_percent")) is None:
        raise _damaged(folder / "result.json", "test_top1_percent is not a number")
    definition = run.get("definition")
    seed = definition.get("seed") if isinstance(definition, dict) else None
    if not isinstance(seed, int):
        raise _damaged(folder / "run.json", "definition.seed is not a whole number")
    return RunRecord(folder.name, seed, folder, run, _read_log(folder / "log.jsonl"), result)


def _read_object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise _damaged(path, "it holds no JSON object")
    return value


def _read_log(path: Path) -> list[dict[str, Any]]:
    try:
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not all(isinstance(line, dict) and isinstance(line.get("epoch"), int) for line in lines):
        raise _damaged(path, "a line has no epoch")
    return lines


def _damaged(path: Path, what: str) -> RunError:
    return RunError(f"cannot read {path}: {what}; delete the folder {path.parent} and run again")


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
