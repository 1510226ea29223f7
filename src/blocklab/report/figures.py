"""All figures of a study, and their files: over epochs, against cost, of seeds, of gains."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt

from blocklab.files import remove_file, write_atomically
from blocklab.report.cell_text import difference
from blocklab.report.cost_figures import COSTS, against
from blocklab.report.curves import CURVES, learning_rate, over_epochs
from blocklab.report.drawing import (
    ON_PAPER,
    WIDTH,
    Figure,
    data,
    png,
    said,
    specification,
    svg,
    ticks,
)
from blocklab.report.metric import metric_of
from blocklab.report.seed_figure import seeds_as_dots
from blocklab.results.row_result import RowResult
from blocklab.results.study_results import StudyResults
from blocklab.statistics.family import BETTER, WORSE

SEEDS, DIFFERENCES, RATE, RATE_BY_STEP = (
    "accuracy_of_each_seed",
    "differences",
    "learning_rate",
    "learning_rate_by_step",
)
NAMES = (
    *(curve.figure for curve in CURVES),
    *(cost.figure for cost in COSTS),
    *(SEEDS, DIFFERENCES, RATE, RATE_BY_STEP),
)
MOST_DIFFERENCES = 60  # bars below each other; of more, the largest gains and losses
SHOWN, NOT_SHOWN = "#0072b2", "#8a8a8a"


def figures(results: StudyResults) -> tuple[Figure, ...]:
    """Return the figures that the finished runs can fill; none without a finished run."""
    if not any(row.score for row in results.rows):
        return ()
    found = [
        *(over_epochs(results, curve) for curve in CURVES),
        *(against(results, cost) for cost in COSTS),
        seeds_as_dots(results, SEEDS),
        _differences(results),
        learning_rate(results, RATE),
        learning_rate(results, RATE_BY_STEP, by_step=True),
    ]
    return tuple(figure for figure in found if figure is not None)


def save_figures(figures: tuple[Figure, ...], folder: Path) -> list[Path]:
    """Write each figure to `folder` as SVG and PNG (twice the screen's resolution).

    A figure that no longer has data is removed, so that the folder never mixes two states. Where
    `folder` is a link, a folder takes its place: a study that was received writes nowhere else.

    Raises:
        RunError: if the folder cannot be written.
    """
    if folder.is_symlink():
        remove_file(folder)
    written = [path for one in figures for path in write_figure(one, folder, one.name)]
    for name in NAMES:
        for path in (folder / f"{name}.svg", folder / f"{name}.png"):
            if path not in written:
                remove_file(path)
    return written


def write_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as NAME.svg and NAME.png; return their paths.

    Raises:
        RunError: if the folder cannot be written.
    """
    paths = folder / f"{name}.svg", folder / f"{name}.png"
    for path, content in zip(paths, (svg(figure, ON_PAPER), png(figure)), strict=True):
        write_atomically(path, content)
    return [*paths]


def _differences(results: StudyResults) -> Figure | None:
    metric = metric_of(results)
    compared = [row for row in results.rows if row.difference is not None]
    if not compared:
        return None
    held = results.held_for
    shows = f"Difference of means, with intervals that in 95 % of studies hold for {held}."
    if len(compared) > MOST_DIFFERENCES:
        shows += f" Of {len(compared)} rows, the {MOST_DIFFERENCES} that differ most."
        size = {row.name: abs(row.difference.mean) if row.difference else 0.0 for row in compared}
        kept = set(sorted(size, key=lambda name: -size[name])[:MOST_DIFFERENCES])
        compared = [row for row in compared if row.name in kept]
    numbers = {row.name: number for number, row in enumerate(results.rows)}
    points = [_difference_point(numbers[row.name], row, results) for row in compared]
    x = alt.X(
        "mean:Q",
        title=metric.minus(str(results.baseline)),
        scale=alt.Scale(zero=True, nice=True),
        axis=_marked(points),
    )
    bare = alt.Axis(grid=False, ticks=False, domain=False, labelPadding=10)
    y = alt.Y("row:N", title=None, sort=None, axis=bare)
    drawn = [point for point in points if point["low"] is not None]
    scale = alt.Scale(domain=[True, False], range=[SHOWN, NOT_SHOWN])
    colour = alt.Color("shown:N", legend=None, scale=scale)
    layers = [
        alt.Chart(data([{"zero": 0}])).mark_rule(strokeDash=[4, 3]).encode(x=alt.X("zero:Q")),
        alt.Chart(data(points))
        .mark_point(filled=True, size=70, opacity=1)
        .encode(x=x, y=y, color=colour),
        alt.Chart(data(points))
        .mark_text(align="left", dx=12, baseline="middle")
        .encode(x=alt.value(WIDTH), y=y, text="text:N"),
    ]
    if drawn:
        bars = alt.Chart(data(drawn)).mark_rule(strokeWidth=2.5)
        bounds = results.metric.difference_bounds
        layers.insert(1, bars.encode(x=alt.X("low:Q"), x2="high:Q", y=y, color=colour))
        for end, bound, shape in zip(
            ("low", "high"),
            bounds,
            ("triangle-left", "triangle-right"),
            strict=True,
        ):
            cut = [point for point in drawn if point[end] == bound]
            marks = alt.Chart(data(cut)).mark_point(shape=shape, filled=True, size=60, opacity=1)
            layers.append(marks.encode(x=alt.X(f"{end}:Q"), y=y, color=colour))
        shows += " Blue: better or worse; grey: not shown to be either."
    else:
        shows += " Too few seeds for intervals."
    shape = specification(layers, alt.Step(30 if len(points) < 30 else 20))
    return Figure(DIFFERENCES, "Differences to the baseline", shows, shape)


def _marked(points: Sequence[dict[str, Any]]) -> alt.Axis:
    """Return an axis of few enough round values that all are written, zero among them.

    Of Vega's own each second is left out where they would touch: on some axes that is zero.
    """
    ends = [point[end] for point in points for end in ("mean", "low", "high")]
    known = [0.0, *(end for end in ends if end is not None)]
    low, high = min(known), max(known)
    return alt.Axis(values=ticks(low, high, 7)) if low < high else alt.Axis()


def _difference_point(number: int, row: RowResult, results: StudyResults) -> dict[str, Any]:
    gap = row.difference
    assert gap is not None  # the caller has looked
    word = results.comparisons[row.name].word
    point = {"row": row.name, "mean": gap.mean, "low": gap.low, "high": gap.high, "n": gap.n}
    point |= {"verdict": word, "shown": word in (BETTER, WORSE)}
    text = difference(row, results.baseline)
    return point | {"text": text} | said(number, f"{row.name}: {text}, {word}")
