"""The curves of one row's seeds, drawn by hand: Vega would take minutes for forty rows of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from blocklab.report.curves import Curve
from blocklab.report.drawing import COLOURS, LINE_OF_TEXT, limits, spread, ticks
from blocklab.report.rendering import Drawn
from blocklab.results.ended_run import EndedRun
from blocklab.statistics.summary import PERCENT

WIDTH, HEIGHT = 460, 240  # of the axes
LEFT, RIGHT, TOP, BOTTOM = 58, 110, 10, 44  # around them
MOST_POINTS = 200


def curves_of_seeds(runs: Sequence[EndedRun], curve: Curve) -> Drawn | None:
    """Draw a line for each seed, diverged ones too; None where nothing is recorded."""
    lines = {
        f"seed {run.seed}{', diverged' if run.diverged else ''}": points
        for run in runs
        if (points := _points(run, curve.field))
    }
    if not lines:
        return None
    return Drawn(curve.figure, curve.title, "A line a seed.", _svg(lines, curve))


def _points(run: EndedRun, field: str) -> dict[int, float]:
    found = {
        line["epoch"]: value
        for line in run.log
        if (value := line.get(field)) is not None and math.isfinite(value)
    }
    step = math.ceil(len(found) / MOST_POINTS) or 1
    return dict(list(found.items())[::-1][::step][::-1])


@dataclass(frozen=True)
class _Axes:
    """The limits of both axes, and where on the drawing an epoch and a value lie."""

    first: int
    last: int
    low: float
    high: float

    def across(self, epoch: float) -> float:
        return LEFT + WIDTH * (epoch - self.first) / (self.last - self.first)

    def down(self, value: float) -> float:
        return TOP + HEIGHT * (self.high - value) / (self.high - self.low)

    def drawn(self) -> list[str]:
        """Return both axes, with a line of grid at each value that is named."""
        floor, parts = TOP + HEIGHT, []
        for value in ticks(self.low, self.high, 5):
            y = f"{self.down(value):.1f}"
            parts.append(
                f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y}" y2="{y}" stroke="currentColor" '
                f'opacity=".12"/>'
                f'<text x="{LEFT - 6}" y="{y}" dy="4" text-anchor="end">{value:g}</text>'
            )
        for epoch in ticks(self.first, self.last, 8, least=1):
            x = f"{self.across(epoch):.1f}"
            parts.append(f'<text x="{x}" y="{floor + 16}" text-anchor="middle">{epoch:g}</text>')
        parts.append(
            f'<path d="M{LEFT},{TOP}V{floor}H{LEFT + WIDTH}" fill="none" stroke="currentColor"/>'
        )
        return parts


def _svg(lines: Mapping[str, Mapping[int, float]], curve: Curve) -> Markup:
    values = [value for points in lines.values() for value in points.values()]
    epochs = [epoch for points in lines.values() for epoch in points]
    reach = max(values) - min(values)
    low, high = (
        limits(values, bounds=PERCENT)
        if curve.percent
        else limits(values, least=0.1 * reach or 0.1, bounds=(0.0, math.inf))
    )
    axes = _Axes(min(epochs), max(*epochs, min(epochs) + 1), low, high)
    ends = [list(points.values())[-1] for points in lines.values()]
    places = spread(ends, (high - low) * LINE_OF_TEXT / HEIGHT, high)
    middle, right = LEFT + WIDTH / 2, LEFT + WIDTH + RIGHT
    parts = [
        *axes.drawn(),
        f'<text x="{middle}" y="{TOP + HEIGHT + 36}" text-anchor="middle">Epoch</text>',
        f'<text transform="translate(14 {TOP + HEIGHT / 2}) rotate(-90)" text-anchor="middle">'
        f"{Markup.escape(curve.axis)}</text>",
    ]
    for number, ((name, points), place) in enumerate(zip(lines.items(), places, strict=True)):
        said = f"{name}: {ends[number]:.2f}{' %' if curve.percent else ''} at the end"
        path = " ".join(f"{axes.across(e):.1f},{axes.down(v):.1f}" for e, v in points.items())
        mark = f'<polyline points="{path}" fill="none" stroke-width="2"/>'
        if len(points) == 1:
            x, y = path.split(",")
            mark = f'<circle cx="{x}" cy="{y}" r="4"/>'
        colour = COLOURS[number % len(COLOURS)]
        parts.append(
            f'<g data-row="{number}" data-said="{Markup.escape(said)}" stroke="{colour}">{mark}'
            f'<text x="{LEFT + WIDTH + 10}" y="{axes.down(place) + 4:.1f}" fill="{colour}" '
            f'stroke="none">{Markup.escape(name)}</text></g>'
        )
    return Markup(
        f'<svg viewBox="0 0 {right} {TOP + HEIGHT + BOTTOM}" width="{right}" font-size="12" '
        f'fill="currentColor">{"".join(parts)}</svg>'
    )
