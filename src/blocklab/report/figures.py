"""The figures: accuracy over epochs, accuracy against cost, and gains on the baseline."""

import math
from pathlib import Path
from typing import Any, Literal

import altair as alt
import vl_convert

from blocklab.files import remove_file, write_atomically
from blocklab.report.cell_text import difference, square
from blocklab.report.curves import learning_rate, left_out, over_epochs, shown_rows
from blocklab.report.drawing import (
    LABEL_OFFSET,
    LINE_OF_TEXT,
    ON_PAPER,
    WIDTH,
    Figure,
    data,
    limits,
    look,
    place_labels,
    specification,
)
from blocklab.results.row_result import RowResult
from blocklab.results.statistics import BETTER, PERCENT, POINTS, WORSE
from blocklab.results.study_results import StudyResults

NAMES = (
    "validation_accuracy_over_epochs",
    "test_accuracy_over_epochs",
    "validation_top5_over_epochs",
    "test_top5_over_epochs",
    "accuracy_against_macs",
    "differences",
    "learning_rate",
    "learning_rate_by_step",
)
MOST_LABELS = 16  # beside points, among their bars; pointing at a point names the others
MOST_DIFFERENCES = 60  # bars below each other; of more, the largest gains and losses
CUT_SHAPES = ("triangle-down", "triangle-up")  # of an interval that goes on beyond what can be
SHOWN, NOT_SHOWN = "#0072b2", "#8a8a8a"


def figures(results: StudyResults) -> tuple[Figure, ...]:
    """Return the figures that the finished runs can fill; none without a finished run."""
    if not any(row.top1 for row in results.rows):
        return ()
    found = [
        over_epochs(results, "validation", 1, NAMES[0]),
        over_epochs(results, "test", 1, NAMES[1]),
        over_epochs(results, "validation", 5, NAMES[2]),
        over_epochs(results, "test", 5, NAMES[3]),
        _against_macs(results),
        _differences(results),
        learning_rate(results, NAMES[6]),
        learning_rate(results, NAMES[7], by_step=True),
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


def svg(figure: Figure, config: dict[str, Any]) -> str:
    """Draw a figure as SVG; nothing is fetched."""
    return vl_convert.vegalite_to_svg(figure.specification, config=config, allowed_base_urls=[])


def png(figure: Figure) -> bytes:
    """Draw a figure as PNG; nothing is fetched."""
    specification = figure.specification
    return vl_convert.vegalite_to_png(specification, scale=2, config=ON_PAPER, allowed_base_urls=[])


def _against_macs(results: StudyResults) -> Figure | None:
    points, named = [], {row.name for row in shown_rows(results, MOST_LABELS)}
    for row in results.rows:
        if row.top1 is None:
            continue
        point = {"row": row.name, "macs_g": row.macs / 1e9, "top1": row.top1.mean}
        points.append(point | {"low": row.top1.low, "high": row.top1.high, "n": row.top1.n})
    if not points:
        return None
    labelled = [point for point in points if point["row"] in named]
    height = max(360, LINE_OF_TEXT * (len(labelled) + 2))
    ends = [v for p in points for v in (p["top1"], p["low"], p["high"])]
    low, high = limits(ends, bounds=PERCENT)
    macs = [point["macs_g"] for point in points]
    wide = min(macs) > 0 and max(macs) / min(macs) > 8  # then equal ratios deserve equal lengths
    left, right = (
        (min(macs) / 1.3, max(macs) * 1.3) if wide else limits(macs, least=max(macs) * 0.1 or 1)
    )
    scale = math.log if wide else float
    for point in points:
        point["place"] = WIDTH * (scale(point["macs_g"]) - scale(left))
        point["place"] /= scale(right) - scale(left)
    place_labels(labelled, points, low, (high - low) * LINE_OF_TEXT / height)
    sizes = {row.input_size for row in results.rows}
    size = f"at {square(*sizes)}" if len(sizes) == 1 else "each at the row's own size"
    x = alt.X(
        "macs_g:Q",
        title=f"MACs for one image (G, {size}{', logarithmic' if wide else ''})",
        scale=alt.Scale(domain=[left, right], type="log" if wide else "linear", nice=False),
        axis=alt.Axis(grid=False, tickCount=8),
    )
    percent = alt.Scale(domain=[low, high], nice=False)
    y = alt.Y("top1:Q", title="Test top-1 accuracy (%)", scale=percent)
    tooltip = [alt.Tooltip("row:N"), alt.Tooltip("macs_g:Q", title="MACs (G)", format=".4~r")]
    tooltip += [alt.Tooltip(f"{name}:Q", format=".2f") for name in ("top1", "low", "high")]
    tooltip += [alt.Tooltip("n:Q", title="seeds")]
    base = alt.Chart(data(points))
    colour = {"color": look([row.name for row in results.rows])["color"]}
    layers = [
        alt.Chart(data(point for point in points if point["low"] is not None))
        .mark_rule(strokeWidth=1.5, opacity=0.5)
        .encode(x=x, y=alt.Y("low:Q", scale=percent), y2="high:Q", **colour),
        *(
            alt.Chart(data(point for point in points if point[end] == bound))
            .mark_point(shape=shape, filled=True, size=40, opacity=0.7)
            .encode(x=x, y=alt.Y(f"{end}:Q", scale=percent), **colour)
            for end, bound, shape in zip(("low", "high"), PERCENT, CUT_SHAPES, strict=True)
        ),
        base.mark_point(filled=True, size=80, opacity=1).encode(
            x=x, y=y, tooltip=tooltip, **colour
        ),
    ]
    label_y = alt.Y("label:Q", scale=percent)
    sides: tuple[tuple[Literal["left", "right"], int], ...] = (("left", 1), ("right", -1))
    for align, sign in sides:
        beside = alt.Chart(data(point for point in labelled if point["align"] == align))
        reach = sign * (LABEL_OFFSET - 2)
        leaders = beside.mark_rule(strokeWidth=0.7, opacity=0.6, xOffset=0, x2Offset=reach)
        layers.insert(0, leaders.encode(x=x, x2="macs_g:Q", y=y, y2="label:Q"))
        labels = beside.mark_text(align=align, dx=sign * LABEL_OFFSET, baseline="middle")
        layers.append(labels.encode(x=x, y=label_y, text="row:N"))
    shows = "Point: mean over finished seeds. Bar: 95 % interval; a row with one seed has none."
    if any(point["low"] == PERCENT[0] or point["high"] == PERCENT[1] for point in points):
        shows += " A triangle at its end: cut there, at what an accuracy can be."
    title, shape = "Accuracy against MACs", specification(layers, height)
    return Figure(NAMES[4], title, shows + left_out(results, MOST_LABELS), shape)


def _differences(results: StudyResults) -> Figure | None:
    compared = [row for row in results.rows if row.difference is not None]
    if not compared:
        return None
    shows = "Mean over the seeds that both rows have, paired by seed, with its 95 % interval."
    if len(compared) > MOST_DIFFERENCES:
        shows += f" Of {len(compared)} rows, the {MOST_DIFFERENCES} that differ most."
        size = {row.name: abs(row.difference.mean) if row.difference else 0.0 for row in compared}
        kept = set(sorted(size, key=lambda name: -size[name])[:MOST_DIFFERENCES])
        compared = [row for row in compared if row.name in kept]
    points = [_difference_point(row, results) for row in compared]
    x = alt.X(
        "mean:Q",
        title=f"Test top-1 minus {results.baseline} (percentage points)",
        scale=alt.Scale(zero=True, nice=True),
    )
    bare = alt.Axis(grid=False, ticks=False, domain=False, labelPadding=10)
    y = alt.Y("row:N", title=None, sort=None, axis=bare)
    drawn = [point for point in points if point["low"] is not None]
    tooltip = [alt.Tooltip("row:N"), alt.Tooltip("text:N", title="points"), alt.Tooltip("n:Q")]
    tooltip.append(alt.Tooltip("verdict:N"))
    scale = alt.Scale(domain=[True, False], range=[SHOWN, NOT_SHOWN])
    colour = alt.Color("shown:N", legend=None, scale=scale)
    layers = [
        alt.Chart(data([{"zero": 0}])).mark_rule(strokeDash=[4, 3]).encode(x=alt.X("zero:Q")),
        alt.Chart(data(points))
        .mark_point(filled=True, size=70, opacity=1)
        .encode(x=x, y=y, color=colour, tooltip=tooltip),
        alt.Chart(data(points))
        .mark_text(align="left", dx=12, baseline="middle")
        .encode(x=alt.value(WIDTH), y=y, text="text:N"),
    ]
    if drawn:
        bars = alt.Chart(data(drawn)).mark_rule(strokeWidth=2.5)
        layers.insert(1, bars.encode(x=alt.X("low:Q"), x2="high:Q", y=y, color=colour))
        for end, bound, shape in zip(
            ("low", "high"), POINTS, ("triangle-left", "triangle-right"), strict=True
        ):
            cut = [point for point in drawn if point[end] == bound]
            marks = alt.Chart(data(cut)).mark_point(shape=shape, filled=True, size=60, opacity=1)
            layers.append(marks.encode(x=alt.X(f"{end}:Q"), y=y, color=colour))
        shows += " Blue: better or worse, corrected for all rows; grey: not shown to be either."
    else:
        shows += " One shared seed gives no interval."
    shape = specification(layers, alt.Step(30 if len(points) < 30 else 20))
    return Figure(NAMES[5], "Differences to the baseline", shows, shape)


def _difference_point(row: RowResult, results: StudyResults) -> dict[str, Any]:
    gap = row.difference
    assert gap is not None  # the caller has looked
    word = results.comparisons[row.name].word
    point = {"row": row.name, "mean": gap.mean, "low": gap.low, "high": gap.high, "n": gap.n}
    point |= {"verdict": word, "shown": word in (BETTER, WORSE)}
    return point | {"text": difference(row, results.baseline)}
