"""How many seeds show a gain, before they are trained."""

import math
from dataclasses import dataclass

from scipy import stats

from blocklab.statistics.dunnett import critical_value
from blocklab.statistics.family import Family
from blocklab.statistics.judging import FEWEST_FOR_WELCH, FEWEST_SEEDS
from blocklab.statistics.summary import ALPHA, is_rounding

POWER = 0.8
GAIN = 0.5  # points of accuracy that `seeds needed` is about
MOST_SEEDS = 10_000  # more are as good as out of reach


@dataclass(frozen=True)
class Planning:
    """What the spread of a study says about how many seeds a row the next one needs."""

    sd: float  # of one run
    df: int
    rows: int
    stretch: float  # of the critical value; see `power`
    seeds_alone: int | None  # for one row and its baseline
    seeds_among_all: int | None


def power(
    sd: float,
    gain: float,
    seeds: int,
    rows: int = 1,
    alpha: float = ALPHA,
    stretch: float = 1.0,
    paired: bool = False,
) -> float:
    """Return how probably a study shows a row's gain, with `seeds` for each of the rows.

    By Dunnett's test; where the spreads that are known are uneven, by `stretch` times its critical
    value or, from five seeds on, by Welch's of two rows, whichever asks for less: the stretch of a
    few seeds is mostly what so few say of a row's own spread, which more seeds say.

    Args:
        sd: of one run.
        gain: the true difference of the row and the baseline, in the units of `sd`.
        seeds: of every row, the baseline's too.
        rows: how many are compared with the baseline, whose spread is pooled with theirs.
        alpha: of the whole family.
        stretch: by how much a study's critical value is beyond Dunnett's; see `Family`.
        paired: whether the study takes seeds as blocks, which cost it a mean a seed.
    """
    df = (rows if paired else rows + 1) * (seeds - 1)
    critical = stretch * critical_value(alpha, (seeds,) * rows, seeds, df)
    if stretch > 1 and seeds >= FEWEST_FOR_WELCH:
        of_two = (1 if paired else 2) * (seeds - 1)
        own = float(stats.t.isf(alpha / 2 / rows, of_two))
        if own < critical:
            critical, df = own, of_two
    return _power(sd, gain, seeds, df, critical)


def seeds_needed(
    sd: float,
    gain: float = GAIN,
    wanted: float = POWER,
    rows: int = 1,
    alpha: float = ALPHA,
    stretch: float = 1.0,
    paired: bool = False,
) -> int | None:
    """Return how many seeds a row show `gain` with a power of `wanted`; None beyond 10,000."""
    if is_rounding(sd, gain):
        return FEWEST_SEEDS

    def shows(seeds: int) -> bool:
        return power(sd, gain, seeds, rows, alpha, stretch, paired) >= wanted

    high = FEWEST_SEEDS
    while not shows(high):
        if high >= MOST_SEEDS:
            return None
        high = min(2 * high, MOST_SEEDS)
    low = high // 2  # does not show it, or is 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shows(middle) else (middle, high)
    return high


def plan_seeds(family: Family, gain: float = GAIN) -> Planning | None:
    """Say what a study's own spread asks for to show `gain`; None where nothing was tested."""
    if family.sd is None or family.critical is None:
        return None
    one, all_rows = (
        seeds_needed(family.sd, gain, rows=rows, stretch=family.stretch, paired=family.paired)
        for rows in (1, family.rows)
    )
    return Planning(family.sd, family.df, family.rows, family.stretch, one, all_rows)


def _power(sd: float, gain: float, seeds: int, df: float, critical: float) -> float:
    shift = gain / (sd * math.sqrt(2 / seeds))
    # The far tail, in the wrong direction, is left out: there it would not show the gain.
    shown = float(stats.nct.sf(critical, df, shift))
    # SciPy's noncentral t fails far out, where the normal distribution is as good.
    return shown if math.isfinite(shown) else float(stats.norm.sf(critical - shift))
