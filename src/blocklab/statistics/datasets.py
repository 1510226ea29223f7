"""Several data sets, one statement: differences with data sets as blocks, how many, and ranks.

Everything starts from a row's mean, SD and number of seeds on each data set. Data sets differ in
how hard they are and in how far seeds scatter, so no spread is shared between them, nor between
rows: a difference's variance is the sum of its parts' $s^2 / n$, with Satterthwaite's degrees of
freedom (Biometrics Bulletin 2, 1946).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from blocklab.statistics.summary import ALPHA

FEWEST_SEEDS = 2  # a row's own spread needs two
FEWEST_TO_SAMPLE = 3  # data sets, for an interval over others of their kind
FEWEST_TO_RANK = 3  # rows: two have a difference, which says more
_ROUNDING = 1e-9  # of differences of percentages: studies of data sets are of accuracies


@dataclass(frozen=True)
class Cell:
    """A row on a data set: its mean and sample SD over `n` seeds; `sd` is None of one."""

    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True)
class Gap:
    """A difference (or any weighted sum of means), its standard error and degrees of freedom.

    `error` is None where some part has one seed, which has no spread, and 0 where no spread was
    seen; `df` is None in both cases, and so is what a test would say. `same` is of rows that are
    one function, whose difference is 0 without a test.
    """

    mean: float
    error: float | None = None
    df: float | None = None
    same: bool = False

    def p_against(self, value: float) -> float | None:
        """Two-sided p of the difference being this one."""
        if not self.error or self.df is None:
            return None
        return float(2 * stats.t.sf(abs(self.mean - value) / self.error, self.df))

    def p_within(self, margin: float) -> float | None:
        """P of two one-sided tests that put the difference inside ± `margin`."""
        if not self.error or self.df is None:
            return None
        return float(stats.t.sf((margin - abs(self.mean)) / self.error, self.df))

    def interval(self, alpha: float = ALPHA) -> tuple[float, float] | None:
        """The interval that misses the difference once in 1 / `alpha`."""
        if not self.error or self.df is None:
            return None
        half = float(stats.t.isf(alpha / 2, self.df)) * self.error
        return self.mean - half, self.mean + half


def weighted_gap(weights: Mapping[str, float], cells: Mapping[str, Cell]) -> Gap | None:
    """Return the sum of rows' means times these weights, on one data set; None if a row has none.

    Rows are taken to be independent. Where they share a seed's images, which correlates them, the
    error is rather too large than too small.
    """
    if not weights.keys() <= cells.keys():
        return None
    mean = math.fsum(weight * cells[row].mean for row, weight in weights.items())
    parts = [(weight, cells[row].sd, cells[row].n) for row, weight in weights.items()]
    known = [(w, sd, n) for w, sd, n in parts if sd is not None and n >= FEWEST_SEEDS]
    if len(known) < len(parts):
        return Gap(mean)
    return _with_error(mean, [(w * w * sd * sd / n, n - 1) for w, sd, n in known])


def mean_gap(gaps: Sequence[Gap]) -> Gap:
    """Return the mean of a difference over data sets, each a block of the same weight.

    It is about these data sets: training again on them would change it by its error.

    Raises:
        ValueError: if there are none.
    """
    if not gaps:
        raise ValueError("no data sets to average over")
    count = len(gaps)
    if all(gap.same for gap in gaps):
        return gaps[0]
    mean = math.fsum(gap.mean for gap in gaps) / count
    # Where no spread was seen, the others' is all that there is.
    known = [(gap.error**2 / count**2, gap.df or 1.0) for gap in gaps if gap.error is not None]
    return _with_error(mean, known) if len(known) == count else Gap(mean)


def sampled_gap(gaps: Sequence[Gap]) -> Gap | None:
    """Return the same mean as of a sample of data sets: what others of their kind would show.

    Student's t of the data sets' differences, which takes them to be drawn from one normal
    population; that of seeds is part of what they scatter by. None of fewer than three.
    """
    if len(gaps) < FEWEST_TO_SAMPLE:
        return None
    means = np.array([gap.mean for gap in gaps])
    spread = float(means.std(ddof=1))
    if spread <= _ROUNDING:
        return Gap(float(means.mean()), 0.0)
    return Gap(float(means.mean()), spread / math.sqrt(len(gaps)), len(gaps) - 1)


def _with_error(mean: float, parts: Sequence[tuple[float, float]]) -> Gap:
    """Add up variances, each with its degrees of freedom, by Satterthwaite's rule."""
    variance = math.fsum(part for part, _ in parts)
    error = math.sqrt(variance)
    if error <= _ROUNDING:
        return Gap(mean, 0.0)
    df = variance**2 / math.fsum(part**2 / df for part, df in parts)
    return Gap(mean, error, df)


def at_least(p_values: Sequence[float], least: int) -> float:
    """Return p that what each p is about holds on at least `least` of the data sets.

    The partial conjunction test with Bonferroni's bound (Benjamini and Heller, Biometrics 64,
    2008, eq. 4): (D - least + 1) times the `least`-th smallest of D. With `least` = D it is the
    largest p (all of them: an intersection-union test), with 1 Bonferroni's smallest. It assumes
    nothing of how the data sets depend on each other.
    """
    count = len(p_values)
    if not 1 <= least <= count:
        raise ValueError(f"at least {least} of {count} data sets")
    return min(1.0, (count - least + 1) * sorted(p_values)[least - 1])


@dataclass(frozen=True)
class Ranks:
    """Rows by their mean rank over data sets, from the best (1) on.

    Attributes:
        rows: mean rank of each row, best first; ties share the mean of their ranks.
        p: Friedman's (chi-squared with ties; JASA 32, 1937), of no row ranking above another.
        critical: Nemenyi's critical difference: two rows whose mean ranks are less apart are not
            shown to differ (Demsar, JMLR 7, 2006, section 3.2.2).
        groups: longest runs of rows of which none is shown to differ from another.
        datasets: how many there are.
    """

    rows: Mapping[str, float]
    p: float
    critical: float
    groups: tuple[tuple[str, ...], ...]
    datasets: int


def rank_rows(
    means: Sequence[Mapping[str, float]], higher_is_better: bool = True, alpha: float = ALPHA
) -> Ranks | None:
    """Rank rows on each data set by their means, over the rows that all data sets have.

    Seeds of one data set are no blocks of their own: its mean over seeds counts once. None of fewer
    than two data sets or three rows.
    """
    shared = [row for row in means[0] if all(row in one for one in means)] if means else []
    blocks, rows = len(means), len(shared)
    if blocks < 2 or rows < FEWEST_TO_RANK:
        return None
    table = np.array([[one[row] for row in shared] for one in means])  # (data sets, rows)
    ranks = stats.rankdata(-table if higher_is_better else table, axis=1)
    mean_ranks = ranks.mean(0)
    ties = all(len(set(line)) == 1 for line in table.tolist())
    p = 1.0 if ties else float(stats.friedmanchisquare(*table.T)[1])
    quantile = float(stats.studentized_range.isf(alpha, rows, np.inf)) / math.sqrt(2)
    critical = quantile * math.sqrt(rows * (rows + 1) / (6 * blocks))
    order = np.argsort(mean_ranks, kind="stable")
    named = {shared[i]: float(mean_ranks[i]) for i in order}
    return Ranks(named, p, critical, _groups(named, critical), blocks)


def _groups(ranks: Mapping[str, float], critical: float) -> tuple[tuple[str, ...], ...]:
    names, places = list(ranks), list(ranks.values())
    found: list[tuple[int, int]] = []
    for first in range(len(names)):
        last = max(i for i in range(len(names)) if places[i] - places[first] < critical)
        if last > first and not (found and found[-1][1] >= last):
            found.append((first, last))
    return tuple(tuple(names[a : b + 1]) for a, b in found)
