"""Claims of costs, which are counted: they hold or they do not."""

import math
from collections.abc import Mapping

from blocklab.measure.amounts import counted_apart
from blocklab.results.judgement import CONTRADICTED, SUPPORTED, UNDECIDED, Judgement
from blocklab.results.row_result import RowResult
from blocklab.study.claims import COUNTED, AnyClaim, BestClaim, Claim, GainClaim


def judge_count(claim: AnyClaim, rows: Mapping[str, RowResult]) -> Judgement:
    """Judge a claim of MACs or parameters; undecided where they are not known."""
    lacking = [name for name in sorted(claim.rows) if getattr(rows[name], claim.metric) is None]
    if lacking:
        why = f"the {claim.metric} of {lacking[0]} are not known"
        return Judgement(claim.text, UNDECIDED, why)
    return _best(claim, rows) if isinstance(claim, BestClaim) else _compared(claim, rows)


def _compared(claim: Claim | GainClaim, rows: Mapping[str, RowResult]) -> Judgement:
    name, unit, letter = COUNTED[claim.metric]
    counts = {row: getattr(rows[row], name) for row in claim.rows}
    gap = math.fsum(weight * counts[row] for row, weight in claim.weights.items()) / unit
    if isinstance(claim, Claim):
        ours, theirs = counts[claim.left] / unit, counts[claim.right] / unit
    else:
        ours = (counts[claim.baseline] - counts[claim.left]) / unit  # how much less it has
        theirs = ours - gap
    shown = counted_apart(ours, theirs, lambda gap: _holds(claim, gap))
    numbers = f"{' against '.join(shown)} {letter}, counted"
    if _sizes_differ(claim, rows):
        return Judgement(claim.text, UNDECIDED, f"{numbers} at different input sizes")
    return Judgement(claim.text, SUPPORTED if _holds(claim, gap) else CONTRADICTED, numbers)


def _holds(claim: Claim | GainClaim, gap: float) -> bool:
    if claim.operator == "==":
        return abs(gap) <= claim.margin
    ahead = claim.sign * gap
    if claim.operator in (">", "<") and claim.margin <= 0:
        return ahead > claim.margin
    return ahead >= claim.margin


def _best(claim: BestClaim, rows: Mapping[str, RowResult]) -> Judgement:
    name, unit, letter = COUNTED[claim.metric]
    ours = getattr(rows[claim.row], name)
    theirs = {other: getattr(rows[other], name) for other in claim.others}
    nearest = max(theirs, key=lambda other: claim.sign * theirs[other])
    shown = counted_apart(ours / unit, theirs[nearest] / unit)
    numbers = f"{' against '.join(shown)} {letter}, of {nearest}"
    if _sizes_differ(claim, rows):
        return Judgement(claim.text, UNDECIDED, f"{numbers}, at different input sizes")
    ahead = claim.sign * (ours - theirs[nearest]) > 0
    return Judgement(claim.text, SUPPORTED if ahead else CONTRADICTED, f"{numbers}, counted")


def _sizes_differ(claim: AnyClaim, rows: Mapping[str, RowResult]) -> bool:
    return claim.metric == "macs" and len({rows[row].input_size for row in claim.rows}) > 1
