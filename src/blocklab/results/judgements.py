"""Whether a study's runs bear out the claims that it stated beforehand.

Every figure is taken a seed: a claim of two rows tests their differences, one of gains the sum of
its rows' figures by its weights. That a row is the best of several is said where each of the
differences says so, so its p is the largest of theirs (an intersection-union test, which needs no
correction); that it is not, where any other row is shown to be better, so there p is the smallest
times their number (Bonferroni).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from blocklab.errors import InputError
from blocklab.measure.amounts import counted
from blocklab.results.row_result import RowResult, identical_seeds
from blocklab.statistics.family import FEWEST_SEEDS
from blocklab.statistics.paired import PairedDifference, paired_difference
from blocklab.statistics.summary import ALPHA, SPREAD_OF_ROUNDING, holm
from blocklab.study.claims import (
    COUNTED,
    MEASURED,
    ZEROS,
    AnyClaim,
    BestClaim,
    Claim,
    GainClaim,
    parse_claim,
)
from blocklab.study.metric import TOP1, Metric

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"


@dataclass(frozen=True)
class Judgement:
    """A claim's text, one of `supported`, `contradicted`, `undecided`, and the numbers for it.

    `p` is that of the test that speaks for the word, `p_holm` the same corrected for the study's
    other claims, and `p_holm_collection` for those of all studies that were judged together. None
    where nothing was tested, or only one study was judged.
    """

    claim: str
    word: str
    numbers: str
    p: float | None = None
    p_holm: float | None = None
    p_holm_collection: float | None = None

    @property
    def word_in_collection(self) -> str:
        """The word that the p of the collection allows."""
        p = self.p_holm_collection
        return self.word if p is None or p < ALPHA else UNDECIDED


def judge_together(studies: Sequence[Sequence[Judgement]]) -> list[tuple[Judgement, ...]]:
    """Correct the p values of several studies' claims by Holm for their number in all.

    A claim that two studies make counts twice, which makes the correction no weaker.
    """
    tested = [one.p for judged in studies for one in judged if one.p is not None]
    adjusted = iter(holm(tested))
    return [
        tuple(
            one if one.p is None else replace(one, p_holm_collection=next(adjusted))
            for one in judged
        )
        for judged in studies
    ]


def judge_claims(
    claims: Sequence[str],
    rows: Sequence[RowResult],
    baseline: str | None = None,
    metric: Metric = TOP1,
) -> tuple[Judgement, ...]:
    """Judge a study's claims by its finished runs, p values corrected by Holm for their number.

    A claim that cannot be read, or whose row was left out, is undecided and says so.
    """
    named = {row.name: row for row in rows}
    judged: list[Judgement | _Test] = []
    for text in claims:
        try:
            judged.append(_judge(parse_claim(text, named, baseline, metric), named))
        except InputError as error:
            judged.append(Judgement(text, UNDECIDED, str(error)))
    tests = [one for one in judged if isinstance(one, _Test)]
    adjusted = iter(holm([one.p for one in tests]))
    return tuple(
        one if isinstance(one, Judgement) else one.judged(next(adjusted)) for one in judged
    )


@dataclass(frozen=True)
class _Test:
    """A claim that a test decides: `word` is said if p, once corrected, is small enough."""

    claim: str
    word: str
    numbers: str
    p: float

    def judged(self, p_holm: float) -> Judgement:
        word = self.word if p_holm < ALPHA else UNDECIDED
        return Judgement(self.claim, word, self.numbers, self.p, p_holm)


def _judge(claim: AnyClaim, rows: Mapping[str, RowResult]) -> Judgement | _Test:
    if (
        claim.metric == ZEROS
        and len({over for name in claim.rows for over in _over(rows[name])}) > 1
    ):
        return Judgement(claim.text, UNDECIDED, "zeros were counted over different test images")
    if isinstance(claim, BestClaim):
        return _judge_best(claim, rows)
    if claim.metric in COUNTED:
        return _judge_counts(claim, rows)
    if isinstance(claim, Claim) and (seeds := identical_seeds(rows[claim.left], rows[claim.right])):
        word = SUPPORTED if claim.operator == "==" else CONTRADICTED
        return Judgement(claim.text, word, _same_bits(seeds))
    gap = _gap(claim.weights, claim.metric, rows)
    if gap is None:
        which = "two rows" if len(claim.weights) == 2 else "rows"
        return Judgement(claim.text, UNDECIDED, f"the {which} share no finished seed")
    numbers = _numbers(gap, claim, rows)
    if gap.n < FEWEST_SEEDS:
        return Judgement(claim.text, UNDECIDED, f"{numbers}; one shared seed shows no spread")
    if claim.operator == "==":
        return _test_equal(claim, gap, numbers)
    sign = 1 if claim.operator == ">" else -1
    word = SUPPORTED if sign * gap.mean > claim.margin else CONTRADICTED
    return _Test(claim.text, word, numbers, _p_against(gap.values, sign * claim.margin))


def _gap(
    weights: Mapping[str, float], metric: str, rows: Mapping[str, RowResult]
) -> PairedDifference | None:
    """Return the weighted sum of rows' figures, over the seeds that all of them have."""
    figures = {name: rows[name].by_seed(_figure(rows[name], metric)) for name in weights}
    seeds = set.intersection(*(set(values) for values in figures.values()))
    sums = {
        seed: math.fsum(weight * figures[name][seed] for name, weight in weights.items())
        for seed in seeds
    }
    return paired_difference(sums, dict.fromkeys(sums, 0.0))


def _figure(row: RowResult, metric: str) -> str:
    return row.metric.figure if metric == row.metric.name else MEASURED[metric]


def _over(row: RowResult) -> set[tuple[int, int, int]]:
    return {run.zeros_over for run in row.finished if run.zeros_over is not None}


def _same_bits(seeds: Sequence[int]) -> str:
    of = f"{len(seeds)} shared seed{'s' if len(seeds) > 1 else ''}"
    return f"identical function: same bits on every one of {of}"


def _judge_best(claim: BestClaim, rows: Mapping[str, RowResult]) -> Judgement | _Test:
    """Compare a row with each of the others: see the head of this file for what p is."""
    if claim.metric in COUNTED:
        return _judge_best_count(claim, rows)
    found: list[tuple[float, float, str]] = []  # p, how far ahead, and the numbers for it
    for other in claim.others:
        if seeds := identical_seeds(rows[claim.row], rows[other]):
            return Judgement(claim.text, CONTRADICTED, f"as {other}: {_same_bits(seeds)}")
        gap = _gap({claim.row: 1.0, other: -1.0}, claim.metric, rows)
        if gap is None:
            why = f"it shares no finished seed with {other}"
            return Judgement(claim.text, UNDECIDED, why)
        numbers = f"{_numbers(gap, claim, rows)}, to {other}"
        if gap.n < FEWEST_SEEDS:
            return Judgement(claim.text, UNDECIDED, f"{numbers}; one shared seed shows no spread")
        found.append((_p_against(gap.values, 0.0), claim.sign * gap.mean, numbers))
    if better := [one for one in found if one[1] <= 0]:
        p, _, numbers = min(better)
        return _Test(claim.text, CONTRADICTED, numbers, min(1.0, p * len(found)))
    p, _, numbers = max(found)
    return _Test(claim.text, SUPPORTED, f"{numbers}, the least clear of {len(found)}", p)


def _test_equal(claim: Claim | GainClaim, gap: PairedDifference, numbers: str) -> _Test:
    """Two one-sided tests for a gap inside the margins; outside, a test against the nearer one."""
    numbers = f"{numbers}, margin {claim.margin:g}"
    if abs(gap.mean) > claim.margin:
        p = _p_against(gap.values, math.copysign(claim.margin, gap.mean))
        return _Test(claim.text, CONTRADICTED, numbers, p)
    if max(gap.values) - min(gap.values) <= SPREAD_OF_ROUNDING:
        p = 1.0
    else:
        p = float(DescrStatsW(gap.values).ttost_mean(-claim.margin, claim.margin)[0])
    return _Test(claim.text, SUPPORTED, numbers, p)


def _p_against(values: Sequence[float], mean: float) -> float:
    """Two-sided p of the mean being this one; 1 where there is no spread to test against."""
    if max(values) - min(values) <= SPREAD_OF_ROUNDING:
        return 1.0
    return float(np.asarray(stats.ttest_1samp(values, mean))[1])


def _judge_counts(claim: Claim | GainClaim, rows: Mapping[str, RowResult]) -> Judgement:
    name, unit, letter = COUNTED[claim.metric]
    if unknown := _uncounted(claim, rows):
        return unknown
    counts = {row: getattr(rows[row], name) for row in claim.rows}
    gap = math.fsum(weight * counts[row] for row, weight in claim.weights.items()) / unit
    holds = {
        ">": gap > 0 and gap >= claim.margin,
        "<": gap < 0 and -gap >= claim.margin,
        "==": abs(gap) <= claim.margin,
    }[claim.operator]
    if isinstance(claim, Claim):
        ours, theirs = counts[claim.left] / unit, counts[claim.right] / unit
    else:
        ours = (counts[claim.left] - counts[claim.baseline]) / unit
        theirs = ours - gap
    numbers = f"{ours:.3f} against {theirs:.3f} {letter}, counted"
    if _sizes_differ(claim, rows):
        return Judgement(claim.text, UNDECIDED, f"{numbers} at different input sizes")
    return Judgement(claim.text, SUPPORTED if holds else CONTRADICTED, numbers)


def _judge_best_count(claim: BestClaim, rows: Mapping[str, RowResult]) -> Judgement:
    name, unit, letter = COUNTED[claim.metric]
    if unknown := _uncounted(claim, rows):
        return unknown
    ours = getattr(rows[claim.row], name)
    theirs = {other: getattr(rows[other], name) for other in claim.others}
    nearest = max(theirs, key=lambda other: claim.sign * theirs[other])
    numbers = (
        f"{counted(ours / unit)} against {counted(theirs[nearest] / unit)} {letter}, of {nearest}"
    )
    if _sizes_differ(claim, rows):
        return Judgement(claim.text, UNDECIDED, f"{numbers}, at different input sizes")
    ahead = claim.sign * (ours - theirs[nearest]) > 0
    return Judgement(claim.text, SUPPORTED if ahead else CONTRADICTED, f"{numbers}, counted")


def _uncounted(claim: AnyClaim, rows: Mapping[str, RowResult]) -> Judgement | None:
    lacking = [name for name in sorted(claim.rows) if getattr(rows[name], claim.metric) is None]
    if not lacking:
        return None
    return Judgement(claim.text, UNDECIDED, f"the {claim.metric} of {lacking[0]} are not known")


def _sizes_differ(claim: AnyClaim, rows: Mapping[str, RowResult]) -> bool:
    return claim.metric == "macs" and len({rows[row].input_size for row in claim.rows}) > 1


def _numbers(gap: PairedDifference, claim: AnyClaim, rows: Mapping[str, RowResult]) -> str:
    seeds = f"{gap.n} seed{'' if gap.n == 1 else 's'}"
    of = next(iter(rows.values())).metric
    form, unit = f"+.{of.decimals}f", f" {of.difference_unit}".rstrip()
    if claim.metric != of.name:
        form = {"loss": "+.4f", ZEROS: "+,.0f"}.get(claim.metric, form)
        unit = {"loss": "", ZEROS: " zeros"}.get(claim.metric, unit)
    between = " (no spread seen)" if gap.n > 1 else ""
    if gap.low is not None and gap.high is not None:
        between = f" [{gap.low:{form}}, {gap.high:{form}}]"
    return f"{gap.mean:{form}}{between}{unit}, {seeds}".replace("-", "\u2212")
