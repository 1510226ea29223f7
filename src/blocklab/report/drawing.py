"""What all figures share: their shape, colours, limits, and labels that keep apart.

Labels stand beside what they name, so no figure needs a legend. Axis limits and label places are
worked out here, since only who knows the limits can keep two labels from covering each other.
"""

import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import altair as alt
import vl_convert

from blocklab.statistics.summary import UNBOUNDED

# Okabe and Ito's colours for every kind of colour vision, less those too pale to read on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#8a8a8a")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [12, 3], [4, 2, 1, 2])  # one set of colours each
WIDTH = 460  # of the axes: with the labels beside them, two figures stand side by side
LINE_OF_TEXT = 14  # pixels
LETTER = 6.5  # pixels, on average
LABEL_OFFSET = 10  # pixels from a point to its label


@dataclass(frozen=True)
class Figure:
    """A Vega-Lite specification, the name of its files, and what it shows.

    The colours of ink and paper are not in the specification: they come from a `theme`.
    """

    name: str
    title: str
    caption: str
    specification: dict[str, Any]


# What a mark says of itself begins with its row's number, between two characters of no script.
_NUMBER_BEGINS, _NUMBER_ENDS = "\ue000", "\ue001"
_SAID = re.compile(f'aria-label="{_NUMBER_BEGINS}(\\d+){_NUMBER_ENDS}')
_ROLES = re.compile(r' (?:role="graphics-\w+"|aria-roledescription="[^"]*"|aria-label="[^"]*")')
_PLACES = re.compile(r' (?:d|transform|x|y|[xy][12]|width|height)="[^"]*"')
_DECIMALS = re.compile(r"(\d\.\d{2})\d+")


def said(number: int, text: str) -> dict[str, str]:
    """Return the field by which a mark says what it shows, and of which row (by number) it is."""
    return {"said": f"{_NUMBER_BEGINS}{number}{_NUMBER_ENDS}{text}"}


def svg(figure: Figure, config: dict[str, Any]) -> str:
    """Draw a figure as SVG, in which a mark's `data-row` is its row's number; nothing is fetched.

    Marks say what they show in `data-said`.
    """
    drawn = vl_convert.vegalite_to_svg(figure.specification, config=config, allowed_base_urls=[])
    named = _ROLES.sub("", _SAID.sub(r'data-row="\1" data-said="', drawn))
    return _PLACES.sub(lambda place: _DECIMALS.sub(r"\1", place[0]), named)


def png(figure: Figure) -> bytes:
    """Draw a figure as PNG at twice the screen's resolution; nothing is fetched."""
    return vl_convert.svg_to_png(svg(figure, ON_PAPER), scale=2)


def titled(figure: Figure) -> Figure:
    """Return a figure whose title and caption are drawn, for where it stands by itself."""
    width = figure.specification.get("width")
    letters = max(40, round((width if isinstance(width, int) else WIDTH) / (0.85 * LETTER)))
    title = {"text": figure.title, "subtitle": textwrap.wrap(figure.caption, letters)}
    title |= {"anchor": "start", "frame": "group", "fontSize": 14, "subtitleFontSize": 11}
    return replace(figure, specification={**figure.specification, "title": title})


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
        "line": {"color": ink},
    }


ON_PAPER = theme("#1a1a1a", "white")
ON_PAGE = theme("currentColor", "transparent")  # follows light and dark


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


Box = tuple[float, float, float, float]  # left, right, bottom, top: pixels across, percent up


def place_labels(
    labelled: list[dict[str, Any]],
    points: list[dict[str, Any]],
    lowest: float,
    gap: float,
    lines: Sequence[Box] = (),
) -> None:
    """Give each label the side (`align`) and height (`label`) nearest to its point that is free.

    No label covers a point, another label or the line that leads to one, and the fewest bars and
    other `lines` that can be. Points have a `place` (pixels across), a `top1` and the ends of a
    bar, `low` and `high`; `gap` is the height of a line of text, and nothing is put below `lowest`.
    """
    bars = [*lines]
    bars += [
        (point["place"] - 1, point["place"] + 1, point["low"], point["high"])
        for point in points
        if point["low"] is not None
    ]
    dots = [_around(point["place"], point["top1"], 5, 0.4 * gap) for point in points]
    # Who is placed first has the choice, so of a few orders the one that comes out best.
    by_height = sorted(labelled, key=lambda point: point["top1"])
    by_length = sorted(labelled, key=lambda point: -len(point["row"]))
    orders = [labelled, labelled[::-1], by_height, by_height[::-1], by_length]
    _, chosen = min(
        (_placed(order, dots, bars, lowest, gap) for order in orders), key=lambda found: found[0]
    )
    for point, height, align in chosen:
        point |= {"label": height, "align": align}


def _placed(
    labelled: Sequence[dict[str, Any]],
    dots: list[Box],
    bars: list[Box],
    lowest: float,
    gap: float,
) -> tuple[float, list[tuple[dict[str, Any], float, str]]]:
    """Place labels one after the other; return what it cost, and each height and side."""
    taken, lines, total, chosen = [*dots], list[Box](), 0.0, []
    for point in labelled:
        best: tuple[float, float, str, Box, Box] | None = None
        for away in range(16 * len(dots) + 1):  # quarters of a line
            if best is not None and away > best[0]:
                break  # what is further costs more
            for align, step in product(("left", "right"), {away, -away}):
                height = point["top1"] + gap * step / 4
                label, line = _boxes(point, align, height, gap)
                if label[0] < 0 or label[2] < lowest or _meets(label, [*taken, *lines]):
                    continue
                led_across = _meets(line, taken[len(dots) :])
                cost = 6 * _meets(label, bars) + 200 * led_across + away + (align == "right")
                found = (cost, height, align, label, line)
                best = found if best is None else min(best, found)
        assert best is not None  # a place above all others is always free
        cost, height, align, label, line = best
        total += cost
        taken.append(label)
        lines.append(line)
        chosen.append((point, height, align))
    return total, chosen


def _boxes(point: dict[str, Any], align: str, height: float, gap: float) -> tuple[Box, Box]:
    """Return what a label beside its point and the line that leads to it cover."""
    near, far = LABEL_OFFSET, LABEL_OFFSET + LETTER * len(point["row"])
    if align == "right":  # it ends beside the point
        near, far = -far, -near
    place, reach = point["place"], 8 if align == "left" else -8
    label = (place + near, place + far, height - 0.49 * gap, height + 0.49 * gap)
    left, right = sorted((place, place + reach))
    bottom, top = sorted((point["top1"], height))
    return label, (left, right, bottom, top)


def _around(x: float, y: float, across: float, up: float) -> Box:
    return x - across, x + across, y - up, y + up


def _meets(one: Box, others: Iterable[Box]) -> int:
    """Count the boxes that overlap one."""
    left, right, bottom, top = one
    return sum(
        left < other[1] and other[0] < right and bottom < other[3] and other[2] < top
        for other in others
    )


def specification(layers: list[alt.Chart], height: int | alt.Step) -> dict[str, Any]:
    chart = alt.layer(*layers).properties(width=WIDTH, height=height)
    specification = chart.to_dict()
    for key in ("$schema", "config"):  # an address, and sizes and colours that a theme gives
        specification.pop(key, None)
    for layer in specification["layer"]:
        # Without one, Vega composes a description as code, in which a name's \\ or ${ is an error.
        layer["encoding"].setdefault("description", {"field": "said", "type": "nominal"})
    return specification


def look(names: list[str]) -> dict[str, Any]:
    """One colour a row; where the colours run out, one dash a round of colours."""
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(names))]
    dashes = [DASHES[i // len(COLOURS) % len(DASHES)] for i in range(len(names))]
    return {
        "color": alt.Color("row:N", legend=None, scale=alt.Scale(domain=names, range=colours)),
        "strokeDash": alt.StrokeDash(
            "row:N", legend=None, scale=alt.Scale(domain=names, range=dashes)
        ),
    }


def limits(
    values: Iterable[float | None],
    least: float = 1.0,
    bounds: tuple[float, float] = UNBOUNDED,
) -> tuple[float, float]:
    """Return limits around the values, at least `least` apart, with air except at `bounds`."""
    known = [value for value in values if value is not None]
    air = max((max(known) - min(known)) * 0.06, least / 2)
    return max(min(known) - air, bounds[0]), min(max(known) + air, bounds[1])


def data(points: Iterable[dict[str, Any]]) -> alt.InlineData:
    return alt.InlineData(values=list(points))


def ticks(low: float, high: float, most: int, least: float = 0.0) -> list[float]:
    """Return round values from low to high, about as many as `most`, at least `least` apart."""
    step = max(nice_step((high - low) / most), least)
    if step < (high - low) / most:
        step = next(m * step for m in (2, 2.5, 5, 10) if m * step >= (high - low) / most)
    first = math.ceil(low / step - 1e-9)
    return [step * n for n in range(first, math.floor(high / step + 1e-9) + 1)]


def nice_step(value: float) -> float:
    """Return 1, 2 or 5 times a power of ten, at most `value`."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(m * power for m in (5, 2, 1) if m * power <= value * (1 + 1e-9))
