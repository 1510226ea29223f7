"""Claims that a study states beforehand, and whether its runs bear them out.

Written as one line each::

    Res2Net_T2 > Res2Net_S2 in top1         more, on average over seeds
    "avg,max" < Triplet by 0.5 in top5      less by at least half a point
    a >= b - 0.5                            not worse by more than half a point; also <=
    a > b + 1                               more by at least a point, as `by 1` says
    celu == elu                             the same bits, or no further apart than 0.5 points
    celu == elu within 0.2 in top5          no further apart than 0.2 points
    van_b0 < van_b1 in macs                 of costs, which are counted and leave no doubt
    relu > celu in zeros                    of zeros after the last block, where they are counted
    TripletCA best of all in top1           better than each other row; also `worst of`
    ST best of S2, T2, SS                   better than each of these
    gain(c) > 0.5 * gain(cCD_ST)            of gains on the baseline; also gain(a) + gain(b)

A name that holds an operator or a comma, or ends like a metric, stands in quotes. Without `in` the
metric is the study's own: top1, unless its runs are from elsewhere. Margins are in points of
accuracy, G of MACs, M of parameters, and zeros as counted. The best has the highest accuracy, or
the lowest loss, MACs, parameters or zeros.
"""

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from blocklab.errors import InputError, did_you_mean
from blocklab.study.metric import TOP1, Metric
from blocklab.study.schema import in_list

EQUAL_WITHIN = 0.5  # points: what "==" means of accuracies where the claim gives no margin
ZEROS = "zeros"
MEASURED = {
    TOP1.name: TOP1.figure,
    "top5": "test_top5_percent",
    "loss": "test_loss",
    ZEROS: ZEROS,
}
COUNTED = {"macs": ("macs", 1e9, "G"), "params": ("params", 1e6, "M")}
METRICS = (*MEASURED, *COUNTED)
HIGHER_IS_BETTER = ("top1", "top5")

EXAMPLE = (
    "write such as 'a > b by 0.5 in top1', 'a < b in macs', 'a == b within 0.5', 'a >= b - 0.5', "
    "'a best of all' or 'gain(a) > 0.5 * gain(b)'"
)
_SIDE = r""" "[^"]+" | '[^']+' | [^"'].*? """
_OFFSET = r"(?: \s+ (?P<direction>[+-]) \s+ (?P<offset>[\d.]\S*) )?"
_METRIC = r"(?: \s+ in \s+ (?P<metric>\S+) )? \s*"
_END = rf"(?: \s+ (?P<word>by|within) \s+ (?P<margin>\S+) )? {_METRIC}"
_CLAIM = re.compile(
    rf"""\s* (?P<left>{_SIDE}) \s+ (?P<operator>==|>=|<=|>|<) \s+
    (?P<right>{_SIDE}) {_OFFSET} {_END}""",
    re.VERBOSE,
)
_NAME = r""" "[^"]+" | '[^']+' | [^"',]+? """
_BEST = re.compile(
    rf"\s* (?P<row>{_NAME}) \s+ (?P<end>best|worst) \s+ of \s+ (?P<others>\S.*?) {_METRIC}",
    re.VERBOSE,
)
_OTHER = re.compile(rf"\s* ({_NAME}) \s* (?:,|$)", re.VERBOSE)
_GAIN = r""" gain\( \s* (?: "[^"]+" | '[^']+' | [^"'()]+? ) \s* \) """
_TERM = rf"(?: [\d.]+ \s* \* \s* )? {_GAIN}"
_GAINS = re.compile(
    rf"""\s* (?P<left>{_GAIN}) \s+ (?P<operator>==|>=|<=|>|<) \s+
    (?P<terms>{_TERM} (?: \s+ \+ \s+ {_TERM})*)
    {_OFFSET} {_END}""",
    re.VERBOSE,
)
_ONE_TERM = re.compile(r"(?: ([\d.]+) \s* \* \s* )? gain\( \s* (.+?) \s* \)", re.VERBOSE)


@dataclass(frozen=True)
class Claim:
    """``left operator right`` in a metric.

    `margin` is the most that == allows, and the least by which the one that is to be more is more:
    of ``a >= b - 0.5`` minus a half.
    """

    text: str
    left: str
    operator: str  # ">", ">=", "<", "<=" or "=="
    right: str
    metric: str = "top1"
    margin: float = 0.0

    @property
    def sign(self) -> int:
        """1 where the left side is to be more, -1 where the right side is."""
        return -1 if self.operator[0] == "<" else 1

    @property
    def weights(self) -> dict[str, float]:
        """What is compared with the margin, as a sum over rows of their figures times these."""
        return {self.left: 1.0, self.right: -1.0}

    @property
    def rows(self) -> set[str]:
        """The rows that it is about."""
        return {self.left, self.right}


@dataclass(frozen=True)
class GainClaim:
    """A row's gain on the baseline against a sum of other rows' gains, each times a factor."""

    text: str
    left: str
    operator: str
    terms: tuple[tuple[float, str], ...]  # factor and row
    baseline: str
    metric: str = "top1"
    margin: float = 0.0
    lower_is_better: bool = False  # a gain is then how much less a row has than the baseline

    @property
    def sign(self) -> int:
        """1 where the left side is to be more, -1 where the right side is."""
        return -1 if self.operator[0] == "<" else 1

    @property
    def weights(self) -> dict[str, float]:
        """What is compared with the margin, as a sum over rows of their figures times these."""
        found = {self.left: 1.0} | {row: -factor for factor, row in self.terms}
        found[self.baseline] = math.fsum(factor for factor, _ in self.terms) - 1
        turn = -1.0 if self.lower_is_better else 1.0
        return {row: turn * weight for row, weight in found.items() if weight}

    @property
    def rows(self) -> set[str]:
        """The rows that it is about, the baseline among them."""
        return {self.left, self.baseline, *(row for _, row in self.terms)}


@dataclass(frozen=True)
class BestClaim:
    """A row that is the best, or the worst, of itself and others."""

    text: str
    row: str
    end: str  # "best" or "worst"
    others: tuple[str, ...]
    metric: str = "top1"
    higher_is_better: bool | None = None  # said of a metric that is not one of ours

    @property
    def sign(self) -> int:
        """1 where its figure must be the highest, -1 where it must be the lowest."""
        higher = self.metric in HIGHER_IS_BETTER
        higher = higher if self.higher_is_better is None else self.higher_is_better
        return 1 if (self.end == "best") == higher else -1

    @property
    def rows(self) -> set[str]:
        """The rows that it is about."""
        return {self.row, *self.others}


AnyClaim = Claim | GainClaim | BestClaim


def parse_claim(
    text: str, row_names: Collection[str], baseline: str | None = None, metric: Metric = TOP1
) -> AnyClaim:
    """Read one claim about rows of these names.

    `baseline` is the row that gains are counted from, `metric` what rows are compared by where the
    claim does not say: of another than top-1, its runs have no more than that and their costs.

    Raises:
        InputError: in one line, with the remedy, if it is not a claim or names no row.
    """
    if found := _BEST.fullmatch(text):
        return _best(found, text, row_names, metric)
    if found := _GAINS.fullmatch(text):
        return _gains(found, text, row_names, baseline, metric)
    found = _CLAIM.fullmatch(text)
    if found is None or found["left"].startswith("gain("):
        raise InputError(f"'{text}' is no claim; {EXAMPLE}")
    left, right, offset = _row(found["left"], text, row_names), found["right"], None
    if found["offset"]:
        whole = text[found.start("right") : found.end("offset")]
        if whole in row_names:  # a row's name may end like an offset
            right = whole
        else:
            offset = _offset(found, text)
    right = _row(right, text, row_names)
    _check_others([right], left, text)
    return Claim(
        text, left, found["operator"], right, *_metric_and_margin(found, text, metric, offset)
    )


def _best(found: re.Match[str], text: str, row_names: Collection[str], of: Metric) -> BestClaim:
    row = _row(found["row"], text, row_names)
    if found["others"].strip() == "all":
        others = [name for name in row_names if name != row]
        if not others:
            raise InputError(f"claim '{text}': '{row}' is the only row")
    else:
        others, place = [], 0
        given = found["others"]
        while place < len(given):
            one = _OTHER.match(given, place)
            if one is None:
                raise InputError(
                    f"claim '{text}': write {found['end']} of all, or of rows with commas between"
                )
            others.append(_row(one[1], text, row_names))
            place = one.end()
        _check_others(others, row, text)
    metric = _metric(found["metric"], text, of)
    higher = of.higher_is_better if of != TOP1 and metric == of.name else None
    return BestClaim(text, row, found["end"], tuple(others), metric, higher)


def _gains(
    found: re.Match[str],
    text: str,
    row_names: Collection[str],
    baseline: str | None,
    of: Metric,
) -> GainClaim:
    terms = [
        (_number(factor, "factor", text) if factor else 1.0, _row(name, text, row_names))
        for factor, name in _ONE_TERM.findall(found["terms"])
    ]
    (_, name), *_ = _ONE_TERM.findall(found["left"])
    left = _row(name, text, row_names)
    _check_others([row for _, row in terms], left, text)
    if baseline is None:
        raise InputError(f"claim '{text}' is of gains, and there is no baseline; name one")
    if baseline in (left, *(row for _, row in terms)):
        raise InputError(f"claim '{text}': '{baseline}' is the baseline, whose gain is 0")
    offset = _offset(found, text) if found["offset"] else None
    metric, margin = _metric_and_margin(found, text, of, offset)
    own = metric == of.name
    lower = not of.higher_is_better if own else metric not in HIGHER_IS_BETTER
    return GainClaim(text, left, found["operator"], tuple(terms), baseline, metric, margin, lower)


def _row(given: str, claim: str, row_names: Collection[str]) -> str:
    name = given.strip()
    name = name[1:-1] if name[0] in "\"'" else name
    if name not in row_names:
        raise InputError(
            f"claim '{claim}' names no row '{name}'{did_you_mean(name, row_names) or '.'} "
            f"Rows: {', '.join(map(in_list, row_names))}"
        )
    return name


def _check_others(others: Iterable[str], row: str, claim: str) -> None:
    seen: set[str] = set()
    for other in others:
        if other == row:
            raise InputError(f"claim '{claim}' compares '{row}' with itself; name two rows")
        if other in seen:
            raise InputError(f"claim '{claim}' names '{other}' twice; remove one")
        seen.add(other)


def _metric(given: str | None, claim: str, of: Metric) -> str:
    metric = given or of.name
    known = METRICS if of == TOP1 else (of.name, *COUNTED)
    if metric not in known:
        raise InputError(
            f"claim '{claim}' has no metric '{metric}'{did_you_mean(metric, known) or '.'} "
            f"Metrics: {', '.join(known)}"
        )
    return metric


def _offset(found: re.Match[str], claim: str) -> float:
    offset = _number(found["offset"], "offset", claim)
    return -offset if found["direction"] == "-" else offset


def _metric_and_margin(
    found: re.Match[str], text: str, of: Metric, offset: float | None
) -> tuple[str, float]:
    metric, operator = _metric(found["metric"], text, of), found["operator"]
    in_percent = metric in HIGHER_IS_BETTER if of == TOP1 else of.unit == "%"
    if found["word"] and (found["word"] == "within") != (operator == "=="):
        raise InputError(
            f"claim '{text}': 'by' goes with >, <, >= and <=, 'within' with ==; {EXAMPLE}"
        )
    if offset is not None and (found["word"] or operator == "=="):
        instead = "'within' with ==" if operator == "==" else "an offset or 'by', not both"
        raise InputError(f"claim '{text}': write {instead}; {EXAMPLE}")
    if offset is not None:
        return metric, -offset if operator[0] == "<" else offset
    if found["margin"]:
        margin = _number(found["margin"], "margin", text)
        if operator == "==" and not margin and metric not in COUNTED:
            raise InputError(
                f"claim '{text}': no runs can show two means to be equal within 0; give a margin "
                "that does not matter to you"
            )
        return metric, margin
    if operator == "==" and metric not in COUNTED and not in_percent:
        raise InputError(f"claim '{text}': add 'within' and a margin, since 0.5 is of accuracies")
    equal = operator == "==" and metric not in COUNTED
    return metric, EQUAL_WITHIN if equal else 0.0


def _number(text: str, what: str, claim: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise InputError(f"claim '{claim}': the {what} '{text}' is not a number from 0")
    return value
