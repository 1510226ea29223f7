"""All rows of a study against its baseline: one spread, one family of tests, one word a row.

How a study is judged is decided by its residuals alone, before any difference is looked at:

- Spreads as even as rows of one spread show them: Dunnett's test (JASA 50, 1955) with the spread
  pooled over all rows, and his simultaneous intervals.
- Some rows scatter far beyond the others, which are even (see `blocklab.statistics.outlying`):
  Dunnett's test with the spread of the others. A row set apart still counts as one of the tests; it
  is judged by Welch's from five seeds on, and not at all with fewer.
- Uneven spreads otherwise: no statistic counts as shown that studies made of this one's residuals
  reach in 4.5 % (see `blocklab.statistics.spread`). With two seeds nothing is shown. From five on,
  very uneven rows are judged by Welch's t test with Bonferroni's correction instead; where seeds
  are blocks, all uneven ones are by the paired t test.

The interval of a difference excludes 0 just where its verdict is better or worse.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy import stats

from blocklab.statistics.dunnett import critical_value, exceedance
from blocklab.statistics.outlying import chance_of_failed_row, outlying_rows
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
FEWEST_FOR_WELCH = 5  # below, Welch's test of many rows shows next to nothing
MOST_LOST = 0.9  # of alpha, to rows all of whose seeds may have failed
FEWEST_EVEN_ROWS = 3  # that outlying ones are set apart from, the baseline among them
# Spreads count as uneven below these p. Chosen by simulation (docs/statistics.md): high, since a
# guard that fires needlessly costs a little power, and one that does not fire costs false verdicts.
UNEVEN_BELOW = 0.5
UNEVEN_BELOW_OF_FEW_SEEDS = 0.3  # of three or four, where needless firing costs more
# Where seeds are blocks, a row's residuals take part of the other rows' spreads, and hide its own.
UNEVEN_BELOW_OF_BLOCKS = 0.7
UNEVEN_BELOW_OF_FEW_BLOCKS = 0.5
VERY_UNEVEN_BELOW = 0.05
# What studies made of few residuals may reach, as a share of alpha: they are a little too tame.
RESAMPLED_SHARE = 0.9

BETTER, WORSE = "better", "worse"
AS_GOOD, NOT_WORSE = "as good", "not worse"  # of a study with a margin, by `with_margin`
NOT_SHOWN, TOO_FEW = "no difference shown", "too few seeds"
AT_CHANCE = "at chance"  # it never learned: nothing to test
BASELINE_AT_CHANCE = "baseline at chance"  # which never learned: nothing to compare with
SAME = "identical function"  # not of a test

Method = Literal["pooled", "uneven", "own", "none"]


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
    `baseline at chance` and `identical function`, and of a study with a margin `as good` and
    `not worse`; `reason` says what a reader cannot see from the
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
        method: `pooled`; `uneven`, against studies made of residuals; `own`, each row by its own
            spread; or `none` where nothing could be tested.
        comparisons: a verdict a row.
        paired: whether seeds were taken as blocks.
        sd: of one run, pooled over rows but those apart; of what seeds leave, where they are
            blocks.
        df: its degrees of freedom.
        rows: how many were tested together, those apart among them.
        critical: the t that a difference must pass, by Welch's test that of two rows with the
            fewest seeds and even spreads; None of `none`.
        stretch: `critical` over that of Dunnett's test of the same rows: 1 where spreads are even.
        unevenness_p: how often rows of one spread look as uneven as these, those apart left out;
            None of `none`.
        seeds: the fewest that a tested row or the baseline has.
        margin: the difference that begins to matter; None of a study that names none.
        apart: rows that scatter far beyond the others, if those are even.
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
    apart: tuple[str, ...] = ()
    margin: float | None = None

    @property
    def sentences(self) -> tuple[str, ...]:
        """How the verdicts were reached, in words."""
        if self.sd is None or self.unevenness_p is None:
            return ()
        if self.margin is None:
            return self._of_differences
        return (
            *self._of_differences,
            f"As good is a row whose interval lies within {self.margin:g} of the baseline, not "
            "worse one whose interval ends above that; of any row, one of these words or better "
            "or worse is wrong in at most 5 % of studies.",
        )

    @property
    def _of_differences(self) -> tuple[str, ...]:
        assert self.sd is not None and self.unevenness_p is not None
        rows = f"{self.rows} row{'s' if self.rows > 1 else ''}"
        spread = f"SD {self.sd:.3g} of one run, {self.df} degrees of freedom"
        if self.paired:
            spread += ", what a seed does to every row taken out"
        guard = f"spreads as uneven as these come up in {100 * self.unevenness_p:.0f} % of studies"
        if self.method == "pooled":
            over = "the others" if self.apart else "all rows"
            return (
                *self._of_rows_apart,
                f"Dunnett's test of {rows} with the spread pooled over {over} ({spread}).",
                f"It may be used here: {guard} whose rows have one spread.",
            )
        differ = (
            f"The rows' spreads differ ({spread}): {guard} whose rows have one spread, so "
            "Dunnett's test with a pooled spread is not used."
        )
        if not self.rows:
            return (differ, "Two seeds say too little of each row's own spread: three or more.")
        if self.method == "own":
            how = "Welch's test by its own spread and the baseline's, corrected by Bonferroni for"
            return (differ, f"Each row is judged by {how} {rows}.")
        return (
            differ,
            f"A difference of {rows} counts as shown only where it is beyond what studies made of "
            "this one's own residuals reach.",
        )

    @property
    def _of_rows_apart(self) -> tuple[str, ...]:
        if not self.apart:
            return ()
        one = len(self.apart) == 1
        own = "judged by Welch's test and" if self.seeds >= FEWEST_FOR_WELCH else "not judged, but"
        return (
            f"{', '.join(self.apart)}: set apart, for {'its' if one else 'their'} seeds scatter "
            f"far beyond those of the others; {own} still counted among the rows tested.",
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
    judged = _judge(rows, tested, paired, alpha) if rows else _Judged("none")
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
        judged.rows,
        judged.critical,
        judged.stretch,
        judged.unevenness_p,
        judged.seeds,
        alpha,
        judged.apart,
    )


def spreads_are_even(unevenness_p: float, seeds: int, blocks: bool = False) -> bool:
    """Whether rows may share a spread: `seeds` are the fewest that a row has."""
    if FEWEST_WHERE_UNEVEN <= seeds < FEWEST_FOR_WELCH:
        return unevenness_p >= (UNEVEN_BELOW_OF_FEW_BLOCKS if blocks else UNEVEN_BELOW_OF_FEW_SEEDS)
    return unevenness_p >= (UNEVEN_BELOW_OF_BLOCKS if blocks else UNEVEN_BELOW)


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
    rows: int = 0
    apart: tuple[str, ...] = ()

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


def _judge(rows: list[list[float]], tested: list[str], paired: bool, alpha: float) -> _Judged:
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
        return _Judged("none", tests, seeds=seeds, rows=len(tested))
    p_even = unevenness_p(layout, values)
    if spreads_are_even(p_even, seeds, paired):
        return _dunnett(layout, gaps, tested, sd, p_even, alpha)
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
    split = _split(layout, values, gaps, tested, refused, alpha)
    if split is not None:
        return split
    very = seeds >= FEWEST_FOR_WELCH and (paired or p_even < VERY_UNEVEN_BELOW)
    judge = _welch if very else _resampled
    return judge(layout, values, gaps, tested, refused, sd, p_even, alpha)


def _dunnett(
    layout: Layout, gaps: list[float], tested: list[str], sd: float, p_even: float, alpha: float
) -> _Judged:
    tests, critical = _by_one_spread(layout, gaps, tested, sd, layout.df, 0.0, alpha)
    seeds, rows = min(layout.counts), len(tested)
    return _Judged("pooled", tests, {}, sd, layout.df, critical, 1.0, p_even, seeds, rows)


def _by_one_spread(
    layout: Layout,
    gaps: list[float],
    tested: list[str],
    sd: float,
    df: int,
    lost: float,
    alpha: float,
) -> tuple[dict[str, _Test], float]:
    """Test rows by Dunnett's test at `alpha` less what is `lost` of it; return its critical t."""
    first, *counts = layout.counts
    critical = critical_value(alpha - lost, counts, first, df)
    tests = {}
    for row, gap, n, scale in zip(tested, gaps, counts, _scales(layout), strict=True):
        t = abs(gap) / (sd * scale)
        p = min(1.0, lost + exceedance(t, counts, first, df))
        alone = float(2 * stats.t.sf(t, df))
        tests[row] = _Test(gap, (n, first), critical * sd * scale, p, alone)
    return tests, critical


def _split(
    layout: Layout,
    values: Array,
    gaps: list[float],
    tested: list[str],
    refused: Mapping[str, str],
    alpha: float,
) -> _Judged | None:
    """Judge rows by the spread of those that are even, the others apart; None where none are."""
    outlying = outlying_rows(layout, values)
    apart = [row for row, out in zip(tested, outlying[1:], strict=True) if out]
    rest = np.flatnonzero(np.logical_not(outlying))
    lost = chance_of_failed_row(layout, len(apart))
    if outlying[0] or not apart or rest.size < FEWEST_EVEN_ROWS or lost > MOST_LOST * alpha:
        return None
    even, of_even = Layout(tuple(layout.counts[i] for i in rest), layout.blocks), values[rest]
    p_even, sd = unevenness_p(even, of_even), math.sqrt(pooled_variance(even, of_even))
    seeds = min(layout.counts)
    if sd <= SPREAD_OF_ROUNDING or not spreads_are_even(p_even, seeds, layout.blocks):
        return None
    tests, critical = _by_one_spread(layout, gaps, tested, sd, even.df, lost, alpha)
    refused = dict(refused)
    for row in apart:
        i = tested.index(row) + 1
        own = _own_test(layout, values, i, gaps[i - 1], len(tested), alpha)
        if own is None or min(layout.counts[0], layout.counts[i]) < FEWEST_FOR_WELCH:
            refused[row] = "its seeds scatter far beyond the other rows': five or more"
            del tests[row]
        else:
            tests[row] = own
    stretch = critical / critical_value(alpha, layout.counts[1:], layout.counts[0], even.df)
    rows = len(tested)
    return _Judged(
        *("pooled", tests, refused, sd, even.df, critical, stretch, p_even, seeds, rows),
        tuple(apart),
    )


def _welch(
    layout: Layout,
    values: Array,
    gaps: list[float],
    tested: list[str],
    refused: Mapping[str, str],
    sd: float,
    p_even: float,
    alpha: float,
) -> _Judged:
    """Judge each row by its own spread and the baseline's."""
    first, *counts = layout.counts
    tests, refused = {}, dict(refused)
    for i, (row, gap) in enumerate(zip(tested, gaps, strict=True), 1):
        own = _own_test(layout, values, i, gap, len(tested), alpha)
        if own is None:
            refused[row] = "neither its seeds nor the baseline's differ: no spread of its own"
        else:
            tests[row] = own
    seeds, rows = min(layout.counts), len(tested)
    critical = float(stats.t.isf(alpha / 2 / rows, (1 if layout.blocks else 2) * (seeds - 1)))
    stretch = critical / critical_value(alpha, counts, first, layout.df)
    return _Judged("own", tests, refused, sd, layout.df, critical, stretch, p_even, seeds, rows)


def _own_test(
    layout: Layout, values: Array, i: int, gap: float, rows: int, alpha: float
) -> _Test | None:
    """Test a row by its own spread, among `rows`; None where neither of the two shows one."""
    error, df = _own_spread(layout, values, i)
    if error <= SPREAD_OF_ROUNDING:
        return None
    alone = float(2 * stats.t.sf(abs(gap) / error, df))
    half = float(stats.t.isf(alpha / 2 / rows, df)) * error
    return _Test(gap, (layout.counts[i], layout.counts[0]), half, min(1.0, rows * alone), alone)


def _resampled(
    layout: Layout,
    values: Array,
    gaps: list[float],
    tested: list[str],
    refused: Mapping[str, str],
    sd: float,
    p_even: float,
    alpha: float,
) -> _Judged:
    """Judge rows by the pooled spread, against studies made of their residuals."""
    first, *counts = layout.counts
    maxima = null_maxima(layout, values)
    dunnett = critical_value(alpha, counts, first, layout.df)
    # (1 + how many reach t) / (1 + all) is p; below the share of alpha just beyond this one.
    place = math.ceil(RESAMPLED_SHARE * alpha * (RESAMPLED + 1)) - 1
    critical = max(dunnett, float(maxima[-max(place, 1)]))
    tests = {}
    for i, (row, gap, scale) in enumerate(zip(tested, gaps, _scales(layout), strict=True), 1):
        t = abs(gap) / (sd * scale)
        resampled = (1 + int((maxima >= t).sum())) / (RESAMPLED + 1) / RESAMPLED_SHARE
        p = min(1.0, max(exceedance(t, counts, first, layout.df), resampled))
        error, df = _own_spread(layout, values, i)
        alone = float(2 * stats.t.sf(abs(gap) / error, df)) if error > 0 else None
        tests[row] = _Test(gap, (layout.counts[i], first), critical * sd * scale, p, alone)
    return _Judged(
        *("uneven", tests, refused, sd, layout.df, critical, critical / dunnett, p_even),
        *(min(layout.counts), len(tested)),
    )


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
