r"""Sums of rows' means, each times a weight: what claims of two rows, or of gains, are about.

With weights :math:`w_i` that add up to 0, rows' means of :math:`n_i` seeds, and one spread s of all
rows, :math:`\sum w_i \bar x_i` has the standard error :math:`s \sqrt{\sum w_i^2 / n_i}` and the
degrees of freedom of s. Where the guard of `blocklab.statistics.spread` finds spreads uneven, each
row's own is taken, with Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from blocklab.statistics.judging import FEWEST_SEEDS, FEWEST_WHERE_UNEVEN, spreads_are_even
from blocklab.statistics.spread import Layout, as_array, pooled_variance, unevenness_p
from blocklab.statistics.summary import ALPHA, finite, is_rounding


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of rows' means, with what it may err by.

    Attributes:
        mean: the sum.
        seeds: how many each of its rows has, in the order of the weights.
        error: its standard error; None where `refusal` says why there is none, 0 of no spread.
        df: degrees of freedom of `error`.
        own: whether the rows' own spreads were taken, as those of the study differ.
        refusal: why nothing can be tested.
    """

    mean: float
    seeds: tuple[int, ...]
    error: float | None = None
    df: float = 0.0
    own: bool = False
    refusal: str = ""

    def interval(self, alpha: float = ALPHA) -> tuple[float, float] | None:
        """Return Student's interval, of this contrast alone; None where there is no spread."""
        if not self.error:
            return None
        half = float(stats.t.isf(alpha / 2, self.df)) * self.error
        return self.mean - half, self.mean + half

    def p_against(self, value: float) -> float:
        """Return the two-sided p of its being `value`; 1 where no spread was seen."""
        if not self.error:
            return 1.0
        return float(2 * stats.t.sf(abs(self.mean - value) / self.error, self.df))

    def p_within(self, margin: float) -> float:
        """Return p of two one-sided tests for its lying between -margin and margin.

        Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15, 1987.
        """
        if not self.error:
            return 1.0
        return float(stats.t.sf((margin - abs(self.mean)) / self.error, self.df))


@dataclass(frozen=True)
class Pool:
    """The rows of a study by one metric, and what one run varies by.

    Attributes:
        values: of each row, by seed; of a study that is paired, the seeds that all rows of two or
            more have.
        paired: whether what a seed does to every row is taken out.
        even: whether rows share a spread.
        sd: of one run, pooled; None where no row has two seeds.
        df: its degrees of freedom.
    """

    values: Mapping[str, Mapping[int, float]]
    paired: bool
    even: bool = True
    sd: float | None = None
    df: int = 0

    def contrast(self, weights: Mapping[str, float]) -> Contrast | None:
        """Return the sum of rows' means times these weights, which add up to 0.

        None where one of the rows has no value.
        """
        figures = {row: tuple(self.values.get(row, {}).values()) for row in weights}
        if not all(figures.values()):
            return None
        seeds = tuple(map(len, figures.values()))
        mean = math.fsum(
            weight * math.fsum(figures[row]) / len(figures[row]) for row, weight in weights.items()
        )
        if few := [row for row in weights if len(figures[row]) < FEWEST_SEEDS]:
            shared = ", of those that all rows have," if self.paired else ""
            return Contrast(mean, seeds, refusal=f"one seed of {few[0]}{shared} shows no spread")
        if self.sd is None or self.even:
            error = (self.sd or 0.0) * math.sqrt(
                math.fsum(w**2 / n for w, n in zip(weights.values(), seeds, strict=True))
            )
            return Contrast(mean, seeds, error, self.df)
        if min(seeds) < FEWEST_WHERE_UNEVEN:
            few_of_each = "the rows' spreads differ, and two seeds say too little of each"
            return Contrast(mean, seeds, own=True, refusal=few_of_each)
        error, df = _own_error(list(zip(weights.values(), figures.values(), strict=True)), self)
        return Contrast(mean, seeds, error, df, own=True)


def pool_rows(values: Mapping[str, Mapping[int, float]], *, paired: bool = False) -> Pool:
    """Pool what rows vary by, and see whether they may share it.

    Args:
        values: a figure of each row, by seed. Rows that never learned, and twins of other rows,
            which say nothing of their own, are to be left out.
        paired: take out what a seed does to every row, over the seeds that all rows have; a row of
            one seed, which no test is of, takes none from the others.

    Raises:
        ValueError: if a value is not a finite number.
    """
    usable = {row: dict(sorted(by_seed.items())) for row, by_seed in values.items() if by_seed}
    for by_seed in usable.values():
        finite(list(by_seed.values()))
    if paired and usable:
        blocks = [set(of_row) for of_row in usable.values() if len(of_row) >= FEWEST_SEEDS]
        shared = sorted(set.intersection(*(blocks or map(set, usable.values()))))
        usable = {
            row: {seed: by_seed[seed] for seed in shared if seed in by_seed}
            for row, by_seed in usable.items()
        }
    several = [list(by_seed.values()) for by_seed in usable.values() if len(by_seed) > 1]
    if not several or (paired and len(several) < 2):
        return Pool(usable, paired)
    layout = Layout(tuple(map(len, several)), paired)
    array = as_array(several)
    sd = math.sqrt(pooled_variance(layout, array))
    if is_rounding(sd, array):
        return Pool(usable, paired, True, 0.0, layout.df)
    even = spreads_are_even(unevenness_p(layout, array), min(layout.counts), paired)
    return Pool(usable, paired, even, sd, layout.df)


def _own_error(parts: list[tuple[float, tuple[float, ...]]], pool: Pool) -> tuple[float, float]:
    """Return a contrast's standard error by its rows' own spreads, and its degrees of freedom."""
    if pool.paired:
        sums = np.sum([weight * np.asarray(figures) for weight, figures in parts], axis=0)
        error, df = float(stats.sem(sums)), len(sums) - 1.0
    else:
        squares = [weight**2 * np.var(figures, ddof=1) / len(figures) for weight, figures in parts]
        error = math.sqrt(math.fsum(squares))
        of_each = [s**2 / (len(f) - 1) for s, (_, f) in zip(squares, parts, strict=True)]
        df = error**4 / math.fsum(of_each) if error else 1.0
    largest = [max(map(abs, figures)) for _, figures in parts]
    return (0.0 if is_rounding(error, largest) else error), df
