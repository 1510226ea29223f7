"""Claims that a study states beforehand, and whether its runs bear them out.

Written as one line each::

    Res2Net_T2 > Res2Net_S2 in top1         more, on average over seeds
    "avg,max" < Triplet by 0.5 in top5      less by at least half a point
    celu == elu                             the same bits, or no further apart than 0.5 points
    celu == elu within 0.2 in top5          no further apart than 0.2 points
    van_b0 < van_b1 in macs                 of costs, which are counted and leave no doubt

A name that holds an operator or ends like a metric stands in quotes. Without `in` the metric is
top1. Margins are in points of accuracy, G of MACs, M of parameters.
"""

import math
import re
from collections.abc import Collection
from dataclasses import dataclass

from blocklab.errors import InputError, did_you_mean

EQUAL_WITHIN = 0.5  # points: what "==" means of accuracies where the claim gives no margin
MEASURED = {"top1": "test_top1_percent", "top5": "test_top5_percent", "loss": "test_loss"}
COUNTED = {"macs": ("macs", 1e9, "G"), "params": ("params", 1e6, "M")}
METRICS = (*MEASURED, *COUNTED)

EXAMPLE = "write such as 'a > b by 0.5 in top1', 'a < b in macs' or 'a == b within 0.5'"
_SIDE = r""" "[^"]+" | '[^']+' | [^"'].*? """
_CLAIM = re.compile(
    rf"""\s* (?P<left>{_SIDE}) \s+ (?P<operator>==|>|<) \s+ (?P<right>{_SIDE})
    (?: \s+ (?P<word>by|within) \s+ (?P<margin>\S+) )?
    (?: \s+ in \s+ (?P<metric>\S+) )? \s*""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Claim:
    """``left operator right`` in a metric: `margin` is the least gap of > and <, the most of ==."""

    text: str
    left: str
    operator: str  # ">", "<" or "=="
    right: str
    metric: str = "top1"
    margin: float = 0.0


def parse_claim(text: str, row_names: Collection[str]) -> Claim:
    """Read one claim about rows of these names.

    Raises:
        InputError: in one line, with the remedy, if it is not a claim or names no row.
    """
    found = _CLAIM.fullmatch(text)
    if found is None:
        raise InputError(f"'{text}' is no claim; {EXAMPLE}")
    rows = []
    for side in ("left", "right"):
        name = found[side].strip()
        name = name[1:-1] if name[0] in "\"'" else name
        if name not in row_names:
            raise InputError(
                f"claim '{text}' names no row '{name}'{did_you_mean(name, row_names) or '.'} "
                f"Rows: {', '.join(row_names)}"
            )
        rows.append(name)
    left, right = rows
    if left == right:
        raise InputError(f"claim '{text}' compares '{left}' with itself; name two rows")
    metric = found["metric"] or "top1"
    if metric not in METRICS:
        raise InputError(
            f"claim '{text}' has no metric '{metric}'{did_you_mean(metric, METRICS) or '.'} "
            f"Metrics: {', '.join(METRICS)}"
        )
    operator = found["operator"]
    if found["word"] and found["word"] != ("within" if operator == "==" else "by"):
        raise InputError(f"claim '{text}': 'by' goes with > and <, 'within' with ==; {EXAMPLE}")
    margin = EQUAL_WITHIN if operator == "==" and metric in ("top1", "top5") else 0.0
    if found["margin"]:
        margin = _margin(found["margin"], text)
    elif operator == "==" and metric == "loss":
        raise InputError(f"claim '{text}': add 'within' and a margin, since 0.5 is of accuracies")
    return Claim(text, left, operator, right, metric, margin)


def _margin(text: str, claim: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise InputError(f"claim '{claim}': the margin '{text}' is not a number from 0")
    return value
