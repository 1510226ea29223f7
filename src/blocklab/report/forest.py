"""The differences to the baseline drawn row by row, each small enough for a cell of the table.

All cells share one axis, and places across are shares of a cell's width, so that the cells line up
below each other at any width, with or without scripts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from blocklab.report.cell_text import difference, signed
from blocklab.report.drawing import ticks
from blocklab.results.row_result import RowResult
from blocklab.results.study_results import StudyResults
from blocklab.statistics.family import BETTER, WORSE

HEIGHT = 24  # pixels
FAR = 4.0  # times what the middle row reaches: beyond it, a row is cut off with an arrow
LOOKS = {BETTER: "better", WORSE: "worse"}
EDGE = 6.0  # percent of the width on either side of the axis


@dataclass(frozen=True)
class Forest:
    """The drawings by row, and that of the axis for their heading.

    `bars` says whether any difference has an interval, `cut` whether one goes on beyond the axis.
    """

    cells: Mapping[str, Markup]
    axis: Markup
    bars: bool
    cut: bool


def forest(results: StudyResults) -> Forest | None:
    """Draw each row's difference to the baseline and its interval; None where there is none."""
    gaps = {row.name: row.difference for row in results.rows if row.difference is not None}
    if not gaps:
        return None
    reach = sorted(
        max(abs(end) for end in (gap.mean, gap.low, gap.high) if end is not None)
        for gap in gaps.values()
    )
    least = results.metric.least_shown / 10
    far = max(FAR * reach[len(reach) // 2], 2 * least)
    limit = reach[-1] if reach[-1] <= far else far
    limit = max(limit, least)
    marked = ticks(-limit, limit, 6)
    cells = {row.name: _cell(row, results, limit, marked) for row in results.rows}
    bars = any(gap.low is not None for gap in gaps.values())
    return Forest(cells, _axis(limit, marked), bars, reach[-1] > limit)


def _cell(row: RowResult, results: StudyResults, limit: float, marked: list[float]) -> Markup:
    gap = row.difference
    lines = [_rule(value, limit, "zero" if abs(value) < 1e-9 else "tick") for value in marked]
    marks = []
    if row.name == results.baseline:
        label = Markup("the baseline")
    elif gap is None:
        label = Markup("not compared")
    else:
        label = Markup.escape(f"{difference(row, results.baseline)}")
        if gap.low is not None and gap.high is not None:
            low, high = _place(gap.low, limit), _place(gap.high, limit)
            marks.append(f'<line class="bar" x1="{low:.1f}%" x2="{high:.1f}%" y1="50%" y2="50%"/>')
        if abs(gap.mean) <= limit:
            kind = "mean" if gap.low is not None else "mean alone"
            place = f"{_place(gap.mean, limit):.1f}%"
            marks.append(f'<circle class="{kind}" cx="{place}" cy="50%" r="4.5"/>')
        for end, sign in ((gap.low, -1), (gap.high, 1)):
            furthest = gap.mean if end is None else end
            if sign * furthest > limit or sign * gap.mean > limit:
                marks.append(
                    _arrow(sign, signed(gap.mean, row.metric) if abs(gap.mean) > limit else "")
                )
    word = results.comparisons[row.name].word if row.name in results.comparisons else ""
    look = LOOKS.get(word, "open")
    return Markup(
        f'<svg class="forest {look}" width="100%" height="{HEIGHT}" role="img" '
        f'aria-label="{label}">{"".join(lines)}{"".join(marks)}</svg>'
    )


def _axis(limit: float, marked: list[float]) -> Markup:
    texts = [
        f'<text x="{_place(value, limit):.1f}%" y="11" text-anchor="middle">{_short(value)}</text>'
        for value in marked
    ]
    return Markup(
        f'<svg class="axis" width="100%" height="14" aria-hidden="true">{"".join(texts)}</svg>'
    )


def _short(value: float) -> str:
    """Show a round value with its sign and no more digits than it has."""
    return f"{value:+.3g}".replace("-", "\u2212") if abs(value) > 1e-9 else "0"


def _place(value: float, limit: float) -> float:
    """Return where a value is, in percent of the width; what is beyond the axis is at its edge."""
    inside = min(max(value, -1.08 * limit), 1.08 * limit)
    return 50 + (50 - EDGE) * inside / limit


def _rule(value: float, limit: float, kind: str) -> str:
    place = f"{_place(value, limit):.1f}%"
    return f'<line class="{kind}" x1="{place}" x2="{place}" y1="0" y2="100%"/>'


def _arrow(sign: int, text: str) -> str:
    """Draw an arrow at an edge of the cell, with what it stands for beside it."""
    place, turn = ("0%", 8) if sign < 0 else ("100%", -8)
    ends = "".join(
        f'<svg x="{place}" y="50%" overflow="visible" width="1" height="1">'
        f'<path class="arrow" d="M0,0 L{turn},-5 L{turn},5 Z"/></svg>'
    )
    if text:
        anchor, shift = ("start", 12) if sign < 0 else ("end", -12)
        ends += (
            f'<text class="far" x="{place}" dx="{shift}" y="50%" dy="4" '
            f'text-anchor="{anchor}">{text}</text>'
        )
    return ends
