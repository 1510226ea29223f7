"""Run folders become one table: what each row costs, reaches, and gains on the baseline."""

import json
import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from blocklab.errors import RunError
from blocklab.files import read_json
from blocklab.study.statistics import Difference, Summary, paired_difference, summarise

RESULT_FIGURES = (
    "test_top1_percent",
    "test_top5_percent",
    "test_loss",
    "best_test_top1_percent",
    "best_test_top5_percent",
    "best_test_epoch",
    "validation_top1_percent",
    "train_seconds",
    "images_per_second",
    "peak_memory_bytes",
)


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


@dataclass(frozen=True)
class Reported:
    """What a publication printed for a row: G, M, %, %, and what is known about the figures."""

    macs_g: float | None = None
    params_m: float | None = None
    top1: float | None = None
    top5: float | None = None
    note: str | None = None


@dataclass(frozen=True)
class RowResult:
    """One row of a study: a model, what it costs, and the runs of it that have ended.

    `macs` and `params` are plain counts, `macs` for one image of `input_size` pixels a side.
    `runs` holds one record a seed. `failed` holds a message a run that ended in an error.
    `baseline` is filled in by `StudyResults`.
    """

    name: str
    model: dict[str, Any]
    macs: int
    params: int
    input_size: int
    runs: tuple[RunRecord, ...]
    planned_seeds: tuple[int, ...]
    failed: tuple[str, ...] = ()
    reported: Reported | None = None
    baseline: "RowResult | None" = field(default=None, repr=False)

    @cached_property
    def finished(self) -> tuple[RunRecord, ...]:
        """The runs that count: ended, and not diverged."""
        return tuple(run for run in self.runs if not run.diverged)

    @cached_property
    def diverged(self) -> tuple[RunRecord, ...]:
        """The runs whose loss stopped being a number."""
        return tuple(run for run in self.runs if run.diverged)

    @cached_property
    def missing_seeds(self) -> tuple[int, ...]:
        """Planned seeds that have no result, failed ones included."""
        ended = {run.seed for run in self.runs}
        return tuple(seed for seed in self.planned_seeds if seed not in ended)

    def by_seed(self, name: str) -> dict[int, float]:
        """Return a number of result.json for each finished seed that has it."""
        found = {run.seed: run.figure(name) for run in self.finished}
        return {seed: value for seed, value in found.items() if value is not None}

    def over_seeds(self, name: str) -> Summary | None:
        """Summarise a number of result.json over finished seeds; None where none has it."""
        values = self.by_seed(name)
        return summarise(tuple(values.values())) if values else None

    @cached_property
    def top1(self) -> Summary | None:
        """Test top-1 in %, after the last epoch."""
        return self.over_seeds("test_top1_percent")

    @cached_property
    def top5(self) -> Summary | None:
        """Test top-5 in %, after the last epoch."""
        return self.over_seeds("test_top5_percent")

    @cached_property
    def best_top1(self) -> Summary | None:
        """Test top-1 in % at the epoch that was best on the test set: optimistic."""
        return self.over_seeds("best_test_top1_percent")

    @cached_property
    def best_top5(self) -> Summary | None:
        """Test top-5 in % at that same epoch."""
        return self.over_seeds("best_test_top5_percent")

    @cached_property
    def difference(self) -> Difference | None:
        """Test top-1 minus the baseline's, in percentage points, paired by seed."""
        if self.baseline is None:
            return None
        return paired_difference(
            self.by_seed("test_top1_percent"), self.baseline.by_seed("test_top1_percent")
        )

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know before comparing this row with another."""
        said = []
        if len(self.finished) < len(self.planned_seeds):
            said.append(f"{len(self.finished)} of {len(self.planned_seeds)} seeds finished")
        if self.diverged:
            said.append(f"diverged, so not averaged: {_seeds(self.diverged)}")
        epochs = self._epochs()
        if len(epochs) > 1:
            said.append(f"its runs differ in epochs: {' and '.join(map(str, epochs))}")
        elif self.baseline and epochs and (others := self.baseline._epochs()) not in ([], epochs):
            said.append(f"{epochs[0]} epochs, the baseline {' and '.join(map(str, others))}")
        if self.difference and self.difference.n < len(self.finished):
            said.append(f"the baseline has {self.difference.n} of its {len(self.finished)} seeds")
        return tuple(said)

    def _epochs(self) -> list[int]:
        return sorted({run.epochs for run in self.finished if run.epochs is not None})


@dataclass(frozen=True)
class StudyResults:
    """All that a page or a table says of a study. Rows may lack runs, and may have none."""

    title: str
    description: str
    data: dict[str, Any]
    recipe: dict[str, Any]
    recipe_name: str
    seeds: tuple[int, ...]
    varies: tuple[str, ...]
    baseline: str | None
    rows: tuple[RowResult, ...]
    notes: tuple[str, ...] = ()
    command: str | None = None

    def __post_init__(self) -> None:
        """Tell each row which one it is compared with."""
        baseline = next((row for row in self.rows if row.name == self.baseline), None)
        object.__setattr__(
            self,
            "rows",
            tuple(replace(r, baseline=None if r is baseline else baseline) for r in self.rows),
        )

    @cached_property
    def runs(self) -> tuple[tuple[RowResult, RunRecord], ...]:
        """Every run that has ended, diverged ones included, with its row."""
        return tuple((row, run) for row in self.rows for run in row.runs)

    @cached_property
    def reads_test_set_every_epoch(self) -> bool:
        """Whether any run looked at the test set before its last epoch."""
        return any("test_top1_percent" in line for _, run in self.runs for line in run.log)

    @cached_property
    def remarks(self) -> tuple[str, ...]:
        """The study's notes, then each row's, then what is known about reported figures."""
        said = list(self.notes)
        has_baseline = any(row.name == self.baseline and row.top1 for row in self.rows)
        if self.baseline and not has_baseline and any(row.top1 for row in self.rows):
            said.append(f"no differences: the baseline {self.baseline} has no finished run")
        for part in ("precision", "threads", "versions", "machine"):
            if len({json.dumps(run.run.get(part), sort_keys=True) for _, run in self.runs}) > 1:
                said.append(f"the runs differ in {part}")
        said += [f"{row.name}: {note}" for row in self.rows for note in row.notes]
        for row in self.rows:
            if row.reported and row.reported.note:
                said.append(f"{row.name}, as reported: {row.reported.note}")
        return tuple(said)

    def to_frame(self) -> pd.DataFrame:
        """Return one line a run that has ended; a figure that it lacks is missing, not 0."""
        return _frame([run_line(row, run) for row, run in self.runs], RUN_COLUMNS)

    def summary_frame(self) -> pd.DataFrame:
        """Return one line a row; a figure that it lacks is missing, not 0."""
        return _frame(self.summary_lines(), SUMMARY_COLUMNS)

    def summary_lines(self) -> list[dict[str, Any]]:
        """Return the lines of `summary_frame` with whole numbers whole and None for missing."""
        return [_summary_line(row) for row in self.rows]


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


def _seeds(runs: tuple[RunRecord, ...]) -> str:
    numbers = ", ".join(str(run.seed) for run in runs)
    return f"seed{'s' if len(runs) > 1 else ''} {numbers}"


RUN_COLUMNS = (
    *("row", "seed", "status", "epochs", *RESULT_FIGURES, "macs", "params", "cost_input_size"),
    *("precision", "memory_format", "threads", "device", "run"),
)
SUMMARY_COLUMNS = (
    *("row", "macs", "params", "cost_input_size", "seeds_planned", "seeds_finished"),
    *(
        f"{figure}_percent_{part}"
        for figure in ("test_top1", "test_top5", "best_test_top1", "best_test_top5")
        for part in ("mean", "sd", "low", "high")
    ),
    *(f"difference_top1_points_{part}" for part in ("mean", "low", "high")),
    *("difference_seeds", "difference_p_uncorrected"),
    *("train_seconds_mean", "images_per_second_mean"),
    *("reported_macs_g", "reported_params_m", "reported_top1_percent", "reported_top5_percent"),
    *("reported_note", "notes"),
)

TEXT_COLUMNS = (
    *("row", "status", "precision", "memory_format", "device", "run", "reported_note", "notes"),
)


def _frame(lines: list[dict[str, Any]], names: tuple[str, ...]) -> pd.DataFrame:
    frame = pd.DataFrame(lines, columns=pd.Index(names))
    for name in names:
        if name not in TEXT_COLUMNS:  # a column without any figure is still one of numbers
            frame[name] = pd.to_numeric(frame[name])
    return frame


def run_line(row: RowResult, run: RunRecord) -> dict[str, Any]:
    """Return a run's line of `StudyResults.to_frame`, with None for what it lacks."""
    return {
        "row": row.name,
        "seed": run.seed,
        "status": run.result["status"],
        "epochs": run.epochs,
        **{name: run.result.get(name) for name in RESULT_FIGURES},
        "macs": row.macs,
        "params": row.params,
        "cost_input_size": row.input_size,
        **{name: run.run.get(name) for name in ("precision", "memory_format", "threads")},
        "device": (run.run.get("machine") or {}).get("device"),
        "run": run.hash,
    }


def _summary_line(row: RowResult) -> dict[str, Any]:
    line: dict[str, Any] = dict.fromkeys(SUMMARY_COLUMNS)
    line |= {"row": row.name, "macs": row.macs, "params": row.params}
    line |= {"cost_input_size": row.input_size, "notes": "; ".join(row.notes)}
    line |= {"seeds_planned": len(row.planned_seeds), "seeds_finished": len(row.finished)}
    for figure in ("test_top1", "test_top5", "best_test_top1", "best_test_top5"):
        if summary := row.over_seeds(f"{figure}_percent"):
            for part in ("mean", "sd", "low", "high"):
                line[f"{figure}_percent_{part}"] = getattr(summary, part)
    line["difference_seeds"] = row.difference.n if row.difference else 0
    if row.difference:
        for part in ("mean", "low", "high"):
            line[f"difference_top1_points_{part}"] = getattr(row.difference, part)
        line["difference_p_uncorrected"] = row.difference.p
    for figure in ("train_seconds", "images_per_second"):
        if summary := row.over_seeds(figure):
            line[f"{figure}_mean"] = summary.mean
    if row.reported:
        line |= {"reported_macs_g": row.reported.macs_g, "reported_note": row.reported.note}
        line |= {"reported_params_m": row.reported.params_m}
        line |= {"reported_top1_percent": row.reported.top1}
        line |= {"reported_top5_percent": row.reported.top5}
    return line
