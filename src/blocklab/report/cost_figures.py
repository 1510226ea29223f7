"""Figures of accuracy against what it costs, with the front of rows that no other one beats."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import altair as alt

from blocklab.measure.amounts import counted
from blocklab.report.cell_text import plain, square
from blocklab.report.curves import left_out, shown_rows
from blocklab.report.drawing import (
    LABEL_OFFSET,
    LINE_OF_TEXT,
    WIDTH,
    Figure,
    data,
    limits,
    look,
    place_labels,
    said,
    specification,
)
from blocklab.report.metric import metric_of
from blocklab.results.row_result import RowResult
from blocklab.results.study_results import StudyResults

MOST_LABELS = 16  # beside points, among their bars; pointing at a point names the others
CUT_SHAPES = ("triangle-down", "triangle-up")  # of an interval that goes on beyond what can be


@dataclass(frozen=True)
class Cost:
    """Something that a row costs: the name of its figure, its own name, and its amount and unit."""

    figure: str
    name: str
    unit: str
    amount: Callable[[RowResult], float | None]

    @property
    def label(self) -> str:
        """Its name, as it begins a line."""
        return self.name[0].upper() + self.name[1:]


def _mean(field: str, unit: float = 1.0) -> Callable[[RowResult], float | None]:
    def amount(row: RowResult) -> float | None:
        found = row.over_seeds(field)
        return None if found is None else found.mean / unit

    return amount


COSTS = (
    Cost("accuracy_against_macs", "MACs", "G", lambda row: row.macs and row.macs / 1e9),
    Cost("accuracy_against_params", "parameters", "M", lambda row: row.params and row.params / 1e6),
    Cost("accuracy_against_time", "training time", "s a run", _mean("train_seconds")),
    Cost("accuracy_against_memory", "peak memory", "MB", _mean("peak_memory_bytes", 1e6)),
)


def against(results: StudyResults, cost: Cost) -> Figure | None:
    """Draw accuracy against a cost; None where no row has both."""
    points = _points(results, cost)
    if not points:
        return None
    metric = metric_of(results)
    front = pareto_front(points, metric.higher_is_better)
    chosen = {row.name for row in shown_rows(results, MOST_LABELS)}
    chosen |= {point["row"] for point in front[:MOST_LABELS]}
    labelled = [point for point in points if point["row"] in chosen]
    height = max(330, LINE_OF_TEXT * (len(labelled) + 2))
    low, high = limits(
        (v for p in points for v in (p["top1"], p["low"], p["high"])), metric.least, metric.bounds
    )
    amounts = [point["cost"] for point in points]
    wide = min(amounts) > 0 and max(amounts) / min(amounts) > 8  # equal ratios, equal lengths
    left, right = (
        (min(amounts) / 1.3, max(amounts) * 1.3)
        if wide
        else limits(amounts, least=max(amounts) * 0.1 or 1)
    )
    scale = math.log if wide else float
    for point in points:
        point["place"] = WIDTH * (scale(point["cost"]) - scale(left)) / (scale(right) - scale(left))
    gap = (high - low) * LINE_OF_TEXT / height
    along = [
        (one["place"], other["place"], one["top1"] - 0.1 * gap, one["top1"] + 0.1 * gap)
        for one, other in pairwise(front)
    ]
    place_labels(labelled, points, low, gap, along)
    x = alt.X(
        "cost:Q",
        title=f"{_title(results, cost)}{', logarithmic' if wide else ''}",
        scale=alt.Scale(domain=[left, right], type="log" if wide else "linear", nice=False),
        axis=alt.Axis(grid=False, tickCount=6),
    )
    percent = alt.Scale(domain=[low, high], nice=False)
    y = alt.Y("top1:Q", title=metric.axis("test"), scale=percent)
    colour = {"color": look([row.name for row in results.rows])["color"]}
    layers = [
        alt.Chart(data(_steps(front)))
        .mark_line(strokeWidth=1.5, strokeDash=[5, 4], opacity=0.6)
        .encode(x=x, y=y, order="order:Q"),
        alt.Chart(data(point for point in points if point["low"] is not None))
        .mark_rule(strokeWidth=1.5, opacity=0.5)
        .encode(x=x, y=alt.Y("low:Q", scale=percent), y2="high:Q", **colour),
        *(
            alt.Chart(data(point for point in points if point[end] == bound))
            .mark_point(shape=shape, filled=True, size=40, opacity=0.7)
            .encode(x=x, y=alt.Y(f"{end}:Q", scale=percent), **colour)
            for end, bound, shape in zip(("low", "high"), metric.bounds, CUT_SHAPES, strict=True)
        ),
        alt.Chart(data(points))
        .mark_point(filled=True, size=80, opacity=1)
        .encode(x=x, y=y, **colour),
    ]
    label_y = alt.Y("label:Q", scale=percent)
    sides: tuple[tuple[Literal["left", "right"], int], ...] = (("left", 1), ("right", -1))
    for align, sign in sides:
        beside = alt.Chart(data(point for point in labelled if point["align"] == align))
        reach = sign * (LABEL_OFFSET - 2)
        leaders = beside.mark_rule(strokeWidth=0.7, opacity=0.6, xOffset=0, x2Offset=reach)
        layers.insert(0, leaders.encode(x=x, x2="cost:Q", y=y, y2="label:Q"))
        labels = beside.mark_text(align=align, dx=sign * LABEL_OFFSET, baseline="middle")
        layers.append(labels.encode(x=x, y=label_y, text="row:N"))
    shows = (
        "Point: mean over finished seeds. Bar: 95 % interval; a row with one seed has none. "
        "Dashed: the Pareto front, of rows than which none is both cheaper and better on average; "
        "a step that is smaller than the bars is no step."
    )
    if any(point[end] in metric.bounds for point in points for end in ("low", "high")):
        shows += " A triangle at its end: cut there, at what an accuracy can be."
    title, shape = (
        f"{metric.noun[0].upper()}{metric.noun[1:]} against {cost.name}",
        specification(layers, height),
    )
    return Figure(cost.figure, title, shows + left_out(results, MOST_LABELS), shape)


def pareto_front(
    points: Sequence[dict[str, Any]], higher_is_better: bool = True
) -> list[dict[str, Any]]:
    """Return the points (`cost`, `top1`) that no other beats in both, the cheapest first.

    Of points that are equal in both, all are in it.
    """
    sign = 1 if higher_is_better else -1

    def beaten(point: dict[str, Any]) -> bool:
        return any(
            other["cost"] <= point["cost"]
            and sign * other["top1"] >= sign * point["top1"]
            and (other["cost"], other["top1"]) != (point["cost"], point["top1"])
            for other in points
        )

    kept = [point for point in points if not beaten(point)]
    return sorted(kept, key=lambda point: (point["cost"], sign * point["top1"]))


def _points(results: StudyResults, cost: Cost) -> list[dict[str, Any]]:
    points = []
    for number, row in enumerate(results.rows):
        amount = cost.amount(row)
        if row.score is None or amount is None:
            continue
        point = {"row": row.name, "cost": amount, "top1": row.score.mean}
        point |= {"low": row.score.low, "high": row.score.high}
        reached = f"{plain(row.score.mean, results.metric)} {metric_of(results).percent}".rstrip()
        text = f"{row.name}: {reached}, {cost.name} {counted(amount)} {cost.unit}"
        points.append(point | said(number, text))
    return points


def _steps(front: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the corners of the front's line, which goes along at the best so far, then up."""
    corners: list[dict[str, Any]] = []
    for point in front:
        if corners:
            corners.append({"cost": point["cost"], "top1": corners[-1]["top1"]})
        corners.append({"cost": point["cost"], "top1": point["top1"]})
    return [corner | {"order": i} for i, corner in enumerate(corners)]


def _title(results: StudyResults, cost: Cost) -> str:
    if cost.name != "MACs":
        return f"{cost.label} ({cost.unit})"
    sizes = {row.input_size for row in results.rows if row.input_size}
    if not sizes:  # of runs from elsewhere it is not known
        return "MACs for one image (G)"
    size = f"at {square(*sizes)}" if len(sizes) == 1 else "each at the row's own size"
    return f"MACs for one image (G, {size})"
