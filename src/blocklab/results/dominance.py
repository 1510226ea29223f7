"""What rows cost of one another, and which ones are dominated, so that no choice needs them."""

from collections.abc import Mapping, Sequence

import numpy as np

from blocklab.results.row_result import RowResult
from blocklab.results.tested_claims import TestedRows
from blocklab.statistics.family import AS_GOOD, BETTER, WORSE, Comparison
from blocklab.statistics.pairs import all_pairs
from blocklab.statistics.summary import ALPHA

SAME_COST = 0.005  # costs that differ by a smaller share are called the same in words


def cost_words(row: RowResult, other: RowResult) -> str:
    """Say what a row costs of another's cost: ``at 0.6 of the MACs``.

    Parameters are named where MACs are the same, and where they tell the other way. Nothing is said
    of costs that are not known, or were counted at different sizes of images.
    """
    ratios = _ratios(row, other)
    if ratios is None:
        return ""
    macs, params = ratios
    if abs(macs - 1) > SAME_COST:
        turned = (params - 1) * (macs - 1) < 0 and abs(params - 1) > SAME_COST
        more = f" and {_share(params)} of the parameters" if turned else ""
        return f"at {_share(macs)} of the MACs{more}"
    if abs(params - 1) > SAME_COST:
        return f"at {_share(params)} of the parameters"
    return "at the same cost"


def is_cheaper(row: RowResult, other: RowResult) -> bool:
    """Whether its MACs are fewer, or its parameters where MACs are the same to half a per cent."""
    ratios = _ratios(row, other)
    if ratios is None:
        return False
    macs, params = ratios
    return macs < 1 - SAME_COST or (macs <= 1 + SAME_COST and params < 1 - SAME_COST)


def verdict_texts(
    rows: Sequence[RowResult], comparisons: Mapping[str, Comparison]
) -> dict[str, str]:
    """Return each row's verdict; one that is as good and cheaper says at what cost."""
    texts = {name: one.word for name, one in comparisons.items()}
    for row in rows:
        if texts.get(row.name) == AS_GOOD and row.baseline and is_cheaper(row, row.baseline):
            texts[row.name] = f"{AS_GOOD} {cost_words(row, row.baseline)}"
    return texts


def dominated_rows(
    rows: Sequence[RowResult],
    comparisons: Mapping[str, Comparison],
    tested: TestedRows,
    margin: float | None = None,
    alpha: float = ALPHA,
) -> dict[str, str]:
    """Return the rows that are shown to be dominated, each with the reason.

    A row is dominated by one that costs no more, in MACs and in parameters, and is shown to be
    better by the study's metric; or costs less in one of them, and is as good within the margin or
    computes the same function. What is shown of the baseline is what the verdicts say, and of two
    other rows what intervals of all pairs at `alpha` say: each of the two is wrong of any row in
    about 5 % of studies, or fewer.
    """
    rows = [row for row in rows if None not in (row.macs, row.params)]
    # Of a study without a baseline no row has one.
    firsts_of_all = (i for i, row in enumerate(rows) if row.baseline is None)
    baseline = next(firsts_of_all, None) if any(row.baseline for row in rows) else None
    firsts = [tested.first(row.name) for row in rows]
    function = np.array([firsts.index(first) for first in firsts], dtype=int)
    pairs = all_pairs(tested.pool(tested.metric.name), alpha)
    place = np.array([pairs.place.get(first, -1) for first in firsts], dtype=int)
    # One more row and column, of no interval, for rows that have none.
    ahead_by = pairs.low if tested.metric.higher_is_better else pairs.low.T
    low = np.pad(ahead_by, (0, 1), constant_values=-np.inf)
    macs, params = (np.array([getattr(row, cost) for row in rows]) for cost in ("macs", "params"))
    sizes = np.array([row.input_size for row in rows])
    words = np.array(
        [comparisons[row.name].word if row.name in comparisons else "" for row in rows]
    )
    found: dict[str, str] = {}
    for i, row in enumerate(rows):
        least, most = low[place, place[i]], -low[place[i], place]  # of the others minus this one
        better = least > 0
        good = (least > -margin) & (most < margin) if margin else np.zeros(len(rows), dtype=bool)
        if baseline is not None and i == baseline:
            better, good = words == BETTER, words == AS_GOOD
        elif baseline is not None:
            better[baseline], good[baseline] = words[i] == WORSE, words[i] == AS_GOOD
        same = function == function[i]
        no_more = (macs <= macs[i]) & (params <= params[i]) & (sizes == sizes[i])
        less = no_more & ((macs < macs[i]) | (params < params[i]))
        if (ahead := np.flatnonzero(no_more & better & ~same)).size:
            by, what = rows[ahead[np.argmin(macs[ahead])]], "is better"
        elif (level := np.flatnonzero(less & (good | same))).size:
            by = rows[level[np.argmin(macs[level])]]
            what = "computes the same" if same[rows.index(by)] else "is as good"
        else:
            continue
        found[row.name] = f"{by.name} {what} {cost_words(by, row)}"
    return found


def _ratios(row: RowResult, other: RowResult) -> tuple[float, float] | None:
    if row.macs is None or row.params is None or not (other.macs and other.params):
        return None
    if row.input_size != other.input_size:
        return None
    return row.macs / other.macs, row.params / other.params


def _share(ratio: float) -> str:
    return f"{ratio:.2g}" if ratio < 1 else f"{ratio:,.2f}".rstrip("0").rstrip(".")
