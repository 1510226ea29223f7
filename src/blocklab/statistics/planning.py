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
    stretch: float  # of the critical value; see `critical_to_come`
    paired: bool  # whether seeds are blocks
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

    Args:
        sd: of one run.
        gain: the true difference of the row and the baseline, in the units of `sd`.
        seeds: of every row, the baseline's too.
        rows: how many are compared with the baseline, whose spread is pooled with theirs.
        alpha: of the whole family.
        stretch: by how much a study's critical value is beyond Dunnett's; see `critical_to_come`.
        paired: whether the study takes seeds as blocks, which cost it a mean a seed.
    """
    df = (rows if paired else rows + 1) * (seeds - 1)
    critical, df = critical_to_come(alpha, rows, (seeds, seeds), df, stretch, paired)
    return _power(sd, gain, seeds, df, critical)


def critical_to_come(
    alpha: float,
    rows: int,
    seeds: tuple[int, int],
    df: float,
    stretch: float = 1.0,
    paired: bool = False,
) -> tuple[float, float]:
    """Return what |t| is to pass once there are more seeds, and its degrees of freedom.

    It is Dunnett's critical value; where the spreads that are known are uneven, `stretch` times
    that or, from five seeds on, that of Welch's test with Bonferroni's correction, whichever is
    less: the stretch of a few seeds is mostly what so few leave open of a row's own spread.

    Args:
        alpha: of all rows.
        rows: how many are tested.
        seeds: of each row, and of the baseline, by then.
        df: of the pooled spread by then.
        stretch: of the critical value so far; see `Family`.
        paired: whether seeds are blocks.
    """
    of_row, of_baseline = seeds
    critical = stretch * critical_value(alpha, (of_row,) * rows, of_baseline, df)
    if stretch > 1 and min(seeds) >= FEWEST_FOR_WELCH:
        parts = [1 / of_row, 1 / of_baseline]  # of two even spreads, as which is not known
        of_two = sum(parts) ** 2 / sum(part**2 / (1 / part - 1) for part in parts)
        own_df = of_row - 1 if paired else of_two
        own = float(stats.t.isf(alpha / 2 / rows, own_df))
        if own < critical:
            return own, own_df
    return critical, df


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
    return Planning(family.sd, family.df, family.rows, family.stretch, family.paired, one, all_rows)


def _power(sd: float, gain: float, seeds: int, df: float, critical: float) -> float:
    shift = gain / (sd * math.sqrt(2 / seeds))
    # The far tail, in the wrong direction, is left out: there it would not show the gain.
    shown = float(stats.nct.sf(critical, df, shift))
    # SciPy's noncentral t fails far out, where the normal distribution is as good.
    return shown if math.isfinite(shown) else float(stats.norm.sf(critical - shift))
