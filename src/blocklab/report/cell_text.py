"""How a cell says a figure: decimals, signs, intervals, and a dash for what was not measured."""

import math
from collections.abc import Callable

from blocklab.results.image_intervals import ImageInterval
from blocklab.results.row_result import RowResult
from blocklab.statistics.family import Difference
from blocklab.statistics.summary import ALPHA, Summary
from blocklab.study.metric import TOP1, Metric

ABSENT = "\u2013"  # an en dash: not measured, which is not zero
MINUS = "\u2212"
TIMES = "\u00d7"
_NOISE = 1e-9  # of arithmetic, about a zero
NO_SPREAD = "no spread seen"  # several seeds of one value: nothing follows about the next


def square(size: int) -> str:
    """Show a size of square images, a side by a side."""
    return sides(size)


def sides(size: int | tuple[int, int]) -> str:
    """Show a size of images: of squares by their side, else height and width."""
    height, width = (size, size) if isinstance(size, int) else size
    return f"{height}{TIMES}{width}"


def whole(number: float | None) -> str:
    """Show a count."""
    return ABSENT if number is None else f"{number:,.0f}"


def accuracy_percent(value: float | None) -> str:
    """Show a percentage with 2 decimals."""
    return plain(value, TOP1)


def plain(value: float | None, metric: Metric) -> str:
    """Show a value of a metric, with its decimals."""
    if value is None:
        return ABSENT
    return f"{value:.{metric.decimals}f}".replace("-", MINUS)


def mean_and_sd(summary: Summary | None, metric: Metric = TOP1) -> str:
    """Show the mean and SD, or the one value that there is."""
    if summary is None:
        return ABSENT
    sd = "" if summary.sd is None else f" \u00b1 {plain(summary.sd, metric)}"
    return f"{plain(summary.mean, metric)}{sd}"


def interval(summary: Summary | ImageInterval | None, metric: Metric = TOP1) -> str:
    """Show ``[low, high]`` of a metric, or why there is none."""
    return _between(summary, lambda value: plain(value, metric), metric.bounds)


def difference(row: RowResult, baseline: str | None) -> str:
    """Show a row's gain on the baseline, signed, with its interval."""
    if row.name == baseline:
        return "baseline"
    gap = row.difference
    if gap is None:
        return ABSENT
    between = "" if gap.low is None else f" {signed_interval(gap, row.metric)}"
    return signed(gap.mean, row.metric) + between


def signed_interval(gap: Difference | ImageInterval | None, metric: Metric = TOP1) -> str:
    """Show ``[low, high]`` of a difference, signed, or why there is none."""
    return _between(gap, lambda value: _signed_end(value, metric), metric.difference_bounds)


def signed_ends(low: float | None, high: float | None) -> str:
    """Show ``[low, high]`` of a difference, signed."""
    return (
        ABSENT
        if low is None or high is None
        else _ends(low, high, _signed_end, TOP1.difference_bounds)
    )


def _between(
    one: Summary | Difference | ImageInterval | None,
    shown: Callable[[float], str],
    bounds: tuple[float, float],
) -> str:
    if isinstance(one, Summary) and one.n > 1 and one.low is None:
        return NO_SPREAD
    if one is None or one.low is None or one.high is None:
        return ABSENT
    return _ends(one.low, one.high, shown, bounds)


def _ends(
    low: float, high: float, shown: Callable[[float], str], bounds: tuple[float, float]
) -> str:
    """Show two ends; one that was cut at what an accuracy can be says so."""
    least = "\u2265 " if low == bounds[0] else ""
    most = "\u2264 " if high == bounds[1] else ""
    return f"[{least}{shown(low)}, {most}{shown(high)}]"


def chance(p: float | None) -> str:
    """Show a p value; one just below the level is not shown as the level."""
    if p is None:
        return ABSENT
    if ALPHA - 5e-4 <= p < ALPHA:
        return f"{math.floor(p * 1e4) / 1e4:.4f}"
    return "< 0.001" if p < 0.001 else f"{min(p, 1.0):.3f}"


def _signed_end(value: float, metric: Metric = TOP1) -> str:
    """Show an end of an interval: whether zero lies within is seen where it rounds to zero too."""
    text = signed(value, metric)
    if float(text.replace(MINUS, "-")) == 0 and abs(value) > _NOISE:
        text = f"{MINUS if value < 0 else '+'}{text}"
    return text


def signed(value: float, metric: Metric = TOP1) -> str:
    """Show a difference, such as points, with its sign; what rounds to zero has none."""
    text = f"{value:+.{metric.decimals}f}"
    return text[1:] if float(text) == 0 else text.replace("-", MINUS)
