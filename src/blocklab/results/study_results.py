"""Run folders become one table: what each row costs, reaches, and gains on the baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pandas as pd

from blocklab.results.advice import more_seeds
from blocklab.results.best_row import BestRow, best_row, expected_of_rows
from blocklab.results.design_file import DesignJson
from blocklab.results.design_notes import design_notes, dropped_claims, late_claims
from blocklab.results.dominance import dominated_rows, verdict_texts
from blocklab.results.dropped_rows import counted_figures
from blocklab.results.ended_run import EndedRun
from blocklab.results.judgement import UNDECIDED, Judgement
from blocklab.results.judgements import judge_claims, judge_together
from blocklab.results.lines import (
    RUN_COLUMNS,
    SUMMARY_COLUMNS,
    frame,
    run_line,
    summary_line,
    told_of,
)
from blocklab.results.notebook_table import rows_html
from blocklab.results.row_result import RowResult, identical_seeds
from blocklab.results.same_function import Identical, identical_rows, twins
from blocklab.results.tested_claims import TestedRows
from blocklab.results.unlike_runs import unlike_runs
from blocklab.results.waves import (
    WaveTaken,
    family_of,
    how_judged,
    next_looks,
    smallest_level,
    take_waves,
)
from blocklab.statistics.equivalence import with_margin
from blocklab.statistics.family import SAME, Comparison, Family, compare_rows
from blocklab.statistics.planning import Planning, plan_seeds
from blocklab.statistics.shrinkage import Expected
from blocklab.statistics.summary import ALPHA
from blocklab.study.metric import TOP1, Metric
from blocklab.study.schema import in_list

AT_ONCE = "all rows at once"  # what intervals hold for


def _held_to(one: Judgement, level: float) -> Judgement:
    """Hold a claim to a level below 5 %, and say so where it is that which leaves it undecided."""
    if one.p_holm is None or one.p_holm < level:
        return replace(one, level=level)
    why = "no look has been taken"
    if level:
        why = f"p is not below {100 * level:.2f} %, the smallest level of the looks"
    said = f"{one.numbers}; {why}" if one.p_holm < ALPHA else one.numbers
    return replace(one, level=level, word=UNDECIDED, numbers=said)


@dataclass(frozen=True)
class StudyResults:
    """All that a page or a table says of a study. Rows may lack runs, and may have none.

    `metric` is what rows are compared by. `origin` says where runs that were trained elsewhere are
    from: such a study has no data, no recipe and no models of its own.
    """

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
    claim_notes: Mapping[str, str] = field(default_factory=dict)  # claim -> what it stands for
    paired: bool = False  # whether what a seed does to every row is taken out of differences
    design: DesignJson | None = None  # what was stated when, and its looks; None of old folders
    metric: Metric = TOP1
    origin: str | None = None
    axis: str = "epoch"  # what each line of a run's log is one of
    margin: float | None = None  # the difference that begins to matter, in the metric's units
    dropped_rows: tuple[RowResult, ...] = ()  # not in its file any more; their runs still count
    family: Family = field(init=False)

    def __post_init__(self) -> None:
        """Compare the rows, and tell each by what, with which one, and how it differs."""
        rows = [replace(row, metric=self.metric, baseline=None) for row in self.rows]
        baseline = next((row for row in rows if row.name == self.baseline), None)
        family = self._compared(baseline) if baseline else Family("none")
        of_waves = {
            row: _tested(one.family or family) for one in self.waves for row in one.wave.rows
        }
        told = []
        for row in rows:
            compared = family.comparisons.get(row.name)
            gap = compared.difference if compared else None
            other = None if row is baseline else baseline
            at_once = of_waves.get(row.name, _tested(family))
            looked = row.name in of_waves
            told.append(
                replace(row, baseline=other, difference=gap, at_once=at_once, by_looks=looked)
            )
        object.__setattr__(self, "family", family)
        object.__setattr__(self, "rows", tuple(told))

    def _compared(self, baseline: RowResult) -> Family:
        if self.design and self.design.until_decided:
            return family_of(self.design, self._figures, self.waves)
        dropped = [row for row in self.design.rows.values() if row.dropped] if self.design else []
        counted = self._counted
        figures = self._in_order({**self._figures, **counted})
        how = {**self._compared_by, "more_rows": len(dropped) - len(counted)}
        how["twins"] = {a: b for a, b in how["twins"].items() if {a, b} <= figures.keys()}
        return self._with_margin(compare_rows(figures, baseline.name, **how).of_rows(self._figures))

    def _with_margin(self, family: Family) -> Family:
        if not self.margin:
            return family
        higher = self.metric.higher_is_better
        return with_margin(family, self.margin, higher_is_better=higher)

    @cached_property
    def _figures(self) -> Mapping[str, Mapping[int, float]]:
        return {row.name: row.by_seed(self.metric.figure) for row in self.rows}

    @cached_property
    def _dropped_figures(self) -> Mapping[str, Mapping[int, float]]:
        return {row.name: row.by_seed(self.metric.figure) for row in self.dropped_rows}

    @cached_property
    def _counted(self) -> Mapping[str, Mapping[int, float]]:
        return counted_figures(self._figures, self._dropped_figures, self.paired)

    def _in_order(self, rows: Mapping[str, Any]) -> dict[str, Any]:
        """Return rows as they stood before some were dropped: made-up studies hang on the order."""
        first = self.design.rows if self.design and self._counted else ()
        return {row: rows[row] for row in dict.fromkeys([*first, *rows]) if row in rows}

    @cached_property
    def _compared_by(self) -> dict[str, Any]:
        rows = (*self.rows, *self.dropped_rows)
        baseline = next(row for row in self.rows if row.name == self.baseline)
        others = [row for row in rows if row is not baseline]
        return {
            "identical": {row.name for row in others if identical_seeds(row, baseline)},
            "twins": twins(rows, self.baseline),
            "at_chance": {row.name for row in rows if row.at_chance},
            "paired": self.paired,
            "bounds": self.metric.difference_bounds,
            "higher_is_better": self.metric.higher_is_better,
        }

    @cached_property
    def waves(self) -> tuple[WaveTaken, ...]:
        """Its rows as they are looked at together, and what each look on record says.

        Empty of a study with a fixed number of seeds.
        """
        if not self._has_looks:
            return ()
        assert self.design is not None
        return take_waves(self.design, *self._looked_at, **self._looked_by)

    @property
    def held_for(self) -> str:
        """For which rows at once intervals hold, in words: of several waves, each for its own."""
        several = len(self.waves) > 1  # also one of which the file has no row any more
        return "all rows that were looked at together" if several else AT_ONCE

    def next_looks(self) -> tuple[WaveTaken, ...]:
        """Take the looks after those on record, by all runs that have finished."""
        if not self._has_looks:
            return ()
        assert self.design is not None
        return next_looks(self.design, *self._looked_at, **self._looked_by)

    @property
    def _has_looks(self) -> bool:
        looks = self.design is not None and self.design.until_decided is not None
        return looks and self.baseline in self._figures

    @property
    def _looked_at(self) -> tuple[Mapping[str, Mapping[int, float]], list[str]]:
        return {**self._dropped_figures, **self._figures}, list(self._figures)

    @property
    def _looked_by(self) -> dict[str, Any]:
        return {**self._compared_by, "reworded": self._with_margin}

    @cached_property
    def level(self) -> float:
        """Below which p claims, pairs of rows and what holds over data sets are decided.

        Of a study with looks it is the smallest of theirs, and 0 before the first.
        """
        if self.design is None or self.design.until_decided is None:
            return ALPHA
        return smallest_level(self.design, self.waves)

    @cached_property
    def how_judged(self) -> tuple[str, ...]:
        """How the verdicts were reached, in sentences."""
        return how_judged(self.waves) or self.family.sentences

    @cached_property
    def runs(self) -> tuple[tuple[RowResult, EndedRun], ...]:
        """Every run that has ended, diverged ones included, with its row."""
        return tuple((row, run) for row in self.rows for run in row.runs)

    @cached_property
    def shows_top5(self) -> bool:
        """Whether top-5 says anything: of five classes or fewer it is always 100 %."""
        if self.metric != TOP1:
            return False
        return not self.runs or any(len(run.run.get("class_names", ())) > 5 for _, run in self.runs)

    @property
    def comparisons(self) -> Mapping[str, Comparison]:
        """A verdict for each row but the baseline; empty where no baseline is among the rows."""
        return self.family.comparisons

    @property
    def dropped_claims(self) -> tuple[str, ...]:
        """Claims that were stated and are not any more: they count among those that are tested."""
        return dropped_claims(self.design, self.claims)

    @cached_property
    def judgements(self) -> tuple[Judgement, ...]:
        """What its runs say of each of its claims."""
        judged = (
            judge_claims(self.claims, self.tested, self.baseline, self.dropped_claims)
            if self.claims
            else ()
        )
        if self.level != ALPHA:
            judged = tuple(_held_to(one, self.level) for one in judged)
        late = late_claims(self.design)
        return tuple(
            replace(one, numbers=f"{one.numbers}; stated after the runs")
            if one.claim in late
            else one
            for one in judged
        )

    @cached_property
    def tested(self) -> TestedRows:
        """Its rows as claims are tested on them: those of one function counted once."""
        rows = {row.name: row for row in self.rows}
        dropped = {row.name: row for row in self.dropped_rows if row.name in self._counted}
        alike = identical_rows([*rows.values(), *dropped.values()])
        order = [*self._in_order({**rows, **dropped})]
        return TestedRows(
            rows, self.paired, [names for names, _ in alike], self.metric, dropped, order
        )

    @cached_property
    def scatters(self) -> bool:
        """Whether seeds of some rows scatter more than those of others."""
        return not self.tested.pool(self.metric.name).even

    @cached_property
    def verdicts(self) -> Mapping[str, str]:
        """Each row's verdict as tables have it: ``as good at 0.6 of the MACs``."""
        return verdict_texts(self.rows, self.comparisons)

    @cached_property
    def dominated(self) -> Mapping[str, str]:
        """The rows that another is shown to dominate by accuracy and cost, each with the reason."""
        return dominated_rows(self.rows, self.comparisons, self.tested, self.margin, self.level)

    @cached_property
    def expected(self) -> Mapping[str, Expected]:
        """What is expected of each row when it is trained again; of none without spread."""
        return expected_of_rows(self.rows, self.baseline, self.tested)

    @cached_property
    def best(self) -> BestRow | None:
        """The row of the best mean, and what to make of it."""
        return best_row(self.rows, self.expected)

    @cached_property
    def troubles(self) -> tuple[tuple[str, str], ...]:
        """What went wrong, or is missing, each with the name of its row."""
        return tuple((row.name, line) for row in self.rows for line in row.troubles)

    @cached_property
    def design_notes(self) -> tuple[str, ...]:
        """When it was looked at, and what was stated, added or dropped after runs had finished."""
        if self.design is None:
            return ()
        return design_notes(self.design, self.waves, self.claims)

    @cached_property
    def planning(self) -> Planning | None:
        """What the spread of the rows says about how many seeds are needed."""
        return plan_seeds(self.family, self.metric.gain)

    @cached_property
    def advice(self) -> tuple[str, ...]:
        """Which rows want more seeds, and how many, a line each."""
        return more_seeds(
            *(self.rows, self.comparisons, self.planning, self.metric, self.family),
            self._has_looks,
        )

    @cached_property
    def identical(self) -> Identical:
        """Names of rows that compute one function, with the seeds that show it."""
        return identical_rows(self.rows)

    @cached_property
    def identical_lines(self) -> tuple[str, ...]:
        """`identical` in words, a line for each set of rows."""
        return tuple(
            f"{' and '.join(map(in_list, names))}: {SAME}, same bits on every seed (seeds "
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
        remarks = [*self.notes, *self.design_notes]
        has_baseline = any(row.name == self.baseline and row.score for row in self.rows)
        if self.baseline and not has_baseline and any(row.score for row in self.rows):
            remarks.append(f"no differences: the baseline {self.baseline} has no finished run")
        if self.reads_test_set_every_epoch:
            remarks.append(
                "the test set was read after every epoch: a best epoch by it is optimistic"
            )
        remarks += self.identical_lines
        remarks += unlike_runs([run for _, run in self.runs])
        for first, last, images in sorted({r.zeros_over for _, r in self.runs if r.zeros_over}):
            remarks.append(f"zeros: over test batches {first} to {last} ({images:,} images)")
        remarks += [f"{row.name}: {note}" for row in self.rows for note in row.notes]
        for row in self.rows:
            if row.reported and row.reported.note:
                remarks.append(f"{row.name}, as reported: {row.reported.note}")
        remarks += dict.fromkeys(
            f"erratum {text}" if text[:1].isdigit() else f"erratum: {text}"
            for row in self.rows
            if row.reported
            for text in (*row.reported.errata, *row.reported.see)
            if f"Erratum {text}" not in self.notes
        )
        return tuple(remarks)

    def __repr__(self) -> str:
        """Name them; the whole would fill a screen."""
        runs = sum(len(row.runs) for row in self.rows)
        return f"<results of {runs} runs in {len(self.rows)} rows: {self.title}>"

    def _repr_html_(self) -> str:
        """Show the rows, in a notebook."""
        words = {name: one.word for name, one in self.comparisons.items()}
        return rows_html(self.title, self.rows, self.baseline, words, self.troubles, self.metric)

    def to_frame(self) -> pd.DataFrame:
        """Return one line a run that has ended; a figure that it lacks is missing, not 0."""
        return frame(self.run_lines, RUN_COLUMNS)

    def summary_frame(self) -> pd.DataFrame:
        """Return one line a row; a figure that it lacks is missing, not 0."""
        return frame(self.summary_lines, SUMMARY_COLUMNS)

    @cached_property
    def run_lines(self) -> list[dict[str, Any]]:
        """The lines of `to_frame` with whole numbers whole and None for missing."""
        return told_of(self.metric, [run_line(row, run) for row, run in self.runs])

    @cached_property
    def summary_lines(self) -> list[dict[str, Any]]:
        """The lines of `summary_frame` with whole numbers whole and None for missing."""
        lines = [
            summary_line(
                row,
                self.comparisons.get(row.name),
                self.dominated.get(row.name),
                self.expected.get(row.name),
            )
            for row in self.rows
        ]
        return told_of(self.metric, lines, [row.costs for row in self.rows])


def _tested(family: Family) -> int:
    """Return how many rows its intervals are meant to hold for."""
    return max(1, family.rows, family.open_rows)


def judged_together(studies: Sequence[StudyResults]) -> list[tuple[Judgement, ...]]:
    """Return several studies' claims, corrected for the number of all, dropped ones included."""
    dropped = [claim for one in studies for claim in one.dropped_claims]
    return judge_together([one.judgements for one in studies], dropped)
