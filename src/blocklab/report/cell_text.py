"""How a cell says a figure: decimals, signs, intervals, and a dash for what was not measured."""

from blocklab.results.image_intervals import ImageInterval
from blocklab.results.row_result import RowResult
from blocklab.results.statistics import Difference, Summary

ABSENT = "\u2013"  # an en dash: not measured, which is not zero
MINUS = "\u2212"
TIMES = "\u00d7"


def square(size: int) -> str:
    """Show a size of images, a side by a side."""
    return f"{size}{TIMES}{size}"


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
    """Show ``[low, high]``."""
    if summary is None or summary.low is None or summary.high is None:
        return ABSENT
    return f"[{summary.low:.2f}, {summary.high:.2f}]".replace("-", MINUS)


def difference(row: RowResult, baseline: str | None) -> str:
    """Show a row's gain on the baseline in points, signed, with its interval."""
    if row.name == baseline:
        return "baseline"
    gap = row.difference
    if gap is None:
        return ABSENT
    if gap.low is None or gap.high is None:
        return signed(gap.mean)
    return f"{signed(gap.mean)} [{signed(gap.low)}, {signed(gap.high)}]"


def signed_interval(gap: Difference | ImageInterval | None) -> str:
    """Show ``[low, high]`` of a difference, signed."""
    if gap is None or gap.low is None or gap.high is None:
        return ABSENT
    return f"[{signed(gap.low)}, {signed(gap.high)}]"


def chance(p: float | None) -> str:
    """Show a p value."""
    if p is None:
        return ABSENT
    return "< 0.001" if p < 0.001 else f"{min(p, 1.0):.3f}"


def signed(value: float) -> str:
    """Show points with their sign; what rounds to zero has none."""
    text = f"{value:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", MINUS)
