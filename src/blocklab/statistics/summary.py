"""One figure over seeds: its mean, its spread, and the interval that a few seeds allow.

Student's t throughout: over three to ten seeds a bootstrap interval that says 95 % covers
77 to 88 %.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from statsmodels.stats.multitest import multipletests

ALPHA = 0.05  # how often a study without any difference may say "better" or "worse" of some row

_ROUNDING = 1e-11  # of the largest figure: what sums and means of it may be off by
PERCENT, POINTS = (0.0, 100.0), (-100.0, 100.0)  # what an accuracy, or a difference of two, can be
UNBOUNDED = (-math.inf, math.inf)


@dataclass(frozen=True)
class Summary:
    """One figure over seeds. `sd` is None where there is one seed.

    `low` and `high` are None there too, and where all values are one: they show no spread, from
    which nothing follows about the next. An end at what the figure cannot pass was cut there.
    """

    values: tuple[float, ...]
    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def n(self) -> int:
        """How many seeds."""
        return len(self.values)

    @property
    def median(self) -> float:
        """The middle value, or the mean of the middle two."""
        return float(np.median(self.values))


def summarise(
    values: Sequence[float],
    confidence: float = 0.95,
    bounds: tuple[float, float] = UNBOUNDED,
) -> Summary:
    """Return the mean, the sample SD and Student's t interval of `values`, cut at `bounds`.

    Student's t knows no bounds, and of few seeds reaches past 100 %, where no mean can lie: what
    is cut there costs the interval no coverage.

    Raises:
        ValueError: if there are no values, or one of them is not a finite number.
    """
    values = finite(values)
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Summary(values, mean)
    if all_equal(values):
        return Summary(values, mean, sd=0.0)
    sd = float(np.std(values, ddof=1))
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * sd / math.sqrt(len(values))
    return Summary(values, mean, sd, max(mean - half, bounds[0]), min(mean + half, bounds[1]))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected by Holm for their number."""
    if not p_values:
        return []
    return np.asarray(multipletests(p_values, alpha=ALPHA, method="holm")[1]).tolist()


def finite(values: Sequence[float]) -> tuple[float, ...]:
    """Return values that can be averaged.

    Raises:
        ValueError: if there are none, or one of them is not a finite number.
    """
    if not values:
        raise ValueError("no values to summarise; pass one a finished seed")
    checked = tuple(float(value) for value in values)
    for value in checked:
        if not math.isfinite(value):
            raise ValueError(f"cannot average {value}; leave diverged runs out")
    return checked


def is_rounding(spread: float, figures: ArrayLike) -> bool:
    """Whether a spread of figures is what rounding leaves, and no variation; of any unit."""
    return spread <= _ROUNDING * float(np.abs(figures).max(initial=0.0))


def all_equal(values: Sequence[float]) -> bool:
    """Whether values differ by no more than rounding does."""
    return is_rounding(max(values) - min(values), values)
