"""All rows of a study against its baseline: one spread, one family of tests, one word a row.

How a study is judged is decided by its residuals alone, before any difference is looked at:

- Spreads as even as rows of one spread show them: Dunnett's test (JASA 50, 1955) with the spread
  pooled over all rows, and his simultaneous intervals.
- Uneven spreads: no statistic counts as shown that studies made of this one's residuals reach in
  5 % (see `blocklab.statistics.spread`), nor, from five seeds, one that Welch's t test with
  Bonferroni's correction does not bear out. With two seeds nothing is shown.

The interval of a difference excludes 0 just where its verdict is better or worse.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy import stats

from blocklab.statistics.dunnett import critical_value, exceedance
from blocklab.statistics.spread import (
    RESAMPLED,
    Array,
    Layout,
    as_array,
    null_maxima,
    pooled_variance,
    unevenness_p,
)
from blocklab.statistics.summary import ALPHA, SPREAD_OF_ROUNDING, UNBOUNDED, finite

FEWEST_SEEDS = 2  # a spread needs two
FEWEST_WHERE_UNEVEN = 3  # two seeds of a row say next to nothing of its own spread
FEWEST_FOR_WELCH = 5  # below, Welch's test of many rows shows nothing at all
# Spreads count as uneven below this p. Chosen by simulation (docs/statistics.md): high, since a
# guard that fires needlessly costs a little power, and one that does not fire costs false verdicts.
UNEVEN_BELOW = 0.3
UNEVEN_BELOW_OF_TWO_SEEDS = 0.5

BETTER, WORSE = "better", "worse"
NOT_SHOWN, TOO_FEW = "no difference shown", "too few seeds"
AT_CHANCE = "at chance"  # it never learned: nothing to test
BASELINE_AT_CHANCE = "baseline at chance"  # which never learned: nothing to compare with
SAME = "identical function"  # not of a test

Method = Literal["pooled", "uneven", "none"]


@dataclass(frozen=True)
class Difference:
    """A row's mean minus the baseline's.

    `low` and `high` hold for all rows of the study at once; they and the p values are None where
    the row was not tested, or no spread was seen. `p` is that of the verdict, adjusted for all
    rows; `p_alone` what it would be had the study this row alone. `values` are the differences a
    seed, of a study that is paired by seed.
    """

    mean: float
    n: int  # seeds of the row
    n_baseline: int
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_alone: float | None = None
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """What a study says of one row against its baseline.

    `word` is one of `better`, `worse`, `no difference shown`, `too few seeds`, `at chance`,
    `baseline at chance` and `identical function`; `reason` says what a reader cannot see from the
    numbers.
    """

    word: str
    reason: str = ""
    difference: Difference | None = None

    @property
    def p(self) -> float | None:
        """Adjusted for all rows that were tested; None where it was not."""
        return self.difference.p if self.difference else None


@dataclass(frozen=True)
class Family:
    """A study's rows against its baseline.

    Attributes:
        method: `pooled`, `uneven`, or `none` where nothing could be tested.
        comparisons: a verdict a row.
        paired: whether seeds were taken as blocks.
        sd: of one run, pooled over rows; of what seeds leave, where they are blocks.
        df: its degrees of freedom.
        rows: how many were tested together.
        critical: the t that a difference must pass, before Welch's part; None of `none`.
        stretch: `critical` over that of Dunnett's test: 1 where spreads are even.
        unevenness_p: how often rows of one spread look as uneven as these; None of `none`.
        seeds: the fewest that a tested row or the baseline has.
    """

    method: Method
    comparisons: Mapping[str, Comparison] = field(default_factory=dict)
    paired: bool = False
    sd: float | None = None
    df: int = 0
    rows: int = 0
    critical: float | None = None
    stretch: float = 1.0
    unevenness_p: float | None = None
    seeds: int = 0
    alpha: float = ALPHA

    @property
    def sentences(self) -> tuple[str, ...]:
        """How the verdicts were reached, in words."""
        if self.sd is None or self.unevenness_p is None:
            return ()
        rows = f"{self.rows} row{'s' if self.rows > 1 else ''}"
        spread = f"SD {self.sd:.2f} of one run, {self.df} degrees of freedom"
        if self.paired:
            spread += ", what a seed does to every row taken out"
        guard = f"spreads as uneven as these come up in {100 * self.unevenness_p:.0f} % of studies"
        if self.method == "pooled":
            return (
                f"Dunnett's test of {rows} with the spread pooled over all rows ({spread}).",
                f"It may be used here: {guard} whose rows have one spread.",
            )
        differ = (
            f"The rows' spreads differ ({spread}): {guard} whose rows have one spread, so "
            "Dunnett's test with a pooled spread alone is not used."
        )
        if not self.rows:
            return (differ, "Two seeds say too little of each row's own spread: three or more.")
        more = " and Welch's test" if self.seeds >= FEWEST_FOR_WELCH else ""
        return (
            differ,
            f"A difference of {rows} counts as shown only where studies made of this one's own "
            f"residuals{more} bear it out.",
        )


def compare_rows(
    values: Mapping[str, Mapping[int, float]],
    baseline: str,
    *,
    identical: Collection[str] = (),
    at_chance: Collection[str] = (),
    paired: bool = False,
    bounds: tuple[float, float] = UNBOUNDED,
    higher_is_better: bool = True,
    alpha: float = ALPHA,
    more_rows: int = 0,
) -> Family:
    """Return a verdict for each row but the baseline.

    Args:
        values: a figure of each row, by seed; the baseline among them.
        baseline: the row that the others are compared with.
        identical: rows that compute the baseline's function: named so, and not tested.
        at_chance: rows that never learned, of which none is tested; if the baseline is one, no row
            is.
        paired: take out what a seed does to every row, over the seeds that all rows have.
        bounds: what a difference can be; intervals are cut there.
        higher_is_better: which sign is `better`.
        alpha: how often a study without a difference may call any row better or worse.
        more_rows: rows of the family that are not among `values`: they were run, and dropped.

    Raises:
        ValueError: if a value is not a finite number.
    """
    untested = {*identical, *at_chance}
    usable = {row: dict(by_seed) for row, by_seed in values.items() if by_seed}
    for by_seed in usable.values():
        finite(list(by_seed.values()))
    plain = {
        row: _difference(usable[row], usable[baseline], paired)
        for row in values
        if row != baseline and row in usable and baseline in usable
    }
    tested = [
        row
        for row, gap in plain.items()
        if gap and gap.n >= FEWEST_SEEDS <= gap.n_baseline and row not in untested
    ]
    if baseline in at_chance:
        tested = []
    rows = _rows(usable, [baseline, *tested], paired) if tested else []
    judged = _judge(rows, tested, paired, alpha, more_rows) if rows else _Judged("none")
    found: dict[str, Comparison] = {}
    for row in values:
        if row == baseline:
            continue
        gap = plain.get(row)
        if row in at_chance:
            reason = "no better on its own training images than the commonest class"
            found[row] = Comparison(AT_CHANCE, reason, gap)
        elif row in identical:
            found[row] = Comparison(SAME, "same bits on every seed", gap)
        elif gap is None:
            found[row] = Comparison(TOO_FEW, _nothing_shared(paired))
        elif baseline in at_chance:
            found[row] = Comparison(BASELINE_AT_CHANCE, "the baseline never learned", gap)
        elif row not in judged.tests:
            found[row] = Comparison(TOO_FEW, judged.refusals.get(row) or _few(gap, paired), gap)
        else:
            found[row] = judged.comparison(row, gap, bounds, higher_is_better, alpha)
    return Family(
        judged.method,
        found,
        paired,
        judged.sd,
        judged.df,
        len(judged.tests),
        judged.critical,
        judged.stretch,
        judged.unevenness_p,
        judged.seeds,
        alpha,
    )


@dataclass(frozen=True)
class _Test:
    """A row's test: its mean difference, seeds of both, half of its interval, and p."""

    mean: float
    seeds: tuple[int, int]
    half: float | None
    p: float | None
    p_alone: float | None


@dataclass(frozen=True)
class _Judged:
    method: Method
    tests: Mapping[str, _Test] = field(default_factory=dict)
    refusals: Mapping[str, str] = field(default_factory=dict)
    sd: float | None = None
    df: int = 0
    critical: float | None = None
    stretch: float = 1.0
    unevenness_p: float | None = None
    seeds: int = 0

    def comparison(
        self,
        row: str,
        plain: Difference,
        bounds: tuple[float, float],
        higher_is_better: bool,
        alpha: float,
    ) -> Comparison:
        test = self.tests[row]
        if test.half is None:
            reason = "no seed of any row differs from another: no spread to test against"
            return Comparison(NOT_SHOWN, reason, plain)
        low, high = test.mean - test.half, test.mean + test.half
        gap = Difference(
            test.mean,
            *test.seeds,
            max(low, bounds[0]),
            min(high, bounds[1]),
            test.p,
            test.p_alone,
            plain.values,
        )
        if low <= 0 <= high:
            alone = test.p_alone is not None and test.p_alone < alpha and self.method == "pooled"
            reason = "shown alone, but not among this many rows" if alone else ""
            return Comparison(NOT_SHOWN, reason, gap)
        return Comparison(BETTER if (low > 0) == higher_is_better else WORSE, "", gap)


def _judge(
    rows: list[list[float]], tested: list[str], paired: bool, alpha: float, more: int
) -> _Judged:
    layout = Layout(tuple(map(len, rows)), paired)
    values = as_array(rows)
    seeds = min(layout.counts)
    sd = math.sqrt(pooled_variance(layout, values))
    means = np.array([math.fsum(row) / len(row) for row in rows])
    gaps = (means[1:] - means[0]).tolist()
    if sd <= SPREAD_OF_ROUNDING:
        tests = {
            row: _Test(gap, (n, layout.counts[0]), None, None, None)
            for row, gap, n in zip(tested, gaps, layout.counts[1:], strict=True)
        }
        return _Judged("none", tests, seeds=seeds)
    p_even = unevenness_p(layout, values)
    threshold = UNEVEN_BELOW if seeds >= FEWEST_WHERE_UNEVEN else UNEVEN_BELOW_OF_TWO_SEEDS
    if p_even >= threshold:
        return _dunnett(layout, gaps, tested, sd, p_even, alpha, more)
    kept = [0] + [i for i, n in enumerate(layout.counts) if i and n >= FEWEST_WHERE_UNEVEN]
    few = "the rows' spreads differ, and two seeds say too little of each: three or more"
    refused = {
        row: few
        for i, row in enumerate(tested, 1)
        if i not in kept or layout.counts[0] < FEWEST_WHERE_UNEVEN
    }
    if len(refused) == len(tested):
        return _Judged("uneven", {}, refused, sd, layout.df, None, 1.0, p_even, seeds)
    if refused:
        rows, tested = [rows[i] for i in kept], [row for row in tested if row not in refused]
        layout, values = Layout(tuple(map(len, rows)), paired), as_array(rows)
        gaps = [gaps[i - 1] for i in kept[1:]]
        sd, seeds = math.sqrt(pooled_variance(layout, values)), min(layout.counts)
    return _uneven(layout, values, gaps, tested, refused, sd, p_even, alpha, more)


def _dunnett(
    layout: Layout,
    gaps: list[float],
    tested: list[str],
    sd: float,
    p_even: float,
    alpha: float,
    more: int,
) -> _Judged:
    first, *counts = layout.counts
    family = [*counts, *[min(counts)] * more]
    critical = critical_value(alpha, family, first, layout.df)
    tests = {}
    for row, gap, n, scale in zip(tested, gaps, counts, _scales(layout), strict=True):
        t = abs(gap) / (sd * scale)
        p = exceedance(t, family, first, layout.df)
        alone = float(2 * stats.t.sf(t, layout.df))
        tests[row] = _Test(gap, (n, first), critical * sd * scale, p, alone)
    seeds = min(layout.counts)
    return _Judged("pooled", tests, {}, sd, layout.df, critical, 1.0, p_even, seeds)


def _uneven(
    layout: Layout,
    values: Array,
    gaps: list[float],
    tested: list[str],
    refused: Mapping[str, str],
    sd: float,
    p_even: float,
    alpha: float,
    more: int,
) -> _Judged:
    first, *counts = layout.counts
    family = [*counts, *[min(counts)] * more]
    maxima = null_maxima(layout, values)
    dunnett = critical_value(alpha, family, first, layout.df)
    # Dropped rows left no residuals here: each takes its share of alpha (Bonferroni).
    share = len(counts) / len(family)
    # (1 + how many reach t) / (1 + all) is p; below alpha just beyond this one.
    place = math.ceil(alpha * share * (RESAMPLED + 1)) - 1
    critical = max(dunnett, float(maxima[-max(place, 1)]))
    tests = {}
    for i, (row, gap, scale) in enumerate(zip(tested, gaps, _scales(layout), strict=True), 1):
        t = abs(gap) / (sd * scale)
        resampled = (1 + int((maxima >= t).sum())) / (RESAMPLED + 1) / share
        p = min(1.0, max(exceedance(t, family, first, layout.df), resampled))
        half = critical * sd * scale
        error, df = _own_spread(layout, values, i)
        alone = float(2 * stats.t.sf(abs(gap) / error, df)) if error > 0 else None
        if min(layout.counts[0], layout.counts[i]) >= FEWEST_FOR_WELCH and error > 0:
            p = max(p, min(1.0, len(family) * (alone or 0.0)))
            half = max(half, float(stats.t.isf(alpha / 2 / len(family), df)) * error)
        tests[row] = _Test(gap, (layout.counts[i], first), half, p, alone)
    seeds = min(layout.counts)
    stretch = critical / dunnett
    return _Judged("uneven", tests, refused, sd, layout.df, critical, stretch, p_even, seeds)


def _own_spread(layout: Layout, values: Array, row: int) -> tuple[float, float]:
    """Return the standard error of a difference by the two rows' own spreads, and its df."""
    ours, theirs = (values[i, : layout.counts[i]] for i in (row, 0))
    if layout.blocks:
        return float(stats.sem(ours - theirs)), float(ours.size - 1)
    parts = [float(np.var(one, ddof=1)) / one.size for one in (ours, theirs)]
    total = sum(parts)
    if total == 0:
        return 0.0, 1.0
    dfs = [part**2 / (one.size - 1) for part, one in zip(parts, (ours, theirs), strict=True)]
    return math.sqrt(total), total**2 / sum(dfs)


def _scales(layout: Layout) -> list[float]:
    first, *counts = layout.counts
    return [math.sqrt(1 / n + 1 / first) for n in counts]


def _difference(
    ours: Mapping[int, float], theirs: Mapping[int, float], paired: bool
) -> Difference | None:
    if not paired:
        mean = math.fsum(ours.values()) / len(ours) - math.fsum(theirs.values()) / len(theirs)
        return Difference(mean, len(ours), len(theirs))
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        return None
    gaps = tuple(float(ours[seed] - theirs[seed]) for seed in shared)
    return Difference(math.fsum(gaps) / len(gaps), len(gaps), len(gaps), values=gaps)


def _rows(
    usable: Mapping[str, Mapping[int, float]], names: list[str], paired: bool
) -> list[list[float]]:
    if not paired:
        return [[usable[name][seed] for seed in sorted(usable[name])] for name in names]
    shared = sorted(set.intersection(*(set(usable[name]) for name in names)))
    if len(shared) < FEWEST_SEEDS:
        return []
    return [[usable[name][seed] for seed in shared] for name in names]


def _nothing_shared(paired: bool) -> str:
    return "shares no finished seed with the baseline" if paired else "no run has finished"


def _few(gap: Difference, paired: bool) -> str:
    if paired and min(gap.n, gap.n_baseline) >= FEWEST_SEEDS:
        return "paired by seed, and no two seeds have finished in every row"
    which = "of the row" if gap.n < FEWEST_SEEDS else "of the baseline"
    return f"one seed {which} has no spread to test against"
