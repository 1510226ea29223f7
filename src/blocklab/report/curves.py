"""Figures over epochs: accuracies, with a line a row, and the recipe's learning rate."""

import math
from collections import defaultdict
from collections.abc import Sequence
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
    specification,
    spread,
)
from blocklab.results.row_result import RowResult
from blocklab.results.study_results import StudyResults
from blocklab.statistics.summary import PERCENT, summarise
from blocklab.training.recipe import Recipe

MOST_LINES = 30  # more lines and labels than this cannot be told apart
MOST_POINTS_A_LINE = 120
MOST_THIN_POINTS = 3000  # of lines of single seeds: more make the page heavy, and are a blur


def shown_rows(results: StudyResults, most: int = MOST_LINES) -> list[RowResult]:
    """Return the rows that figures name: all, or of many the baseline and the most accurate."""
    if len(results.rows) <= most:
        return list(results.rows)
    finished = [row for row in results.rows if row.top1 is not None]
    ranked = sorted(finished, key=lambda row: row.top1.mean if row.top1 else 0.0, reverse=True)
    kept = {row.name for row in ranked[: most - 1]} | {results.baseline}
    return [row for row in results.rows if row.name in kept]


def left_out(results: StudyResults, most: int = MOST_LINES) -> str:
    """Say which rows a figure does not name."""
    shown = len(shown_rows(results, most))
    if shown == len(results.rows):
        return ""
    which = "the baseline and the most accurate ones" if results.baseline else "the most accurate"
    return f" Of {len(results.rows)} rows {shown} are named: {which}."


def over_epochs(results: StudyResults, split: str, top: int, name: str) -> Figure | None:
    """Draw an accuracy over epochs; None where no run has recorded it, or it says nothing."""
    if top == 5 and not results.shows_top5:
        return None
    thin, means, ends = _points(shown_rows(results), f"{split}_top{top}_percent")
    if not means:
        return None
    single = all(len(row.runs) <= 1 for row in results.rows)
    blurred = len(thin) > MOST_THIN_POINTS
    height = max(320, LINE_OF_TEXT * (len(ends) + 2))
    drawn = [point["value"] for point in [*([] if blurred else thin), *means]]
    low, high = limits(drawn, bounds=PERCENT)
    last = max(point["epoch"] for point in means)
    gap = (high - low) * LINE_OF_TEXT / height
    for end, place in zip(ends, spread([e["value"] for e in ends], gap, high), strict=True):
        end |= {"label": place, "last": last}
    # Every layer is given the limits: one that is not would stretch the axis down to zero.
    first = min(point["epoch"] for point in thin)
    epochs = alt.Scale(domain=[first, max(last, first + 1)], nice=False)
    percent = alt.Scale(domain=[low, high], nice=False)
    # Ticks are named, as Vega would put one between two epochs and round its number.
    step = -(-(last - first) // 10) or 1
    count = alt.Axis(values=list(range(first, last + 1, step)), format="d", grid=False)
    x = alt.X("epoch:Q", title="Epoch", axis=count, scale=epochs)
    y = alt.Y("value:Q", title=f"{split.capitalize()} top-{top} accuracy (%)", scale=percent)
    end_x, label_y = alt.X("last:Q", scale=epochs), alt.Y("label:Q", scale=percent)
    tooltip = [alt.Tooltip("row:N"), alt.Tooltip("epoch:Q"), alt.Tooltip("value:Q", format=".2f")]
    # Pointing at a line, or at its label, dims the others.
    hovered = alt.selection_point(fields=["row"], on="pointerover", clear="pointerout", empty=True)
    dimmed = alt.when(hovered).then(alt.value(1)).otherwise(alt.value(0.15))
    thin_dimmed = alt.when(hovered).then(alt.value(0.4)).otherwise(alt.value(0.05))
    names = [row.name for row in shown_rows(results)]
    lone = len(means) == len(ends)  # one epoch: a line of one point would not be seen
    mean_marks = alt.Chart(data(means))
    mean_marks = mean_marks.mark_point(filled=True, size=60) if lone else mean_marks.mark_line()
    layers = [
        mean_marks.encode(
            x=x, y=y, tooltip=[*tooltip, alt.Tooltip("n:Q", title="seeds")], opacity=dimmed
        )
        .encode(**look(names))
        .add_params(hovered),
        alt.Chart(data(ends))
        .mark_rule(strokeWidth=2.5, xOffset=8, x2Offset=28)
        .encode(x=end_x, x2="last:Q", y=label_y, opacity=dimmed, **look(names)),
        alt.Chart(data(ends))
        .mark_text(align="left", dx=33, baseline="middle")
        .encode(x=end_x, y=label_y, text="row:N", opacity=dimmed),
    ]
    if not blurred:
        seeds = alt.Chart(data(thin)).mark_line(strokeWidth=0.8)
        layers.insert(
            0, seeds.encode(x=x, y=y, detail="seed:N", opacity=thin_dimmed, **look(names))
        )
    shows = "One seed a row." if single else "Thick: mean over finished seeds; thin: one seed each."
    if blurred:
        shows = "Mean over finished seeds; there are too many single seeds to draw."
    if split == "test":
        shows += " This recipe reads the test set after every epoch; the best epoch flatters."
    title = f"{split.capitalize()} top-{top} over epochs"
    return Figure(name, title, shows + left_out(results), specification(layers, height))


def learning_rate(results: StudyResults, name: str, by_step: bool = False) -> Figure | None:
    """Draw the learning rate that the study's recipe prescribes, and what its runs had.

    By epoch, or `by_step`: then None too where no run says how many images it trained on. Runs
    record the rate of an epoch's last step.
    """
    try:
        recipe = Recipe.parse(results.recipe)
    except InputError:
        return None
    steps = _steps_an_epoch(results, recipe) if by_step else 1
    if steps is None:
        return None
    samples = min(400, 20 * recipe.epochs)
    places = [recipe.epochs * i / samples for i in range(samples)]
    key, what, form = ("step", "Steps", "d") if by_step else ("epoch", "Epochs", ".2f")
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
    tooltip = [
        alt.Tooltip(f"{key}:Q", format=form),
        alt.Tooltip("lr:Q", format=".4g"),
    ]
    line = alt.Chart(data(points)).mark_line(color=COLOURS[0], interpolate="step-after")
    dots = alt.Chart(data(ran)).mark_point(color=COLOURS[1], filled=True, size=16, opacity=0.8)
    layers = [line.encode(x=x, y=y, tooltip=tooltip), dots.encode(x=x, y=y, tooltip=tooltip)]
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


Points = list[dict[str, Any]]


def _points(rows: Sequence[RowResult], field: str) -> tuple[Points, Points, Points]:
    """Return the points of single seeds, of means over finished seeds, and the last means."""
    thin, means, ends = [], [], []
    for row in rows:
        by_epoch: dict[int, list[float]] = defaultdict(list)
        for run in row.runs:
            step = math.ceil(len(run.log) / MOST_POINTS_A_LINE)
            for place, line in enumerate(run.log):
                value = line.get(field)
                kept = (len(run.log) - 1 - place) % step == 0  # the last epoch is
                if value is None or not math.isfinite(value) or not kept:
                    continue
                point = {"row": row.name, "epoch": line["epoch"], "value": round(value, 3)}
                thin.append(point | {"seed": run.seed})
                if not run.diverged:
                    by_epoch[line["epoch"]].append(value)
        averaged = [
            {
                "row": row.name,
                "epoch": epoch,
                "value": round(summarise(values).mean, 4),
                "n": len(values),
            }
            for epoch, values in sorted(by_epoch.items())
        ]
        means += averaged
        ends += [dict(point) for point in averaged[-1:]]
    return thin, means, ends
