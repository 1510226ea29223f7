r"""Seeds until a study is decided: looks at rising numbers of seeds, at 5 % over all of them.

At look j, after :math:`n_j` seeds of :math:`n_J` at most, rows are compared with the baseline by
`compare_rows` at a level of that look alone, :math:`\alpha_j`, and what is decided stops. The
levels spend the study's :math:`\alpha` (Lan and DeMets, "Discrete sequential boundaries for
clinical trials", Biometrika 70, 1983), by their function that is near Pocock's boundary:

.. math:: P_0(\text{any row is called better or worse by look } j)
    = \alpha \log(1 + (e - 1)\, n_j / n_J)

The left side is of the rows' cumulative means, the baseline's that they share, and the pooled
spread, together; it is simulated, from a fixed seed. Stopping a row for another reason than a
difference only takes chances away (futility is non-binding), as does a row that truly differs.

The baseline, which stands in every comparison, gets twice a row's seeds (Dunnett 1955, section 5,
has the square root of the number of rows as the best ratio): among twelve rows the same intervals
take a fifth fewer runs.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from blocklab.statistics.dunnett import critical_value, exceedance
from blocklab.statistics.family import (
    AT_CHANCE,
    BASELINE_AT_CHANCE,
    BETTER,
    NOT_SHOWN,
    SAME,
    TOO_FEW,
    WORSE,
    Comparison,
    Difference,
    Family,
    compare_rows,
)
from blocklab.statistics.planning import critical_to_come
from blocklab.statistics.summary import ALPHA, UNBOUNDED

Array = NDArray[np.float64]

FUTILE = "futile"  # not shown, and the seeds that are left would hardly show it
FUTILE_BELOW = 0.1  # the probability that the last look shows a difference
_AS_GOOD = "as good"  # a margin's word
ENDED = frozenset({_AS_GOOD, BETTER, WORSE, FUTILE, SAME, AT_CHANCE, BASELINE_AT_CHANCE})
_SIMULATED = 100_000
_AT_ONCE = 2_000_000  # numbers in memory
_SEED = 1983


@dataclass(frozen=True)
class Looks:
    """When a study is looked at.

    Attributes:
        seeds: of a row at each look, rising.
        gain: in points; a row whose interval lies within it on both sides is not worth more seeds.
        baseline_times: how many seeds the baseline has for each of a row's.
    """

    seeds: tuple[int, ...]
    gain: float = 0.5
    baseline_times: int = 2

    def of_baseline(self, look: int) -> int:
        """How many seeds the baseline has at a look, from 0."""
        return self.seeds[look] * self.baseline_times


@dataclass(frozen=True)
class Seen:
    """What a look could see, and of one on record what it decided, which later rows do not change.

    Attributes:
        seeds: of each row, those that had finished.
        level: at which it compared the rows; None of a look that is taken now.
        going: the rows that it gave more seeds; None of a look that is taken now.
        futile: the rows that it called so.
    """

    seeds: Mapping[str, Collection[int]]
    level: float | None = None
    going: Collection[str] | None = None
    futile: Collection[str] = ()


@dataclass(frozen=True)
class LookTaken:
    """One look: at which seeds of each row, at which level, what was said, and what goes on."""

    seeds: Mapping[str, tuple[int, ...]]
    level: float
    family: Family
    going: tuple[str, ...]


def spent(share: float, alpha: float = ALPHA) -> float:
    """Return how much of `alpha` is spent once `share` of the seeds are there: Lan and DeMets."""
    return alpha * math.log(1 + (math.e - 1) * share)


def critical_values(
    looks: Looks, rows: int, blocks: bool = False, alpha: float = ALPHA
) -> tuple[float, ...]:
    """Return the t that the largest of the rows' |t| must pass at each look."""
    first = _layout(looks, 0, rows, blocks)
    found = [critical_value(spent(looks.seeds[0] / looks.seeds[-1], alpha), *first)]
    maxima = _null_maxima(looks.seeds, looks.baseline_times, rows, blocks)
    within = maxima[:, 0] < found[0]
    for look in range(1, len(looks.seeds)):
        share = looks.seeds[look] / looks.seeds[-1]
        left = np.sort(maxima[within, look])
        over = spent(share, alpha) * len(maxima) - (len(maxima) - left.size)
        found.append(float(left[-max(1, round(over))]))
        within &= maxima[:, look] < found[look]
    return tuple(found)


@lru_cache(maxsize=256)
def levels(
    looks: Looks, rows: int, blocks: bool = False, alpha: float = ALPHA
) -> tuple[float, ...]:
    """Return the level at which all rows are compared at each look.

    Args:
        looks: the design.
        rows: how many are compared with the baseline.
        blocks: whether what a seed does to every row is taken out.
        alpha: over all rows and looks.
    """
    return tuple(
        exceedance(t, *_layout(looks, look, rows, blocks))
        for look, t in enumerate(critical_values(looks, rows, blocks, alpha))
    )


def chance_over_looks(
    seeds: Sequence[int], at: Sequence[float], rows: int, blocks: bool = False
) -> float:
    """Return how probably some row of none that differs is called better or worse at some look.

    Args:
        seeds: of a row and of the baseline at each look, rising.
        at: the level of each look.
        rows: how many are compared with the baseline.
        blocks: whether what a seed does to every row is taken out.
    """
    looks = Looks(tuple(seeds), baseline_times=1)
    maxima = _null_maxima(looks.seeds, 1, rows, blocks)
    critical = [
        critical_value(level, *_layout(looks, look, rows, blocks)) for look, level in enumerate(at)
    ]
    return float((maxima >= np.array(critical)).any(-1).mean())


def take_looks(
    values: Mapping[str, Mapping[int, float]],
    baseline: str,
    looks: Looks,
    seen: Iterable[Seen],
    *,
    identical: Collection[str] = (),
    twins: Mapping[str, str] | None = None,
    at_chance: Collection[str] = (),
    paired: bool = False,
    bounds: tuple[float, float] = UNBOUNDED,
    higher_is_better: bool = True,
    more_rows: int = 0,
    dropped: Collection[str] = (),
    alpha: float = ALPHA,
    reworded: Callable[[Family], Family] | None = None,
) -> Iterator[LookTaken]:
    """Yield what each look says, one after the other: a row that has ended stays so.

    Args:
        values: a figure of each row, by seed; the baseline among them.
        baseline: the row that the others are compared with.
        looks: the design.
        seen: the looks, those on record and any that is taken now.
        identical: rows that compute the baseline's function.
        twins: rows that compute another row's function, each with that row.
        at_chance: rows that never learned.
        paired: take out what a seed does to every row.
        bounds: what a difference can be.
        higher_is_better: which sign is `better`.
        more_rows: rows that were run and are not among `values`.
        dropped: rows among `values` that are the study's no more. They have ended where a look does
            not see them any longer, count by the seeds of the look before it, and have no verdict.
        alpha: over all rows and looks.
        reworded: gives a look's family words that are read off its intervals, such as `as good`.
    """
    rows = [row for row in values if row != baseline]
    compared_rows = max(1, len(rows) + more_rows)
    going, ended = rows, dict[str, Comparison]()
    before: dict[str, Collection[int]] = {}  # the seeds of dropped rows
    for look, there in enumerate(seen):
        gone = {row: seeds for row, seeds in before.items() if not there.seeds.get(row)}
        seeds = {**there.seeds, **gone}
        before |= {row: there.seeds[row] for row in dropped if there.seeds.get(row)}
        going = [row for row in going if row not in gone]
        # Of a paired study only seeds that all rows have count, and a row that ended has few.
        compared = [baseline, *(going if paired else rows)]
        figures = {
            row: {
                seed: values[row][seed]
                for seed in sorted(seeds.get(row, ()))
                if seed in values[row]
            }
            for row in compared
        }
        level = there.level or levels(looks, compared_rows, paired, alpha)[look]
        family = compare_rows(
            figures,
            baseline,
            identical=[row for row in identical if row in figures],
            twins={
                row: first for row, first in (twins or {}).items() if {row, first} <= {*figures}
            },
            at_chance=[row for row in at_chance if row in figures],
            paired=paired,
            bounds=bounds,
            higher_is_better=higher_is_better,
            alpha=level,
            more_rows=more_rows + len(values) - len(compared),
        )
        if reworded:
            family = reworded(family)
        last = look == len(looks.seeds) - 1
        for row in going:
            ended[row] = found = _with_level(family.comparisons[row], level, alpha)
            if last or not (there.going is None or row in there.futile):
                continue
            last_level = levels(looks, compared_rows, paired, alpha)[-1]
            ended[row] = _hopeless(found, looks, look, family, last_level, higher_is_better)
            if there.going is not None and ended[row].word == NOT_SHOWN:
                reason = f"called so at look {look + 1}, and given no more seeds"
                ended[row] = replace(found, word=FUTILE, reason=reason)
        if there.going is not None:
            going = [row for row in going if row in there.going or not there.seeds.get(row)]
        else:
            going = [row for row in going if ended[row].word not in ENDED and not last]
        kept = {row: ended[row] for row in rows if row not in dropped}
        used = {row: tuple(of_row) for row, of_row in figures.items() if row not in dropped}
        on = tuple(row for row in going if row not in dropped)
        yield LookTaken(used, level, replace(family, comparisons=kept), on)


def before_looks(values: Mapping[str, Mapping[int, float]], baseline: str, looks: Looks) -> Family:
    """Return what may be said before the first look: how many seeds it waits for."""
    reason = f"the first look is at {looks.seeds[0]} seeds"
    theirs = list(values[baseline].values())
    found = {}
    for row, by_seed in values.items():
        ours = list(by_seed.values())
        gap = (
            Difference(fmean(ours) - fmean(theirs), len(ours), len(theirs))
            if ours and theirs
            else None
        )
        found[row] = Comparison(TOO_FEW, reason, gap)
    del found[baseline]
    return Family("none", found)


def chance_to_show(t: float, share: float, critical: float) -> float:
    """Return how probably the last look shows a difference, by what one before it has seen.

    Spiegelhalter, Freedman and Blackburn, "Monitoring clinical trials: conditional or predictive
    power?", Controlled Clinical Trials 7, 1986, without a prior opinion of the difference.

    Args:
        t: of the row, at the look.
        share: of the last look's seeds that are there.
        critical: the t that the last look asks for.
    """
    need, scale = critical * math.sqrt(share), math.sqrt(1 - share)
    return float(stats.norm.sf((need - t) / scale) + stats.norm.sf((need + t) / scale))


def chance_to_show_no_loss(t: float, share: float, critical: float, margin: float) -> float:
    """Return how probably the last look shows a loss, or that there is none beyond a margin.

    As `chance_to_show`; `t` is above 0 where the row is ahead, and `margin` is in units of the
    error of the difference at the look.
    """
    need, scale = critical * math.sqrt(share), math.sqrt(1 - share)
    worse, not_worse = stats.norm.sf((need + t) / scale), stats.norm.sf((need - margin - t) / scale)
    return float(min(1.0, worse + not_worse))


def _with_level(found: Comparison, level: float, alpha: float) -> Comparison:
    """Say of a p below `alpha` which shows nothing that a look asks for more."""
    if found.word != NOT_SHOWN or found.p is None or not level <= found.p < alpha:
        return found
    return replace(found, reason=f"p is not below the look's level of {100 * level:.2f} %")


def _hopeless(
    found: Comparison,
    looks: Looks,
    look: int,
    family: Family,
    last_level: float,
    higher_is_better: bool,
) -> Comparison:
    """Return a comparison as it is, or as futile."""
    gap = found.difference
    if found.word != NOT_SHOWN or gap is None or gap.low is None or gap.high is None:
        return found
    if family.margin is None and -looks.gain < gap.low and gap.high < looks.gain:
        return replace(
            found,
            word=FUTILE,
            reason=f"its interval leaves out {looks.gain:g} points on either side",
        )
    if family.critical is None:
        return found
    if family.method == "own" or not family.sd:
        error = max(gap.high - gap.mean, gap.mean - gap.low) / family.critical
    else:  # not by the interval, which is wider of a row that is asked Welch's test too
        error = family.sd * math.sqrt(1 / gap.n + 1 / gap.n_baseline)
    rows = max(1, family.rows)
    size, of_baseline = looks.seeds[-1], max(looks.of_baseline(-1), gap.n_baseline)
    # Of what the last look knows of the difference: rows that came later meet a baseline that has
    # its seeds already.
    share = (1 / size + 1 / of_baseline) / (1 / gap.n + 1 / gap.n_baseline)
    if share >= 1:
        return found
    df = family.df * size / looks.seeds[look]
    asked = (size, of_baseline)
    last, _ = critical_to_come(last_level, rows, asked, df, family.stretch, family.paired)
    t, shows = gap.mean / error, "a difference"
    chance = chance_to_show(abs(t), share, last)
    if family.margin is not None:
        shows = "a difference, or that it is not worse"
        good = t if higher_is_better else -t
        chance = chance_to_show_no_loss(good, share, last, family.margin / error)
    if chance >= FUTILE_BELOW:
        return found
    return replace(
        found,
        word=FUTILE,
        reason=f"{size} seeds would show {shows} with a probability of {100 * chance:.0f} %",
    )


def _layout(looks: Looks, look: int, rows: int, blocks: bool) -> tuple[tuple[int, ...], int, int]:
    """Return seeds of the rows and of the baseline, and the degrees of freedom of the spread."""
    ours, theirs = looks.seeds[look], looks.of_baseline(look)
    df = rows * (ours - 1) + (0 if blocks else theirs - 1)
    return (ours,) * rows, theirs, df


@lru_cache(maxsize=64)
def _null_maxima(seeds: tuple[int, ...], times: int, rows: int, blocks: bool) -> Array:
    """Return the largest |t| at each look of studies without any difference: (studies, looks).

    Means are of cumulative sums, and squares add up a look's own and those between the looks.
    """
    rng = np.random.default_rng(_SEED)
    part = max(1, min(_SIMULATED, _AT_ONCE // (rows + 1)))
    counts = np.array([times, *[1] * rows])  # times a row's seeds
    found = []
    for done in range(0, _SIMULATED, part):
        shape = (min(part, _SIMULATED - done), rows + 1)
        sums, squares, before = np.zeros(shape), np.zeros(shape[0]), 0
        maxima = np.empty((shape[0], len(seeds)))
        for look, size in enumerate(seeds):
            new, total = (size - before) * counts, size * counts
            more = rng.normal(size=shape) * np.sqrt(new)
            sums, before = sums + more, size
            inner, df = (int(n.sum()) - rows - 1 for n in (new, total))
            centred = sums
            if blocks:
                more, centred = (one - one.mean(-1, keepdims=True) for one in (more, sums))
                inner, df = (rows * (int(n[1]) - 1) for n in (new, total))
            squares += (more**2 / new).sum(-1)
            if inner:
                squares += rng.chisquare(inner, shape[0])
            spread = np.sqrt((squares - (centred**2 / total).sum(-1)) / df)
            means = sums / total
            gaps = np.abs(means[:, 1:] - means[:, :1]).max(-1)
            maxima[:, look] = gaps / spread / math.sqrt(1 / total[1] + 1 / total[0])
        found.append(maxima)
    return np.concatenate(found)
