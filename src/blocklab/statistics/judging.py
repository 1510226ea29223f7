"""Which differences of a study are shown: the tests behind its verdicts.

See `blocklab.statistics.family` for the rules. Everything here but `gaps` is decided by residuals.
"""

import math
from collections.abc import Mapping, Sequence
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
from blocklab.statistics.summary import is_rounding

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

Method = Literal["pooled", "uneven", "own", "none"]


def spreads_are_even(unevenness_p: float, seeds: int, blocks: bool = False) -> bool:
    """Whether rows may share a spread: `seeds` are the fewest that a row has."""
    if FEWEST_WHERE_UNEVEN <= seeds < FEWEST_FOR_WELCH:
        return unevenness_p >= (UNEVEN_BELOW_OF_FEW_BLOCKS if blocks else UNEVEN_BELOW_OF_FEW_SEEDS)
    return unevenness_p >= (UNEVEN_BELOW_OF_BLOCKS if blocks else UNEVEN_BELOW)


@dataclass(frozen=True)
class Test:
    """A row's test: its mean difference, seeds of both, half of its interval, and p."""

    __test__ = False  # for pytest

    mean: float
    seeds: tuple[int, int]
    half: float | None
    p: float | None
    p_alone: float | None


@dataclass(frozen=True)
class Judged:
    """What the tests of a study's rows came to; see `blocklab.statistics.family.Family`.

    `refusals` say of rows that were not tested why.
    """

    method: Method
    tests: Mapping[str, Test] = field(default_factory=dict)
    refusals: Mapping[str, str] = field(default_factory=dict)
    sd: float | None = None
    df: int = 0
    critical: float | None = None
    stretch: float = 1.0
    unevenness_p: float | None = None
    seeds: int = 0
    rows: int = 0
    apart: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Rows:
    """Rows to test: the baseline's seeds first in `values`, the others' names and gaps.

    `more` rows were tested too and left no seeds here: they count among the tests.
    """

    layout: Layout
    values: Array
    names: tuple[str, ...]
    gaps: tuple[float, ...]
    alpha: float
    more: int = 0
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> tuple[int, ...]:
        """Seeds of each row that is here."""
        return self.layout.counts[1:]

    @property
    def first(self) -> int:
        """Seeds of the baseline."""
        return self.layout.counts[0]

    @property
    def family(self) -> tuple[int, ...]:
        """Seeds of each row that is tested; those that are not here count as having the fewest."""
        return (*self.counts, *[min(self.counts)] * self.more)

    @property
    def seeds(self) -> int:
        """The fewest that a row has."""
        return min(self.layout.counts)

    @property
    def sd(self) -> float:
        """Of one run, pooled."""
        return math.sqrt(pooled_variance(self.layout, self.values))

    def without(self, refused: Mapping[str, str]) -> "_Rows":
        """Leave rows out, with the reason for each."""
        kept = [i for i, name in enumerate(self.names) if name not in refused]
        layout = Layout((self.first, *(self.counts[i] for i in kept)), self.layout.blocks)
        values = self.values[[0, *(i + 1 for i in kept)], : max(layout.counts)]
        names, gaps = tuple(self.names[i] for i in kept), tuple(self.gaps[i] for i in kept)
        return _Rows(layout, values, names, gaps, self.alpha, self.more, refused)


def judge_rows(
    rows: Sequence[Sequence[float]],
    names: Sequence[str],
    *,
    paired: bool,
    alpha: float,
    more: int = 0,
) -> Judged:
    """Test each row against the first, the baseline.

    Args:
        rows: seeds of the baseline and of each row; of a paired study, the same ones.
        names: of the rows but the baseline.
        paired: take out what a seed does to every row.
        alpha: of all rows together.
        more: how many further rows count among the tests.
    """
    layout, values = Layout(tuple(map(len, rows)), paired), as_array(rows)
    means = [math.fsum(row) / len(row) for row in rows]
    gaps = tuple(mean - means[0] for mean in means[1:])
    given = _Rows(layout, values, tuple(names), gaps, alpha, more)
    counted = len(given.family)
    if is_rounding(given.sd, values):
        tests = {
            name: Test(gap, (n, given.first), None, None, None)
            for name, gap, n in zip(names, gaps, given.counts, strict=True)
        }
        return Judged("none", tests, seeds=given.seeds, rows=counted)
    p_even = unevenness_p(layout, values)
    if spreads_are_even(p_even, given.seeds, paired):
        return _dunnett(given, p_even)
    few = "the rows' spreads differ, and two seeds say too little of each; three or more do"
    refused = {
        name: few
        for name, n in zip(names, given.counts, strict=True)
        if min(n, given.first) < FEWEST_WHERE_UNEVEN
    }
    if len(refused) == len(names):
        return Judged("uneven", {}, refused, given.sd, layout.df, None, 1.0, p_even, given.seeds)
    if refused:
        given = given.without(refused)
    split = _split(given)
    if split is not None:
        return split
    very = given.seeds >= FEWEST_FOR_WELCH and (paired or p_even < VERY_UNEVEN_BELOW)
    return (_welch if very else _resampled)(given, p_even)


def _dunnett(rows: _Rows, p_even: float) -> Judged:
    sd, df = rows.sd, rows.layout.df
    tests, critical = _by_one_spread(rows, sd, df, 0.0)
    counted = len(rows.family)
    return Judged("pooled", tests, {}, sd, df, critical, 1.0, p_even, rows.seeds, counted)


def _by_one_spread(rows: _Rows, sd: float, df: int, lost: float) -> tuple[dict[str, Test], float]:
    """Test rows by Dunnett's test at `alpha` less what is `lost` of it; return its critical t."""
    critical = critical_value(rows.alpha - lost, rows.family, rows.first, df)
    tests = {}
    for name, gap, n in zip(rows.names, rows.gaps, rows.counts, strict=True):
        error = sd * math.sqrt(1 / n + 1 / rows.first)
        t = abs(gap) / error
        p = min(1.0, lost + exceedance(t, rows.family, rows.first, df))
        alone = float(2 * stats.t.sf(t, df))
        tests[name] = Test(gap, (n, rows.first), critical * error, p, alone)
    return tests, critical


def _split(rows: _Rows) -> Judged | None:
    """Judge rows by the spread of those that are even, the others apart; None where none are."""
    layout, values, alpha = rows.layout, rows.values, rows.alpha
    outlying = outlying_rows(layout, values)
    apart = [name for name, out in zip(rows.names, outlying[1:], strict=True) if out]
    rest = np.flatnonzero(np.logical_not(outlying))
    lost = chance_of_failed_row(layout, len(apart))
    if outlying[0] or not apart or rest.size < FEWEST_EVEN_ROWS or lost > MOST_LOST * alpha:
        return None
    even = Layout(tuple(layout.counts[i] for i in rest), layout.blocks)
    of_even = values[rest, : max(even.counts)]
    p_even, sd = unevenness_p(even, of_even), math.sqrt(pooled_variance(even, of_even))
    if is_rounding(sd, of_even) or not spreads_are_even(p_even, rows.seeds, layout.blocks):
        return None
    tests, critical = _by_one_spread(rows, sd, even.df, lost)
    refused = dict(rows.refused)
    for name in apart:
        i = rows.names.index(name)
        own = _own_test(rows, i)
        if own is None or min(rows.first, rows.counts[i]) < FEWEST_FOR_WELCH:
            refused[name] = "its seeds scatter far beyond the other rows': five or more"
            del tests[name]
        else:
            tests[name] = own
    stretch = critical / critical_value(alpha, rows.family, rows.first, even.df)
    return Judged(
        *("pooled", tests, refused, sd, even.df, critical, stretch, p_even, rows.seeds),
        *(len(rows.family), tuple(apart)),
    )


def _welch(rows: _Rows, p_even: float) -> Judged:
    """Judge each row by its own spread and the baseline's."""
    tests, refused = {}, dict(rows.refused)
    for i, name in enumerate(rows.names):
        own = _own_test(rows, i)
        if own is None:
            refused[name] = "neither its seeds nor the baseline's differ: no spread of its own"
        else:
            tests[name] = own
    seeds, counted, df = rows.seeds, len(rows.family), rows.layout.df
    of_two = (1 if rows.layout.blocks else 2) * (seeds - 1)
    critical = float(stats.t.isf(rows.alpha / 2 / counted, of_two))
    stretch = critical / critical_value(rows.alpha, rows.family, rows.first, df)
    return Judged("own", tests, refused, rows.sd, df, critical, stretch, p_even, seeds, counted)


def _own_test(rows: _Rows, i: int) -> Test | None:
    """Test a row by its own spread, among all; None where neither of the two shows one."""
    error, df = _own_spread(rows, i)
    if is_rounding(error, rows.values[[0, i + 1]]):
        return None
    counted = len(rows.family)
    alone = float(2 * stats.t.sf(abs(rows.gaps[i]) / error, df))
    half = float(stats.t.isf(rows.alpha / 2 / counted, df)) * error
    p = min(1.0, counted * alone)
    return Test(rows.gaps[i], (rows.counts[i], rows.first), half, p, alone)


def _resampled(rows: _Rows, p_even: float) -> Judged:
    """Judge rows by the pooled spread, against studies made of their residuals."""
    sd, df = rows.sd, rows.layout.df
    maxima = null_maxima(rows.layout, rows.values)
    dunnett = critical_value(rows.alpha, rows.family, rows.first, df)
    # Rows that are not here left no residuals: each takes its share of alpha (Bonferroni).
    share = RESAMPLED_SHARE * len(rows.counts) / len(rows.family)
    # (1 + how many reach t) / (1 + all) is p; below the share of alpha just beyond this one.
    place = math.ceil(share * rows.alpha * (RESAMPLED + 1)) - 1
    critical = max(dunnett, float(maxima[-max(place, 1)]))
    tests = {}
    for i, (name, gap, n) in enumerate(zip(rows.names, rows.gaps, rows.counts, strict=True)):
        of_two = sd * math.sqrt(1 / n + 1 / rows.first)
        t = abs(gap) / of_two
        resampled = (1 + int((maxima >= t).sum())) / (RESAMPLED + 1) / share
        p = min(1.0, max(exceedance(t, rows.family, rows.first, df), resampled))
        error, own_df = _own_spread(rows, i)
        alone = float(2 * stats.t.sf(abs(gap) / error, own_df)) if error > 0 else None
        half = critical * of_two
        # Made-up studies give any row's scatter to any number of seeds: too little is asked of one
        # with few seeds that scatter most, such as one of which some diverged, or any beside a
        # baseline that has more.
        own = _own_test(rows, i) if _scatters_more_with_fewer_seeds(rows, i) else None
        if own is not None and own.half is not None and own.p is not None:
            half, p = max(half, own.half), max(p, own.p)
        tests[name] = Test(gap, (n, rows.first), half, p, alone)
    return Judged(
        *("uneven", tests, rows.refused, sd, df, critical, critical / dunnett, p_even),
        *(rows.seeds, len(rows.family)),
    )


def _scatters_more_with_fewer_seeds(rows: _Rows, row: int) -> bool:
    n = rows.counts[row]
    return n < max(rows.layout.counts) and float(np.std(rows.values[row + 1, :n], ddof=1)) > rows.sd


def _own_spread(rows: _Rows, row: int) -> tuple[float, float]:
    """Return the standard error of a difference by the two rows' own spreads, and its df."""
    ours, theirs = rows.values[row + 1, : rows.counts[row]], rows.values[0, : rows.first]
    if rows.layout.blocks:
        return float(stats.sem(ours - theirs)), float(ours.size - 1)
    parts = [float(np.var(one, ddof=1)) / one.size for one in (ours, theirs)]
    total = sum(parts)
    if total == 0:
        return 0.0, 1.0
    dfs = [part**2 / (one.size - 1) for part, one in zip(parts, (ours, theirs), strict=True)]
    return math.sqrt(total), total**2 / sum(dfs)
