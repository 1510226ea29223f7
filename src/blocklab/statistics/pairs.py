"""Every row of a study against every other: which of two is shown to be better.

Tukey's test with the spread of all rows, as Kramer extended it to rows of different numbers of
seeds (Biometrics 12, 1956): its intervals hold for all pairs at once. Where the guard finds spreads
uneven, the critical value is that of studies made of this one's residuals, and from five seeds a
row on Welch's test with Bonferroni's correction for all pairs must bear a difference out.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import special, stats
from scipy.optimize import brentq

from blocklab.statistics.contrasts import Pool
from blocklab.statistics.dunnett import spread_points
from blocklab.statistics.judging import FEWEST_FOR_WELCH, FEWEST_SEEDS, FEWEST_WHERE_UNEVEN
from blocklab.statistics.spread import RESAMPLED, Array, Layout, as_array, null_ranges
from blocklab.statistics.summary import ALPHA

_POINTS, _REACH = 241, 10.0  # of the largest mean, and its SDs


@dataclass(frozen=True)
class Pairs:
    """Simultaneous intervals of the differences of all pairs of rows.

    Attributes:
        place: where a row stands in the arrays; rows of too few seeds have none.
        low: of row i minus row j, at [i, j]; `high` is minus its transpose.
    """

    place: Mapping[str, int]
    low: Array

    def interval(self, row: str, other: str) -> tuple[float, float] | None:
        """Return the interval of one row's mean minus another's; None where one has none."""
        if row not in self.place or other not in self.place:
            return None
        i, j = self.place[row], self.place[other]
        return float(self.low[i, j]), -float(self.low[j, i])


def all_pairs(pool: Pool, alpha: float = ALPHA) -> Pairs:
    """Return intervals of all pairs' differences; of no row where no spread was seen.

    At an `alpha` of 0, as before a study's first look, there are none either.
    """
    fewest = FEWEST_SEEDS if pool.even else FEWEST_WHERE_UNEVEN
    rows = {row: list(v.values()) for row, v in pool.values.items() if len(v) >= fewest}
    if len(rows) < 2 or not pool.sd or not alpha:
        return Pairs({}, np.zeros((0, 0)))
    counts = np.array([len(seeds) for seeds in rows.values()], dtype=float)
    means = np.array([math.fsum(seeds) / len(seeds) for seeds in rows.values()])
    scale = np.sqrt(1 / counts[:, None] + 1 / counts)
    critical = _tukey(alpha, len(rows), pool.df)
    half = critical * pool.sd * scale
    if not pool.even:
        layout, values = (
            Layout(tuple(map(len, rows.values())), pool.paired),
            as_array(list(rows.values())),
        )
        half = _uneven_half(layout, values, scale, alpha)
    low = means[:, None] - means - half
    return Pairs({row: i for i, row in enumerate(rows)}, low)


@lru_cache(maxsize=256)
def _tukey(alpha: float, rows: int, df: float) -> float:
    """Return the t that the largest of all pairs' |t| passes with probability `alpha`.

    SciPy's `studentized_range` takes seconds for forty rows and minutes for thousands.
    """
    one, all_of_them = (float(stats.t.isf(alpha / 2 / m, df)) for m in (1, rows * (rows - 1) / 2))
    if rows == 2:
        return one

    def missing(t: float) -> float:
        return _coverage(t * math.sqrt(2), rows, df) - (1 - alpha)

    root: Any = brentq(missing, one * 0.999, all_of_them * 1.001, xtol=1e-9)
    return float(root)


def _coverage(q: float, rows: int, df: float) -> float:
    """Return how often the range of so many normal means is below q of their estimated spreads."""
    s, weights = spread_points(df)
    z, step = np.linspace(-_REACH, _REACH, _POINTS, retstep=True)  # the largest of them
    below = special.ndtr(z)[:, None] - special.ndtr(z[:, None] - q * s)
    density = rows * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * step
    return float(density @ below ** (rows - 1) @ weights)


def _uneven_half(layout: Layout, values: Array, scale: Array, alpha: float) -> Array:
    rows = len(layout.counts)
    left = layout.residuals(values)
    sd = math.sqrt(float((left**2).sum()) / layout.df)
    place = math.ceil(alpha * (RESAMPLED + 1)) - 1
    made = float(null_ranges(layout, values)[-max(place, 1)])
    half = max(made, _tukey(alpha, rows, layout.df)) * sd * scale
    counts = np.asarray(layout.counts, dtype=float)
    if counts.min() < FEWEST_FOR_WELCH:
        return half
    if layout.blocks:
        df: Array | float = counts[0] - 1
        squares = (left**2).sum(-1)
        own = squares[:, None] + squares - 2 * left @ left.T
        error = np.sqrt(np.maximum(own, 0) / (counts[0] - 1) / counts[0])
    else:
        parts = (left**2).sum(-1) / (counts - 1) / counts
        total = parts[:, None] + parts
        of_each = parts**2 / (counts - 1)
        bottom = of_each[:, None] + of_each
        df = np.divide(total**2, bottom, out=np.ones_like(total), where=bottom > 0)
        error = np.sqrt(total)
    return np.maximum(half, stats.t.isf(alpha / (rows * (rows - 1)), df) * error)
