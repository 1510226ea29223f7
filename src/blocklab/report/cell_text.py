"""How a cell says a figure: decimals, signs, intervals, and a dash for what was not measured."""

from collections.abc import Callable

from blocklab.results.image_intervals import ImageInterval
from blocklab.results.row_result import RowResult
from blocklab.statistics.family import Difference
from blocklab.statistics.summary import PERCENT, POINTS, Summary

ABSENT = "\u2013"  # an en dash: not measured, which is not zero
MINUS = "\u2212"
TIMES = "\u00d7"
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
    return ABSENT if value is None else f"{value:.2f}"


def mean_and_sd(summary: Summary | None) -> str:
    """Show the mean and SD, or the one value that there is."""
    if summary is None:
        return ABSENT
    sd = "" if summary.sd is None else f" \u00b1 {summary.sd:.2f}"
    return f"{summary.mean:.2f}{sd}"


def interval(summary: Summary | ImageInterval | None) -> str:
    """Show ``[low, high]`` of a percentage, or why there is none."""
    return _between(summary, accuracy_percent, PERCENT)


def difference(row: RowResult, baseline: str | None) -> str:
    """Show a row's gain on the baseline in points, signed, with its interval."""
    if row.name == baseline:
        return "baseline"
    gap = row.difference
    if gap is None:
        return ABSENT
    return signed(gap.mean) + ("" if gap.low is None else f" {signed_interval(gap)}")


def signed_interval(gap: Difference | ImageInterval | None) -> str:
    """Show ``[low, high]`` of a difference, signed, or why there is none."""
    return _between(gap, signed, POINTS)


def signed_ends(low: float | None, high: float | None) -> str:
    """Show ``[low, high]`` of a difference, signed."""
    return ABSENT if low is None or high is None else _ends(low, high, signed, POINTS)


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
    """Show a p value."""
    if p is None:
        return ABSENT
    return "< 0.001" if p < 0.001 else f"{min(p, 1.0):.3f}"


def signed(value: float) -> str:
    """Show points with their sign; what rounds to zero has none."""
    text = f"{value:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", MINUS)
