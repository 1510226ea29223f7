"""Differences of two rows, seed by seed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from blocklab.statistics.summary import UNBOUNDED, finite, summarise


@dataclass(frozen=True)
class PairedDifference:
    """One figure minus another over the seeds that both have.

    `low`, `high` and `p` (of the paired t test) are None where they share one seed, and where
    every seed shows the same difference.
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


def paired_difference(
    values_by_seed: Mapping[int, float],
    others_by_seed: Mapping[int, float],
    confidence: float = 0.95,
    bounds: tuple[float, float] = UNBOUNDED,
) -> PairedDifference | None:
    """Return the mean difference over the seeds that both have; None if they share none.

    Its interval is cut at `bounds`.

    Raises:
        ValueError: if a value is not a finite number.
    """
    seeds = sorted(values_by_seed.keys() & others_by_seed.keys())
    if not seeds:
        return None
    ours = finite([values_by_seed[seed] for seed in seeds])
    theirs = finite([others_by_seed[seed] for seed in seeds])
    gaps = tuple(mine - other for mine, other in zip(ours, theirs, strict=True))
    over_seeds = summarise(gaps, confidence, bounds)
    if over_seeds.sd is None or over_seeds.sd == 0:  # one seed, or nothing for a test to divide by
        return PairedDifference(gaps, over_seeds.mean)
    p = float(np.asarray(stats.ttest_rel(ours, theirs))[1])
    return PairedDifference(gaps, over_seeds.mean, over_seeds.low, over_seeds.high, p)
