"""As good as the baseline: a difference that is shown to be too small to matter.

The intervals of a family hold for all of its rows at once, so whatever is read off them is wrong of
any row no more often than an interval misses its difference: better, worse, as good and not worse
together in at most 5 % of studies. An interval inside the margins is a pair of one-sided tests
(Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 15, 1987) at half of that each. Usual
for one row alone are intervals of 90 %; read for all words at once they would err in 10 %.
"""

from dataclasses import replace

from blocklab.statistics.family import (
    AS_GOOD,
    BETTER,
    NOT_SHOWN,
    NOT_WORSE,
    WORSE,
    Comparison,
    Family,
)


def with_margin(family: Family, margin: float, *, higher_is_better: bool = True) -> Family:
    """Return the family with `as good` and `not worse` among its verdicts.

    Args:
        family: as compared.
        margin: the difference that begins to matter, more than 0, in the units of the values.
        higher_is_better: as the family was compared.

    Raises:
        ValueError: if the margin is not more than 0.
    """
    if not margin > 0:
        raise ValueError(f"a margin is more than 0, not {margin}")
    sign = 1 if higher_is_better else -1
    judged = {row: _judged(one, margin, sign) for row, one in family.comparisons.items()}
    return replace(family, comparisons=judged, margin=margin)


def _judged(one: Comparison, margin: float, sign: int) -> Comparison:
    gap = one.difference
    if one.word not in (BETTER, WORSE, NOT_SHOWN) or gap is None:
        return one
    if gap.low is None or gap.high is None:  # no spread was seen
        return one
    inside = -margin < gap.low and gap.high < margin
    if one.word != NOT_SHOWN:
        return replace(one, reason=f"within the margin of {margin:g}") if inside else one
    if inside:
        return replace(one, word=AS_GOOD, reason=f"within the margin of {margin:g}")
    if min(sign * gap.low, sign * gap.high) > -margin:
        return replace(one, word=NOT_WORSE, reason=f"worse by less than {margin:g}, or better")
    return one
