"""How many seeds a study needs, before they are trained: from its finished runs, or from an SD.

The spread of a few runs is itself known poorly: of df degrees of freedom, 95 % of pilots hold the
true SD between :math:`s\\sqrt{df / \\chi^2_{0.975}}` and :math:`s\\sqrt{df / \\chi^2_{0.025}}`, and
each end asks for its own number of seeds. Finished runs are judged as the page judges them, so that
both ask for the same seeds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scipy import stats

from blocklab.errors import InputError
from blocklab.execution.dry_run import plan_lines
from blocklab.execution.seed_plan import SeedPlan, verdict
from blocklab.execution.study_folder import study_folder
from blocklab.measure.cost import cost
from blocklab.results.row_result import RowResult
from blocklab.results.study_file import STUDY
from blocklab.results.study_folder import read_study_folder
from blocklab.results.study_results import StudyResults
from blocklab.statistics.judging import FEWEST_SEEDS
from blocklab.statistics.planning import power, seeds_needed
from blocklab.statistics.sequential import Looks
from blocklab.statistics.sequential_planning import SequentialCost, sequential_cost
from blocklab.statistics.spread import Layout, as_array, pooled_variance
from blocklab.statistics.summary import ALPHA, all_equal
from blocklab.study.collection import StudyCollection
from blocklab.study.study import Study

USUAL_LOOKS = (3, 5, 8, 12)
SHOWN = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 30, 50, 100)  # numbers of seeds whose power is listed


@dataclass(frozen=True)
class Pilot:
    """A study that is to be trained with some number of seeds, and what is known of its spread.

    Attributes:
        rows: how many are compared with the baseline.
        sd: of one run.
        df: of `sd`; None where it was given.
        seconds: of one run of every row together; None where it cannot be said.
        unit: of the figure that rows are compared by.
        lines: what the figures rest on.
        looks: of a study that has some; else the usual ones are taken.
        paired: whether seeds are blocks.
        stretch: of the finished runs' critical value; see `Family`.
    """

    rows: int
    sd: float
    df: int | None
    seconds: float | None
    unit: str
    lines: tuple[str, ...]
    looks: Looks | None = None
    paired: bool = False
    stretch: float = 1.0

    def plan(self, gain: float, wanted: float = 0.8) -> SeedPlan:
        """Return how many seeds show `gain` with the `wanted` power.

        Raises:
            InputError: if the gain or the power is none.
        """
        if not 0 < gain < math.inf:
            raise InputError(f"--gain is a number above 0, not {gain:g}")
        if not ALPHA < wanted < 1:
            raise InputError(f"--power is between {ALPHA:g} and 1, such as 0.8, not {wanted:g}")
        low, high = self._ends()
        middle, few, many = (
            None
            if sd is None
            else seeds_needed(sd, gain, wanted, self.rows, stretch=self.stretch, paired=self.paired)
            for sd in (self.sd, low, high)
        )
        listed = {n for n in SHOWN if middle is None or n <= 2 * middle} | {2, 3}
        listed |= {n for n in (few, middle, many) if n is not None}
        found = SeedPlan(
            gain=gain,
            power=wanted,
            unit=self.unit,
            rows=self.rows,
            sd=self.sd,
            sd_low=low,
            sd_high=high,
            stretch=self.stretch,
            seeds=middle,
            seeds_low=few,
            seeds_high=many,
            hours_a_seed=None if self.seconds is None else self.seconds / 3600,
            powers={
                n: power(self.sd, gain, n, self.rows, stretch=self.stretch, paired=self.paired)
                for n in sorted(listed)
            },
            sequential=self._with_looks(gain),
            lines=(),
        )
        return replace(found, lines=(*verdict(found, self.df), *self.lines))

    def _with_looks(self, gain: float) -> SequentialCost:
        usual = Looks(USUAL_LOOKS, baseline_times=1 if self.paired else 2)
        looks = replace(self.looks or usual, gain=gain)
        return sequential_cost(self.sd, self.rows, looks, gain, self.paired)

    def _ends(self) -> tuple[float | None, float | None]:
        if self.df is None:
            return None, None
        ends = [self.sd * math.sqrt(self.df / stats.chi2.ppf(q, self.df)) for q in (0.975, 0.025)]
        return float(ends[0]), float(ends[1])


def read_pilot(
    study: str, out: Path, sd: float | None, changes: Mapping[str, Any], plugins: Sequence[str] = ()
) -> Pilot:
    """Read a study, and what its finished runs say of their spread and time.

    Args:
        study: a study's folder, its file, or the name of a shipped one.
        out: where the finished runs of a study that is given as a file or a name lie.
        sd: of one run, in place of what finished runs say.
        changes: to the study, as `StudyCollection.load` takes them.
        plugins: files that register blocks.

    Raises:
        InputError: if there is no such study, it compares nothing, or nothing says how much its
            runs spread.
    """
    if sd is not None and not 0 < sd < math.inf:
        raise InputError(f"--sd is a number above 0, not {sd:g}")
    folder, asked = Path(study), None
    if not (folder / STUDY).exists():
        collection = StudyCollection.load(study, **changes)
        if len(collection.studies) > 1:
            names = ", ".join(each.name for each in collection.studies)
            raise InputError(f"'{study}' is several studies; plan one of them: {names}")
        asked = next(iter(collection.studies))
        folder = study_folder(asked, out)
    elif any(changes.values()):
        raise InputError(f"{study} is a study's folder, which is what it is; name the study's file")
    results = read_study_folder(folder) if (folder / STUDY).exists() else None
    # What is asked for now may have more rows than what has run.
    rows = len(asked.rows) if asked is not None else len(results.rows) if results else 0
    if rows < 2:
        raise InputError(f"'{study}' has one row; a gain needs a baseline and a row beside it")
    compared, lines = rows - 1, list[str]()
    df, stretch = None, 1.0
    if sd is None and results is not None and (planned := results.planning):
        sd, df, stretch = planned.sd, planned.df, planned.stretch
        compared = _compared(results, rows, lines)
    elif sd is None:
        sd, df = _pilot_spread(study, results, lines)
        lines.append("no row can be judged by these runs, so the page names no number of seeds")
    measured = None if results is None else _measured_seconds(results, asked)
    if measured is not None:
        lines.append("hours: as long as the finished runs took, one after another")
    elif asked is not None and (measured := _estimated_seconds(asked, out, plugins)) is not None:
        lines.append("hours: estimated from a training step, runs one after another; a guide")
    unit = results.metric.unit if results is not None else "%"
    unit = "points" if unit == "%" else unit
    looks = asked.looks if asked is not None else _looks_of(results)
    paired = asked.paired if asked is not None else results is not None and results.paired
    return Pilot(compared, sd, df, measured, unit, tuple(lines), looks, paired, stretch)


def _looks_of(results: StudyResults | None) -> Looks | None:
    design = results.design if results is not None else None
    return design.until_decided.looks() if design and design.until_decided else None


def _compared(results: StudyResults, rows: int, lines: list[str]) -> int:
    """Return how many of so many rows are to be compared; say what the spread leaves out."""
    family = results.family
    for row in results.rows:
        values = list(row.by_seed(row.metric.figure).values())
        if len(values) < FEWEST_SEEDS or row.at_chance or row.name in family.apart:
            lines.append(
                f"{row.name}: left out of the spread, {_no_spread(row, values, family.apart)}"
            )
    never = len(family.comparisons) - family.open_rows  # are tested, however many seeds
    compared = max(family.rows, rows - 1 - never)
    if compared > family.rows:
        which = (
            f"the spread, and the page's seeds, are of the {family.rows} of the last look"
            if results.waves
            else f"the page speaks of the {family.rows} that can be so far"
        )
        lines.append(f"{compared} rows are to be compared; {which}")
    return compared


def _pilot_spread(study: str, results: StudyResults | None, lines: list[str]) -> tuple[float, int]:
    """Return the pooled SD of runs of which none can be judged yet, and its degrees of freedom."""
    kept: list[dict[int, float]] = []
    for row in results.rows if results is not None else ():
        values = row.by_seed(row.metric.figure)
        if why := _no_spread(row, list(values.values()), results.family.apart if results else ()):
            lines.append(f"{row.name}: left out of the spread, {why}")
        else:
            kept.append(values)
    if results is not None and results.paired and kept:
        shared = set.intersection(*map(set, kept))
        kept = [{s: v[s] for s in sorted(shared)} for v in kept] if len(kept) > 1 else []
        kept = kept if len(shared) > 1 else []
    if not kept:
        raise InputError(
            f"no row of '{study}' has two finished seeds that differ; run a few seeds first, or "
            "give the SD of one run, such as --sd 0.25"
        )
    layout = Layout(tuple(map(len, kept)), results is not None and results.paired)
    sd = math.sqrt(pooled_variance(layout, as_array([list(v.values()) for v in kept])))
    if results is not None and results.family.method in ("uneven", "own"):
        lines.append("the rows' spreads differ: two seeds cannot say how much more that will take")
    return sd, layout.df


def _no_spread(row: RowResult, values: list[float], apart: Sequence[str]) -> str:
    if len(values) < 2:
        return f"{'one seed has' if values else 'no seed has'} finished"
    if row.at_chance:
        return "it never learned"
    if all_equal(values):
        return "its seeds all gave the same figure"
    return "its seeds scatter far beyond the others'" if row.name in apart else ""


def _measured_seconds(results: StudyResults, asked: Study | None) -> float | None:
    """Return seconds of one run of each row together; a row without runs goes by its MACs.

    Of the rows of what is asked for, where that is more or less than what has run.
    """
    taken = {row.name: one for row in results.rows if (one := row.over_seeds("train_seconds"))}
    if not taken:
        return None
    macs = {row.name: row.macs for row in results.rows}
    wanted = list(macs) if asked is None else [row.name for row in asked.rows]
    together = math.fsum(taken[name].mean for name in wanted if name in taken)
    if all(name in taken for name in wanted):
        return together
    if not all(macs.values()):  # of runs from elsewhere, where nothing says what a row costs
        return None
    size = next(row.input_size for row in results.rows)
    assert size is not None  # costs are counted at one
    classes = len(next(one for row in results.rows for one in row.finished).run["class_names"])
    for row in asked.rows if asked is not None else ():
        if row.name not in macs:
            macs[row.name] = cost(row.model, size, classes).macs
    seconds_of_mac = math.fsum(one.mean for one in taken.values()) / sum(
        macs[name] or 0 for name in taken
    )
    return together + seconds_of_mac * sum(macs[name] or 0 for name in wanted if name not in taken)


def _estimated_seconds(study: Study, out: Path, plugins: Sequence[str]) -> float | None:
    lines = plan_lines([study], out, 1, plugins=plugins)
    waiting = [(line["seconds_left"], line["runs"] - line["finished"]) for line in lines]
    if any(not seconds or not runs for seconds, runs in waiting):
        return None
    return math.fsum(seconds / runs for seconds, runs in waiting)
