"""Whether a study's runs bear out the claims that it stated beforehand."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from blocklab.errors import InputError
from blocklab.results.row_result import RowResult, identical_seeds
from blocklab.results.statistics import (
    ALPHA,
    FEWEST_SEEDS,
    SPREAD_OF_ROUNDING,
    Difference,
    holm,
    paired_difference,
)
from blocklab.study.claims import COUNTED, MEASURED, Claim, parse_claim

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"


@dataclass(frozen=True)
class Judgement:
    """A claim's text, one of `supported`, `contradicted`, `undecided`, and the numbers for it.

    `p` is that of the test that speaks for the word, `p_holm` the same corrected for the study's
    other claims. Both are None where nothing was tested.
    """

    claim: str
    word: str
    numbers: str
    p: float | None = None
    p_holm: float | None = None


def judge_claims(claims: Sequence[str], rows: Sequence[RowResult]) -> tuple[Judgement, ...]:
    """Judge a study's claims by its finished runs, p values corrected by Holm for their number.

    A claim that cannot be read, or whose row was left out, is undecided and says so.
    """
    named = {row.name: row for row in rows}
    judged: list[Judgement | _Test] = []
    for text in claims:
        try:
            judged.append(_judge(parse_claim(text, named), named))
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


def _judge(claim: Claim, rows: dict[str, RowResult]) -> Judgement | _Test:
    left, right = rows[claim.left], rows[claim.right]
    if claim.metric in COUNTED:
        return _judge_counts(claim, left, right)
    if seeds := identical_seeds(left, right):
        word = SUPPORTED if claim.operator == "==" else CONTRADICTED
        of = f"{len(seeds)} shared seed{'s' if len(seeds) > 1 else ''}"
        return Judgement(claim.text, word, f"identical function: same bits on every one of {of}")
    figure = MEASURED[claim.metric]
    gap = paired_difference(left.by_seed(figure), right.by_seed(figure))
    if gap is None:
        return Judgement(claim.text, UNDECIDED, "the two rows share no finished seed")
    numbers = _numbers(gap, "" if claim.metric == "loss" else " points")
    if gap.n < FEWEST_SEEDS or gap.low is None:
        return Judgement(claim.text, UNDECIDED, f"{numbers}; one shared seed shows no spread")
    if claim.operator == "==":
        return _test_equal(claim, gap, numbers)
    sign = 1 if claim.operator == ">" else -1
    word = SUPPORTED if sign * gap.mean > claim.margin else CONTRADICTED
    return _Test(claim.text, word, numbers, _p_against(gap.values, sign * claim.margin))


def _test_equal(claim: Claim, gap: Difference, numbers: str) -> _Test:
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


def _judge_counts(claim: Claim, left: RowResult, right: RowResult) -> Judgement:
    name, unit, letter = COUNTED[claim.metric]
    ours, theirs = getattr(left, name), getattr(right, name)
    gap = (ours - theirs) / unit
    holds = {
        ">": ours > theirs and gap >= claim.margin,
        "<": ours < theirs and -gap >= claim.margin,
        "==": abs(gap) <= claim.margin,
    }[claim.operator]
    numbers = f"{ours / unit:.3f} against {theirs / unit:.3f} {letter}, counted"
    if name == "macs" and left.input_size != right.input_size:
        return Judgement(claim.text, UNDECIDED, f"{numbers} at different input sizes")
    return Judgement(claim.text, SUPPORTED if holds else CONTRADICTED, numbers)


def _numbers(gap: Difference, unit: str) -> str:
    seeds = f"{gap.n} seed{'' if gap.n == 1 else 's'}"
    digits = 2 if unit else 4
    between = ""
    if gap.low is not None and gap.high is not None:
        between = f" [{gap.low:+.{digits}f}, {gap.high:+.{digits}f}]"
    return f"{gap.mean:+.{digits}f}{between}{unit}, {seeds}".replace("-", "\u2212")
