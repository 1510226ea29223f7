"""Means over seeds, with the interval that a few seeds allow.

Student's t throughout: over three to ten seeds a bootstrap interval that says 95 % covers
77 to 88 %. A comparison is paired by seed, since two rows share a seed's order of images.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

# Accuracies are percentages of counted images, so a spread below this is rounding, not variation.
SPREAD_OF_ROUNDING = 1e-9


@dataclass(frozen=True)
class Summary:
    """One figure over seeds. `sd`, `low` and `high` are None where there is one seed."""

    values: tuple[float, ...]
    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def n(self) -> int:
        """How many seeds."""
        return len(self.values)


@dataclass(frozen=True)
class Difference:
    """A row minus its baseline over the seeds that both have.

    `low` and `high` are None where they share one seed; `p` (of the paired t test, not corrected
    for the number of rows) also where every seed shows the same difference.
    """

    values: tuple[float, ...]
    mean: float
    low: float | None = None
    high: float | None = None
    p: float | None = None

    @property
    def n(self) -> int:
        """How many seeds both have."""
        return len(self.values)


def summarise(values: Sequence[float], confidence: float = 0.95) -> Summary:
    """Return the mean, the sample SD and Student's t interval of `values`.

    Raises:
        ValueError: if there are no values, or one of them is not a finite number.
    """
    values = _finite(values)
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Summary(values, mean)
    if _all_equal(values):
        return Summary(values, mean, sd=0.0, low=mean, high=mean)
    sd = float(np.std(values, ddof=1))
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * sd / math.sqrt(len(values))
    return Summary(values, mean, sd, mean - half, mean + half)


def paired_difference(
    values_by_seed: Mapping[int, float],
    baseline_by_seed: Mapping[int, float],
    confidence: float = 0.95,
) -> Difference | None:
    """Return the mean difference over the seeds that both have; None if they share none.

    Raises:
        ValueError: if a value is not a finite number.
    """
    seeds = sorted(values_by_seed.keys() & baseline_by_seed.keys())
    if not seeds:
        return None
    ours = _finite([values_by_seed[seed] for seed in seeds])
    theirs = _finite([baseline_by_seed[seed] for seed in seeds])
    gaps = tuple(mine - other for mine, other in zip(ours, theirs, strict=True))
    over_seeds = summarise(gaps, confidence)
    if over_seeds.sd is None or over_seeds.sd == 0:  # one seed, or nothing for a test to divide by
        return Difference(gaps, over_seeds.mean, over_seeds.low, over_seeds.high)
    p = float(np.asarray(stats.ttest_rel(ours, theirs))[1])
    return Difference(gaps, over_seeds.mean, over_seeds.low, over_seeds.high, p)


def _finite(values: Sequence[float]) -> tuple[float, ...]:
    if not values:
        raise ValueError("no values to summarise; pass one a finished seed")
    checked = tuple(float(value) for value in values)
    for value in checked:
        if not math.isfinite(value):
            raise ValueError(f"cannot average {value}; leave diverged runs out")
    return checked


def _all_equal(values: Sequence[float]) -> bool:
    return max(values) - min(values) <= SPREAD_OF_ROUNDING
