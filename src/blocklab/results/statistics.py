"""Means over seeds, with the interval that a few seeds allow, and one word for each comparison.

Student's t throughout: over three to ten seeds a bootstrap interval that says 95 % covers
77 to 88 %. A comparison is paired by seed, since two rows share a seed's order of images. What
this module says is about training again from other seeds; other test images are the business of
`blocklab.results.image_intervals`.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

ALPHA = 0.05  # how often a study without any difference may say "better" or "worse" of some row
POWER = 0.8
GAIN = 0.5  # points of accuracy that `seeds needed` is about
FEWEST_SEEDS = 2  # a spread needs two differences; with one there is nothing to test
FEWEST_FOR_SIGN_FLIPS = 6  # of n seeds, the smallest p is 2 / 2^n: 0.0625 of five, 0.03 of six
MOST_SEEDS = 10_000  # more are as good as out of reach

BETTER, WORSE = "better", "worse"
NOT_SHOWN, TOO_FEW = "no difference shown", "too few seeds"
AT_CHANCE = "at chance"  # it never learned: nothing to test
BASELINE_AT_CHANCE = "baseline at chance"  # which never learned: nothing to compare with
SAME = "identical function"  # not of a test: see `StudyResults.identical`

# Accuracies are percentages of counted images, so a spread below this is rounding, not variation.
SPREAD_OF_ROUNDING = 1e-9
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


@dataclass(frozen=True)
class Difference:
    """A row minus its baseline over the seeds that both have.

    `low`, `high` and `p` (of the paired t test, not corrected for the number of rows) are None
    where they share one seed, and where every seed shows the same difference.
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

    @property
    def sd(self) -> float | None:
        """Sample SD of the differences; None of one."""
        return float(np.std(self.values, ddof=1)) if self.n > 1 else None


@dataclass(frozen=True)
class Comparison:
    """What a study says of one row against its baseline.

    `word` is one of `better`, `worse`, `no difference shown`, `too few seeds`, `at chance`,
    `baseline at chance` and `identical function`; `reason` says what a reader cannot see from the
    numbers. `p_holm` is corrected for the `rows` tested together, this one included; None where it
    was not tested.
    """

    word: str
    reason: str = ""
    difference: Difference | None = None
    p_holm: float | None = None
    rows: int = 0

    @cached_property
    def p_sign_flip(self) -> float | None:
        """The p that does not assume normal differences; None below six seeds."""
        return sign_flip_p(self.difference.values) if self.difference else None

    @cached_property
    def seeds_alone(self) -> int | None:
        """Seeds that show 0.5 points at 80 % power if the SD seen is right; None: no SD, too many.

        One value seen again and again says nothing about the spread of the next, so it has none.
        """
        return self._seeds(ALPHA)

    @cached_property
    def seeds_among_all(self) -> int | None:
        """The same in the worst case of Holm's correction for all rows."""
        return self._seeds(ALPHA / max(self.rows, 1))

    def _seeds(self, alpha: float) -> int | None:
        gap = self.difference
        if self.p_holm is None or gap is None or gap.p is None or gap.sd is None:
            return None
        return seeds_needed(gap.sd, alpha=alpha)


@dataclass(frozen=True)
class Planning:
    """What the differences of a whole study say about how many seeds the next one needs.

    `sd` is pooled over the rows' paired differences, with `df` degrees of freedom; `rows` of them
    are tested together.
    """

    sd: float
    df: int
    rows: int
    seeds_alone: int | None
    seeds_among_all: int | None


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
    values = _finite(values)
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Summary(values, mean)
    if _all_equal(values):
        return Summary(values, mean, sd=0.0)
    sd = float(np.std(values, ddof=1))
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * sd / math.sqrt(len(values))
    return Summary(values, mean, sd, max(mean - half, bounds[0]), min(mean + half, bounds[1]))


def paired_difference(
    values_by_seed: Mapping[int, float],
    baseline_by_seed: Mapping[int, float],
    confidence: float = 0.95,
    bounds: tuple[float, float] = UNBOUNDED,
) -> Difference | None:
    """Return the mean difference over the seeds that both have; None if they share none.

    Its interval is cut at `bounds`.

    Raises:
        ValueError: if a value is not a finite number.
    """
    seeds = sorted(values_by_seed.keys() & baseline_by_seed.keys())
    if not seeds:
        return None
    ours = _finite([values_by_seed[seed] for seed in seeds])
    theirs = _finite([baseline_by_seed[seed] for seed in seeds])
    gaps = tuple(mine - other for mine, other in zip(ours, theirs, strict=True))
    over_seeds = summarise(gaps, confidence, bounds)
    if over_seeds.sd is None or over_seeds.sd == 0:  # one seed, or nothing for a test to divide by
        return Difference(gaps, over_seeds.mean)
    p = float(np.asarray(stats.ttest_rel(ours, theirs))[1])
    return Difference(gaps, over_seeds.mean, over_seeds.low, over_seeds.high, p)


def compare(
    differences: Mapping[str, Difference | None],
    identical: Collection[str] = (),
    at_chance: Collection[str] = (),
    baseline_at_chance: bool = False,
) -> dict[str, Comparison]:
    """Return a verdict a row, from the rows' differences to their baseline.

    A row is better or worse where Holm's p, over all rows that can be tested, is below 0.05.
    Rows in `identical` compute the baseline's function, and those `at_chance` never learned: they
    are named so, not tested. Nor is any where the baseline never learned.
    """
    untested = {*identical, *at_chance, *(differences if baseline_at_chance else ())}
    tested = {
        row: gap
        for row, gap in differences.items()
        if gap is not None and gap.n >= FEWEST_SEEDS and row not in untested
    }
    # A row without spread has no p. As 1 it still counts as one of the rows that were looked at.
    p_values = [1.0 if gap.p is None else gap.p for gap in tested.values()]
    adjusted = dict(zip(tested, holm(p_values), strict=True))
    found = {}
    for row, gap in differences.items():
        if row in at_chance:
            reason = "no better on its own training images than the commonest class"
            found[row] = Comparison(AT_CHANCE, reason, gap)
        elif row in identical:
            found[row] = Comparison(SAME, "same bits on every seed", gap)
        elif gap is None:
            found[row] = Comparison(TOO_FEW, "shares no finished seed with the baseline")
        elif baseline_at_chance:
            found[row] = Comparison(BASELINE_AT_CHANCE, "the baseline never learned", gap)
        elif row not in tested:
            reason = "one shared seed has no spread to test against"
            found[row] = Comparison(TOO_FEW, reason, gap)
        else:
            found[row] = _tested(gap, adjusted[row], len(tested))
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected by Holm for their number."""
    if not p_values:
        return []
    return np.asarray(multipletests(p_values, alpha=ALPHA, method="holm")[1]).tolist()


def sign_flip_p(values: Sequence[float]) -> float | None:
    """Return the two-sided p of the mean under flips of the values' signs; None below six values.

    Exact up to 12 values, from 9,999 random flips of a fixed seed above.
    """
    if len(values) < FEWEST_FOR_SIGN_FLIPS:
        return None
    test = stats.permutation_test(
        (np.asarray(values),),
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type="samples",
        n_resamples=4096 if len(values) <= 12 else 9999,
        rng=np.random.default_rng(0),
    )
    return float(test.pvalue)


def seeds_needed(
    sd: float, gain: float = GAIN, power: float = POWER, alpha: float = ALPHA
) -> int | None:
    """Return how many seeds show `gain` with a paired t test, where differences have this SD.

    None beyond 10,000 seeds.
    """
    if sd <= SPREAD_OF_ROUNDING:
        return FEWEST_SEEDS

    def shows(seeds: int) -> bool:
        # One side at half of alpha is the two-sided test without its rejections in the wrong
        # direction, and without the far tail for which SciPy has no number.
        reached = TTestPower().power(gain / sd, seeds, alpha / 2, alternative="larger")
        return float(reached) >= power

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


def plan_seeds(comparisons: Collection[Comparison]) -> Planning | None:
    """Pool the spread of all tested rows; None where no row has two shared seeds."""
    gaps = [one.difference for one in comparisons if one.p_holm is not None and one.difference]
    df = sum(gap.n - 1 for gap in gaps)
    if not df:
        return None
    sd = math.sqrt(math.fsum((gap.n - 1) * (gap.sd or 0.0) ** 2 for gap in gaps) / df)
    among_all = seeds_needed(sd, alpha=ALPHA / len(gaps))
    return Planning(sd, df, len(gaps), seeds_needed(sd), among_all)


def _tested(gap: Difference, p_holm: float, rows: int) -> Comparison:
    word, reason = NOT_SHOWN, ""
    if p_holm < ALPHA:
        word = BETTER if gap.mean > 0 else WORSE
    elif gap.p is None:
        reason = "each seed shows the same difference: no spread to test against"
    elif gap.p < ALPHA:
        reason = "shown alone, but not among this many rows"
    return Comparison(word, reason, gap, p_holm, rows)


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
