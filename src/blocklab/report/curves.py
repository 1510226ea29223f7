"""Figures over epochs: accuracies and losses, a line a row, and the recipe's learning rate."""

import math
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import altair as alt

from blocklab.errors import InputError
from blocklab.report.drawing import (
    COLOURS,
    LINE_OF_TEXT,
    Figure,
    data,
    limits,
    look,
    said,
    specification,
    spread,
)
from blocklab.results.row_result import RowResult
from blocklab.results.study_results import StudyResults
from blocklab.statistics.summary import PERCENT, summarise
from blocklab.study.metric import TOP1
from blocklab.training.recipe import Recipe

MOST_LINES = 60  # a page of hundreds of rows stays light
MOST_NAMES = 14  # beside lines; more make the figure smaller than its names
MOST_POINTS_A_LINE = 120

Points = list[dict[str, Any]]


def shown_rows(results: StudyResults, most: int) -> list[RowResult]:
    """Return the rows that a figure shows: all, or of many the baseline and the most accurate."""
    if len(results.rows) <= most:
        return list(results.rows)
    finished = [row for row in results.rows if row.score is not None]
    rank = results.metric.rank
    ranked = sorted(finished, key=lambda row: -rank(row.score.mean) if row.score else 0.0)
    kept = {row.name for row in ranked[: most - 1]} | {results.baseline}
    return [row for row in results.rows if row.name in kept]


def left_out(results: StudyResults, most: int, drawn: int | None = None) -> str:
    """Say which rows a figure does not name, and how many it draws, if not all."""
    # What has no finished run is in no figure.
    rows = sum(row.score is not None or row.name == results.baseline for row in results.rows)
    shown = len(shown_rows(results, most))
    if shown >= rows:
        return ""
    ones = "most accurate" if results.metric == TOP1 else "best"
    which = f"the baseline and the {ones} ones" if results.baseline else f"the {ones}"
    counts = f"{shown} are named"
    if drawn is not None and drawn < rows:
        counts = f"{drawn} are drawn and {shown} named"
    return f" Of {rows} rows {counts}: {which}."


@dataclass(frozen=True)
class Curve:
    """What is drawn over epochs: the name of its figure, a field of log.jsonl, and its words."""

    figure: str
    field: str
    title: str
    axis: str
    percent: bool = True
    over: str = "epoch"  # what is counted along it


CURVES = (
    Curve(
        "validation_accuracy_over_epochs",
        "validation_top1_percent",
        "Validation top-1 over epochs",
        "Validation top-1 accuracy (%)",
    ),
    Curve(
        "train_accuracy_over_epochs",
        "train_top1_percent",
        "Training top-1 over epochs",
        "Training top-1 accuracy (%)",
    ),
    Curve(
        "train_loss_over_epochs",
        "train_loss",
        "Training loss over epochs",
        "Training loss",
        percent=False,
    ),
    Curve(
        "test_accuracy_over_epochs",
        "test_top1_percent",
        "Test top-1 over epochs",
        "Test top-1 accuracy (%)",
    ),
    Curve(
        "validation_top5_over_epochs",
        "validation_top5_percent",
        "Validation top-5 over epochs",
        "Validation top-5 accuracy (%)",
    ),
    Curve(
        "test_top5_over_epochs",
        "test_top5_percent",
        "Test top-5 over epochs",
        "Test top-5 accuracy (%)",
    ),
)


def over_epochs(results: StudyResults, curve: Curve) -> Figure | None:
    """Draw a mean over seeds at each epoch, in a band from the lowest seed to the highest.

    None where no run has recorded it, or it says nothing.
    """
    if "top5" in curve.field and not results.shows_top5:
        return None
    if results.metric != TOP1 and curve.field == TOP1.figure:  # theirs takes its place
        metric = results.metric
        title, percent = f"{metric.name} by {results.axis}", metric.unit == "%"
        curve = Curve(curve.figure, metric.figure, title, metric.heading, percent, results.axis)
    shown = {row.name for row in shown_rows(results, MOST_LINES)}
    named = {row.name for row in shown_rows(results, MOST_NAMES)}
    lines = {
        number: points
        for number, row in enumerate(results.rows)
        if row.name in shown and (points := _means(number, row, curve))
    }
    if not lines:
        return None
    shape = _drawn(list(lines.values()), named, curve, [row.name for row in results.rows])
    several = any(point["n"] > 1 for points in lines.values() for point in points)
    shows = "Line: mean over finished seeds. Band: from the lowest seed to the highest."
    if not several:
        shows = "One seed a row."
    if results.metric == TOP1 and curve.field.startswith("test"):
        shows += " This recipe reads the test set after every epoch; the best epoch flatters."
    if curve.field.startswith("train"):
        shows += " As training met its images, augmented, while the weights moved."
    shows += left_out(results, MOST_NAMES, len(shown))
    return Figure(curve.figure, curve.title, shows, shape)


def _drawn(
    lines: list[Points], named: Collection[str], curve: Curve, rows: list[str]
) -> dict[str, Any]:
    """Draw lines, those of `named` rows with their bands, and their names at their ends.

    Colours are those of `rows`.
    """
    points = [point for line in lines for point in line]
    kept = [line for line in lines if line[0]["row"] in named]
    faint = [point for line in lines if line[0]["row"] not in named for point in line]
    ends = [dict(line[-1]) for line in kept]
    height = max(300, LINE_OF_TEXT * (len(ends) + 2))
    drawn = [point[key] for point in points for key in ("value", "low", "high")]
    spread_of = max(drawn) - min(drawn)
    lowest = 0.0 if min(drawn) >= 0 else -math.inf
    low, high = (
        limits(drawn, bounds=PERCENT)
        if curve.percent
        else limits(drawn, least=0.1 * spread_of or 0.1, bounds=(lowest, math.inf))
    )
    first, last = (pick(point["epoch"] for point in points) for pick in (min, max))
    gap = (high - low) * LINE_OF_TEXT / height
    for end, place in zip(ends, spread([e["value"] for e in ends], gap, high), strict=True):
        end |= {"label": place, "last": last}
    # Every layer is given the limits: one that is not would stretch the axis down to zero.
    epochs = alt.Scale(domain=[first, max(last, first + 1)], nice=False)
    values = alt.Scale(domain=[low, high], nice=False)
    # Ticks are named, as Vega would put one between two epochs and round its number.
    step = -(-(last - first) // 8) or 1
    count = alt.Axis(values=list(range(first, last + 1, step)), format="d", grid=False)
    x = alt.X("epoch:Q", title=curve.over.capitalize(), axis=count, scale=epochs)
    y = alt.Y("value:Q", title=curve.axis, scale=values)
    end_x, label_y = alt.X("last:Q", scale=epochs), alt.Y("label:Q", scale=values)
    colours = look(rows)
    marks = alt.Chart(data(point for line in kept for point in line))
    lone = len(points) == len(lines)  # one epoch: a line of one point would not be seen
    bands = [point for line in kept for point in line if point["n"] > 1]
    return specification(
        [
            *(
                [
                    (
                        alt.Chart(data(faint)).mark_point(filled=True, size=30)
                        if lone
                        else alt.Chart(data(faint)).mark_line(strokeWidth=1)
                    ).encode(x=x, y=y, opacity=alt.value(0.35), **colours)
                ]
                if faint
                else []
            ),
            *(
                [
                    alt.Chart(data(bands))
                    .mark_area(fillOpacity=0.13)
                    .encode(
                        x=x, y=alt.Y("low:Q", scale=values), y2="high:Q", color=colours["color"]
                    )
                ]
                if bands
                else []
            ),
            (marks.mark_point(filled=True, size=60) if lone else marks.mark_line()).encode(
                x=x, y=y, **colours
            ),
            alt.Chart(data(ends))
            .mark_rule(strokeWidth=2.5, xOffset=8, x2Offset=24)
            .encode(x=end_x, x2="last:Q", y=label_y, **colours),
            alt.Chart(data(ends))
            .mark_text(align="left", dx=29, baseline="middle")
            .encode(x=end_x, y=label_y, text="row:N"),
        ],
        height,
    )


def learning_rate(results: StudyResults, name: str, by_step: bool = False) -> Figure | None:
    """Draw the learning rate that the study's recipe prescribes, and what its runs had.

    By epoch, or `by_step`: then None too where no run says how many images it trained on. Runs
    record the rate of an epoch's last step.
    """
    if results.origin:  # of runs from elsewhere nobody knows it
        return None
    try:
        recipe = Recipe.parse(results.recipe)
    except InputError:
        return None
    steps = _steps_an_epoch(results, recipe) if by_step else 1
    if steps is None:
        return None
    samples = min(400, 20 * recipe.epochs)
    places = [recipe.epochs * i / samples for i in range(samples)]
    key, what = ("step", "Steps") if by_step else ("epoch", "Epochs")
    points = [{key: place * steps, "lr": recipe.learning_rate(place)} for place in places]
    recorded = {
        (line["epoch"] * steps, line["lr"])
        for row in results.rows
        for run in row.runs[:1]
        for line in run.log
        if line.get("lr") is not None
    }
    ran = [{key: place, "lr": rate} for place, rate in sorted(recorded)]
    x = alt.X(
        f"{key}:Q",
        title=f"{what} done",
        scale=alt.Scale(domain=[0, recipe.epochs * steps], nice=False),
        axis=alt.Axis(grid=False, tickMinStep=1, format="d"),
    )
    y = alt.Y("lr:Q", title="Learning rate", scale=alt.Scale(zero=True))
    line = alt.Chart(data(points)).mark_line(color=COLOURS[0], interpolate="step-after")
    dots = alt.Chart(data(ran)).mark_point(color=COLOURS[1], filled=True, size=16, opacity=0.8)
    layers = [line.encode(x=x, y=y), dots.encode(x=x, y=y)]
    caption = f"Line: as the recipe {results.recipe_name} has it."
    caption += " Dots: what runs had at the end of each epoch." if ran else ""
    caption += f" An epoch is {steps:,} steps." if by_step else ""
    if any(varied.startswith("recipe") for varied in results.varies):
        caption += " Rows that change the recipe have their own."
    title = "Learning rate by step" if by_step else "Learning rate"
    return Figure(name, title, caption, specification(layers if ran else layers[:1], 200))


def _steps_an_epoch(results: StudyResults, recipe: Recipe) -> int | None:
    images = {run.run.get("train_images") for _, run in results.runs}
    if len(images) != 1 or not (count := images.pop()):
        return None
    whole, rest = divmod(count, recipe.batch_size)
    return max(1, whole + (rest > 0 and not recipe.drop_last))


def _means(number: int, row: RowResult, curve: Curve) -> Points:
    by_epoch: dict[int, list[float]] = defaultdict(list)
    for run in row.finished:
        for line in run.log:
            value = line.get(curve.field)
            if value is not None and math.isfinite(value):
                by_epoch[line["epoch"]].append(value)
    return _points(number, row.name, by_epoch, curve)


def _points(number: int, name: str, by_epoch: dict[int, list[float]], curve: Curve) -> Points:
    """Return the points of one line, thinned from its last epoch backwards."""
    step = math.ceil(len(by_epoch) / MOST_POINTS_A_LINE) or 1
    kept = sorted(by_epoch)[::-1][::step][::-1]
    decimals, unit = (3, " %") if curve.percent else (5, "")
    points = []
    for epoch in kept:
        values = by_epoch[epoch]
        mean = round(summarise(values).mean, decimals)
        point = {"row": name, "epoch": epoch, "value": mean, "n": len(values)}
        point |= {"low": round(min(values), decimals), "high": round(max(values), decimals)}
        points.append(point)
    form = ".2f" if curve.percent else ".4g"
    end = f"{points[-1]['value']:{form}}{unit} at epoch {points[-1]['epoch']}" if points else ""
    return [point | said(number, f"{name}: {end}") for point in points]
