"""The figures: accuracy over epochs, accuracy against cost, and gains on the baseline.

Labels stand beside what they name, so no figure needs a legend. Axis limits and label places are
worked out here, since only who knows the limits can keep two labels from covering each other.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from blocklab.files import write_atomically
from blocklab.report.tables import difference, square
from blocklab.study.results import RowResult, StudyResults
from blocklab.study.statistics import summarise

# Okabe and Ito's colours for every kind of colour vision, less those too pale to read on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#8a8a8a")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [12, 3], [4, 2, 1, 2])  # one set of colours each
WIDTH = 640
LINE_OF_TEXT = 14  # pixels
LETTER = 6.5  # pixels, on average
LABEL_OFFSET = 10  # pixels from a point to its label
NAMES = (
    "validation_accuracy_over_epochs",
    "test_accuracy_over_epochs",
    "accuracy_against_macs",
    "differences",
)


@dataclass(frozen=True)
class Figure:
    """A Vega-Lite specification, the name of its files, and what it shows.

    The colours of ink and paper are not in the specification: they come from a `theme`.
    """

    name: str
    title: str
    caption: str
    specification: dict[str, Any]


def theme(ink: str, paper: str, font: str = "Helvetica, Arial, sans-serif") -> dict[str, Any]:
    """Return a Vega config that draws axes and text in one ink on one paper."""
    axis = {"labelColor": ink, "titleColor": ink, "domainColor": ink, "tickColor": ink}
    axis |= {"gridColor": ink, "gridOpacity": 0.12, "labelLimit": 300, "titleFontWeight": "normal"}
    axis |= {"labelFontSize": 12, "titleFontSize": 13, "titlePadding": 10}
    return {
        "font": font,
        "background": paper,
        "axis": axis,
        "view": {"stroke": None},
        "text": {"color": ink, "fontSize": 12},
        "rule": {"color": ink},
    }


ON_PAPER = theme("#1a1a1a", "white")
ON_PAGE = theme("currentColor", "transparent", "system-ui, sans-serif")  # follows light and dark


def figures(results: StudyResults) -> tuple[Figure, ...]:
    """Return the figures that the finished runs can fill; none without a finished run."""
    found = [
        _over_epochs(results, "validation", NAMES[0]),
        _over_epochs(results, "test", NAMES[1]),
        _against_macs(results),
        _differences(results),
    ]
    return tuple(figure for figure in found if figure is not None)


def save_figures(results: StudyResults, folder: Path) -> list[Path]:
    """Write each figure to `folder` as SVG and PNG (twice the screen's resolution).

    A figure that no longer has data is removed, so that the folder never mixes two states.

    Raises:
        RunError: if the folder cannot be written.
    """
    written = []
    for figure in figures(results):
        for ending in ("svg", "png"):
            path = folder / f"{figure.name}.{ending}"
            write_atomically(path, svg(figure, ON_PAPER) if ending == "svg" else png(figure))
            written.append(path)
    for name in NAMES:
        for path in (folder / f"{name}.svg", folder / f"{name}.png"):
            if path not in written:
                path.unlink(missing_ok=True)
    return written


def svg(figure: Figure, config: dict[str, Any]) -> str:
    """Draw a figure as SVG; nothing is fetched."""
    return vl_convert.vegalite_to_svg(figure.specification, config=config, allowed_base_urls=[])


def png(figure: Figure) -> bytes:
    """Draw a figure as PNG; nothing is fetched."""
    specification = figure.specification
    return vl_convert.vegalite_to_png(specification, scale=2, config=ON_PAPER, allowed_base_urls=[])


def spread(places: Sequence[float], gap: float, highest: float = math.inf) -> list[float]:
    """Move places apart until neighbours are `gap` apart, keeping their order, as little as can be.

    Places that overlap form a block, centred where its members wanted to be; none ends up above
    `highest`.
    """
    order = sorted(range(len(places)), key=places.__getitem__)
    blocks: list[list[int]] = []
    starts: list[float] = []  # the lowest place of each block
    for index in order:
        block, start = [index], places[index]
        while blocks and start < starts[-1] + gap * len(blocks[-1]):
            block = [*blocks.pop(), *block]
            starts.pop()
            start = math.fsum(places[i] - gap * rank for rank, i in enumerate(block)) / len(block)
        blocks.append(block)
        starts.append(start)
    moved = [0.0] * len(places)
    for block, start in zip(blocks, starts, strict=True):
        for rank, index in enumerate(block):
            moved[index] = start + gap * rank
    for rank, index in enumerate(reversed(order)):
        moved[index] = min(moved[index], highest - gap * rank)
    return moved


def _over_epochs(results: StudyResults, split: str, name: str) -> Figure | None:
    thin, means, ends = [], [], []
    for row in results.rows:
        by_epoch: dict[int, list[float]] = defaultdict(list)
        for run in row.runs:
            for line in run.log:
                value = line.get(f"{split}_top1_percent")
                if value is None or not math.isfinite(value):
                    continue
                point = {"row": row.name, "epoch": line["epoch"], "value": value}
                thin.append(point | {"seed": run.seed})
                if not run.diverged:
                    by_epoch[line["epoch"]].append(value)
        averaged = [
            {"row": row.name, "epoch": epoch, "value": summarise(values).mean, "n": len(values)}
            for epoch, values in sorted(by_epoch.items())
        ]
        means += averaged
        ends += averaged[-1:]
    if not means:
        return None
    height = max(320, LINE_OF_TEXT * (len(ends) + 2))
    low, high = _limits([point["value"] for point in [*thin, *means]])
    last = max(point["epoch"] for point in means)
    gap = (high - low) * LINE_OF_TEXT / height
    for end, place in zip(ends, spread([e["value"] for e in ends], gap, high), strict=True):
        end |= {"label": place, "last": last}
    # Every layer is given the limits: one that is not would stretch the axis down to zero.
    first = min(point["epoch"] for point in thin)
    epochs = alt.Scale(domain=[first, max(last, first + 1)], nice=False)
    percent = alt.Scale(domain=[low, high], nice=False)
    count = alt.Axis(tickMinStep=1, tickCount=10, format="d", grid=False)
    x = alt.X("epoch:Q", title="Epoch", axis=count, scale=epochs)
    y = alt.Y("value:Q", title=f"{split.capitalize()} top-1 accuracy (%)", scale=percent)
    end_x, label_y = alt.X("last:Q", scale=epochs), alt.Y("label:Q", scale=percent)
    tooltip = [alt.Tooltip("row:N"), alt.Tooltip("epoch:Q"), alt.Tooltip("value:Q", format=".2f")]
    # Pointing at a line, or at its label, dims the others.
    hovered = alt.selection_point(fields=["row"], on="pointerover", clear="pointerout", empty=True)
    dimmed = alt.when(hovered).then(alt.value(1)).otherwise(alt.value(0.15))
    thin_dimmed = alt.when(hovered).then(alt.value(0.4)).otherwise(alt.value(0.05))
    names = [row.name for row in results.rows]
    lone = len(means) == len(ends)  # one epoch: a line of one point would not be seen
    mean_marks = alt.Chart(_data(means))
    mean_marks = mean_marks.mark_point(filled=True, size=60) if lone else mean_marks.mark_line()
    layers = [
        alt.Chart(_data(thin))
        .mark_line(strokeWidth=0.8)
        .encode(x=x, y=y, detail="seed:N", opacity=thin_dimmed, **_look(names)),
        mean_marks.encode(
            x=x, y=y, tooltip=[*tooltip, alt.Tooltip("n:Q", title="seeds")], opacity=dimmed
        )
        .encode(**_look(names))
        .add_params(hovered),
        alt.Chart(_data(ends))
        .mark_rule(strokeWidth=2.5, xOffset=8, x2Offset=28)
        .encode(x=end_x, x2="last:Q", y=label_y, opacity=dimmed, **_look(names)),
        alt.Chart(_data(ends))
        .mark_text(align="left", dx=33, baseline="middle")
        .encode(x=end_x, y=label_y, text="row:N", opacity=dimmed),
    ]
    shows = "Thick: mean over finished seeds; thin: one seed each."
    if all(len(row.runs) <= 1 for row in results.rows):
        shows = "One seed a row."
    if split == "test":
        shows += " This recipe reads the test set after every epoch; the best epoch flatters."
    title = f"{split.capitalize()} accuracy over epochs"
    return Figure(name, title, shows, _specification(layers, height))


def _against_macs(results: StudyResults) -> Figure | None:
    points = []
    for row in results.rows:
        if row.top1 is None:
            continue
        point = {"row": row.name, "macs_g": row.macs / 1e9, "top1": row.top1.mean}
        points.append(point | {"low": row.top1.low, "high": row.top1.high, "n": row.top1.n})
    if not points:
        return None
    height = max(360, LINE_OF_TEXT * (len(points) + 2))
    low, high = _limits([v for p in points for v in (p["top1"], p["low"], p["high"])])
    macs = [point["macs_g"] for point in points]
    wide = min(macs) > 0 and max(macs) / min(macs) > 8  # then equal ratios deserve equal lengths
    left, right = (
        (min(macs) / 1.3, max(macs) * 1.3) if wide else _limits(macs, least=max(macs) * 0.1 or 1)
    )
    _place_labels(points, (left, right), wide, (high - low) * LINE_OF_TEXT / height)
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
    tooltip = [alt.Tooltip("row:N"), alt.Tooltip("macs_g:Q", title="MACs (G)", format=".3f")]
    tooltip += [alt.Tooltip(f"{name}:Q", format=".2f") for name in ("top1", "low", "high")]
    tooltip += [alt.Tooltip("n:Q", title="seeds")]
    base = alt.Chart(_data(points))
    look = {"color": _look([row.name for row in results.rows])["color"]}
    layers = [
        alt.Chart(_data(point for point in points if point["low"] is not None))
        .mark_rule(strokeWidth=1.5, opacity=0.7)
        .encode(x=x, y=alt.Y("low:Q", scale=percent), y2="high:Q", **look),
        base.mark_point(filled=True, size=80, opacity=1).encode(x=x, y=y, tooltip=tooltip, **look),
    ]
    label_y = alt.Y("label:Q", scale=percent)
    leaders = base.mark_rule(strokeWidth=0.7, opacity=0.6, xOffset=0, x2Offset=LABEL_OFFSET - 2)
    layers.insert(0, leaders.encode(x=x, x2="macs_g:Q", y=y, y2="label:Q"))
    labels = base.mark_text(align="left", dx=LABEL_OFFSET, baseline="middle")
    layers.append(labels.encode(x=x, y=label_y, text="row:N"))
    shows = "Point: mean over finished seeds. Bar: 95 % interval; a row with one seed has none."
    return Figure(NAMES[2], "Accuracy against MACs", shows, _specification(layers, height))


def _place_labels(
    points: list[dict[str, Any]], limits: tuple[float, float], wide: bool, gap: float
) -> None:
    """Give each point the nearest height at which its label covers no point and no other label."""
    scale = math.log if wide else float
    start, end = scale(limits[0]), scale(limits[1])
    taken = []  # (left, right, height) of what must stay readable, in pixels and percent
    for point in points:
        point["left"] = WIDTH * (scale(point["macs_g"]) - start) / (end - start)
        taken.append((point["left"] - 5, point["left"] + 5, point["top1"]))
    for point in points:
        left = point.pop("left") + LABEL_OFFSET
        right = left + LETTER * len(point["row"])
        steps = sorted(range(-8 * len(points), 8 * len(points) + 1), key=abs)
        heights = [point["top1"] + gap * step / 2 for step in steps]
        point["label"] = next(
            height
            for height in heights
            if not any(
                left < other[1] and other[0] < right and abs(height - other[2]) < gap * 0.99
                for other in taken
            )
        )
        taken.append((left, right, point["label"]))


def _differences(results: StudyResults) -> Figure | None:
    compared = [row for row in results.rows if row.difference is not None]
    if not compared:
        return None
    points = [_difference_point(row, results.baseline) for row in compared]
    x = alt.X(
        "mean:Q",
        title=f"Test top-1 minus {results.baseline} (percentage points)",
        scale=alt.Scale(zero=True, nice=True),
    )
    bare = alt.Axis(grid=False, ticks=False, domain=False, labelPadding=10)
    y = alt.Y("row:N", title=None, sort=None, axis=bare)
    drawn = [point for point in points if point["low"] is not None]
    tooltip = [alt.Tooltip("row:N"), alt.Tooltip("text:N", title="points"), alt.Tooltip("n:Q")]
    layers = [
        alt.Chart(_data([{"zero": 0}])).mark_rule(strokeDash=[4, 3]).encode(x=alt.X("zero:Q")),
        alt.Chart(_data(points))
        .mark_point(filled=True, size=70, opacity=1, color=COLOURS[0])
        .encode(x=x, y=y, tooltip=tooltip),
        alt.Chart(_data(points))
        .mark_text(align="left", dx=12, baseline="middle")
        .encode(x=alt.value(WIDTH), y=y, text="text:N"),
    ]
    if drawn:
        bars = alt.Chart(_data(drawn)).mark_rule(strokeWidth=2.5, color=COLOURS[0])
        layers.insert(1, bars.encode(x=alt.X("low:Q"), x2="high:Q", y=y))
    shows = "Mean over the seeds that both rows have, paired by seed, with its 95 % interval."
    if not drawn:
        shows += " One shared seed gives no interval."
    specification = _specification(layers, alt.Step(30))
    return Figure(NAMES[3], "Differences to the baseline", shows, specification)


def _difference_point(row: RowResult, baseline: str | None) -> dict[str, Any]:
    gap = row.difference
    assert gap is not None  # the caller has looked
    point = {"row": row.name, "mean": gap.mean, "low": gap.low, "high": gap.high, "n": gap.n}
    return point | {"text": difference(row, baseline)}


def _specification(layers: list[alt.Chart], height: int | alt.Step) -> dict[str, Any]:
    chart = alt.layer(*layers).properties(width=WIDTH, height=height)
    specification = chart.to_dict()
    for key in ("$schema", "config"):  # an address, and sizes and colours that a theme gives
        specification.pop(key, None)
    return specification


def _look(names: list[str]) -> dict[str, Any]:
    """One colour a row; where the colours run out, one dash a round of colours."""
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(names))]
    dashes = [DASHES[i // len(COLOURS) % len(DASHES)] for i in range(len(names))]
    return {
        "color": alt.Color("row:N", legend=None, scale=alt.Scale(domain=names, range=colours)),
        "strokeDash": alt.StrokeDash(
            "row:N", legend=None, scale=alt.Scale(domain=names, range=dashes)
        ),
    }


def _limits(values: Iterable[float | None], least: float = 1.0) -> tuple[float, float]:
    """Return limits that leave air around the values, and are at least `least` apart."""
    known = [value for value in values if value is not None]
    air = max((max(known) - min(known)) * 0.06, least / 2)
    return min(known) - air, max(known) + air


def _data(points: Iterable[dict[str, Any]]) -> alt.InlineData:
    return alt.InlineData(values=list(points))
