"""Run folders become one table: what each row costs, reaches, and gains on the baseline."""

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pandas as pd

from blocklab.study.images import ImageInterval, over_images
from blocklab.study.lines import RUN_COLUMNS, SUMMARY_COLUMNS, frame, run_line, summary_line
from blocklab.study.records import CostAt, Reported, RunRecord, read_run
from blocklab.study.statistics import (
    SAME,
    Comparison,
    Difference,
    Planning,
    Summary,
    compare,
    paired_difference,
    plan_seeds,
    summarise,
)

__all__ = ["CostAt", "Reported", "RowResult", "RunRecord", "StudyResults", "read_run"]

COST_TOLERANCE_PERCENT = 3.0  # tools that count differ by less; beyond it, something else differs


@dataclass(frozen=True)
class RowResult:
    """One row of a study: a model, what it costs, and the runs of it that have ended.

    `macs` and `params` are plain counts, `macs` for one image of `input_size` pixels a side.
    `runs` holds one record a seed. `failed` holds a message a run that ended in an error.
    `reported_cost` is our count at the size (and with the classes) that `reported` was counted at.
    `tuned` holds what was chosen for this row on validation data, such as ``{"lr": 0.05}``.
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
    reported_cost: CostAt | None = None
    tuned: dict[str, Any] | None = None
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
    def over_images(self) -> ImageInterval | None:
        """Test top-1 in %, with its interval over other test images; None without predictions."""
        read = [run.per_image for run in self.finished]
        return over_images([one for one in read if one]) if all(read) else None

    @cached_property
    def difference_over_images(self) -> ImageInterval | None:
        """The difference to the baseline, with its interval over other test images."""
        if self.baseline is None:
            return None
        pairs = [(a.per_image, b.per_image) for _, a, b in shared_runs(self, self.baseline)]
        ours, theirs = [a for a, b in pairs if a and b], [b for a, b in pairs if a and b]
        return over_images(ours, theirs) if len(ours) == len(pairs) else None

    @cached_property
    def zeros_percent(self) -> Summary | None:
        """Zeros after the last block, in % of its outputs, over the runs that were diagnosed."""
        shares = [run.zeros_percent for run in self.finished if run.zeros_percent is not None]
        return summarise(shares) if shares else None

    @cached_property
    def cost_gaps_percent(self) -> dict[str, float]:
        """How far our `reported_cost` is from the reported MACs and params, where there are any."""
        if self.reported is None or self.reported_cost is None:
            return {}
        pairs = {
            "macs": (self.reported_cost.macs / 1e9, self.reported.macs_g),
            "params": (self.reported_cost.params / 1e6, self.reported.params_m),
        }
        return {name: 100 * (ours / said - 1) for name, (ours, said) in pairs.items() if said}

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
    claims: tuple[str, ...] = ()

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
    def comparisons(self) -> dict[str, Comparison]:
        """A verdict for each row but the baseline; empty where no baseline is among the rows."""
        compared = {row.name: row for row in self.rows if row.baseline is not None}
        identical = {
            name
            for name, row in compared.items()
            if row.baseline is not None and self.identical_seeds(row, row.baseline)
        }
        return compare({name: row.difference for name, row in compared.items()}, identical)

    @cached_property
    def planning(self) -> Planning | None:
        """What the spread of all rows' differences says about how many seeds are needed."""
        return plan_seeds(self.comparisons.values())

    def identical_seeds(self, one: RowResult, other: RowResult) -> tuple[int, ...]:
        """Return the seeds that two rows share, if from each they gave the same bits, else ().

        The same bits are the same five classes and the same loss on every test image.
        """
        shared = shared_runs(one, other)
        for _, ours, theirs in shared:
            a, b = ours.per_image, theirs.per_image
            if a is None or b is None or a.bits != b.bits:
                return ()
        return tuple(seed for seed, _, _ in shared)

    @cached_property
    def identical(self) -> tuple[tuple[tuple[str, ...], tuple[int, ...]], ...]:
        """Names of rows that compute one function, with the seeds that show it."""
        by_bits: dict[Any, list[RowResult]] = {}
        for row in self.rows:
            for run in row.finished:
                if run.per_image is not None:
                    by_bits.setdefault((run.seed, run.per_image.bits), []).append(row)
        found: dict[tuple[str, ...], tuple[int, ...]] = {}
        for rows in by_bits.values():
            first, *others = rows
            same = [(row, self.identical_seeds(first, row)) for row in others]
            if names := tuple(row.name for row, seeds in same if seeds):
                found[first.name, *names] = min((s for _, s in same if s), key=len)
        return tuple(found.items())

    @cached_property
    def identical_lines(self) -> tuple[str, ...]:
        """`identical` in words, a line for each set of rows."""
        return tuple(
            f"{' and '.join(names)}: {SAME}, same bits on every seed (seeds "
            f"{', '.join(map(str, seeds))}), so nothing ranks one above the other"
            for names, seeds in self.identical
        )

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
        if self.reads_test_set_every_epoch:
            said.append("the test set was read after every epoch: a best epoch by it is optimistic")
        said += self.identical_lines
        for part in ("precision", "threads", "versions", "machine"):
            if len({json.dumps(run.run.get(part), sort_keys=True) for _, run in self.runs}) > 1:
                said.append(f"the runs differ in {part}")
        said += [f"{row.name}: {note}" for row in self.rows for note in row.notes]
        for row in self.rows:
            if row.reported and row.reported.note:
                said.append(f"{row.name}, as reported: {row.reported.note}")
        said += dict.fromkeys(
            f"erratum {text}" if text[:1].isdigit() else f"erratum: {text}"
            for row in self.rows
            if row.reported
            for text in row.reported.errata
        )
        return tuple(said)

    def to_frame(self) -> pd.DataFrame:
        """Return one line a run that has ended; a figure that it lacks is missing, not 0."""
        return frame([run_line(row, run) for row, run in self.runs], RUN_COLUMNS)

    def summary_frame(self) -> pd.DataFrame:
        """Return one line a row; a figure that it lacks is missing, not 0."""
        return frame(self.summary_lines(), SUMMARY_COLUMNS)

    def summary_lines(self) -> list[dict[str, Any]]:
        """Return the lines of `summary_frame` with whole numbers whole and None for missing."""
        return [summary_line(row, self.comparisons.get(row.name)) for row in self.rows]


def shared_runs(one: RowResult, other: RowResult) -> list[tuple[int, RunRecord, RunRecord]]:
    """Return seed and both runs for each seed that both rows have finished, in the seeds' order."""
    theirs = {run.seed: run for run in other.finished}
    pairs = [(run.seed, run, theirs[run.seed]) for run in one.finished if run.seed in theirs]
    return sorted(pairs, key=lambda pair: pair[0])


def _seeds(runs: tuple[RunRecord, ...]) -> str:
    numbers = ", ".join(str(run.seed) for run in runs)
    return f"seed{'s' if len(runs) > 1 else ''} {numbers}"
