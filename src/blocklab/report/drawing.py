"""What all figures share: their shape, colours, limits, and labels that keep apart.

Labels stand beside what they name, so no figure needs a legend. Axis limits and label places are
worked out here, since only who knows the limits can keep two labels from covering each other.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

# Okabe and Ito's colours for every kind of colour vision, less those too pale to read on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#8a8a8a")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [12, 3], [4, 2, 1, 2])  # one set of colours each
WIDTH = 640
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


def specification(layers: list[alt.Chart], height: int | alt.Step) -> dict[str, Any]:
    chart = alt.layer(*layers).properties(width=WIDTH, height=height)
    specification = chart.to_dict()
    for key in ("$schema", "config"):  # an address, and sizes and colours that a theme gives
        specification.pop(key, None)
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


def limits(values: Iterable[float | None], least: float = 1.0) -> tuple[float, float]:
    """Return limits that leave air around the values, and are at least `least` apart."""
    known = [value for value in values if value is not None]
    air = max((max(known) - min(known)) * 0.06, least / 2)
    return min(known) - air, max(known) + air


def data(points: Iterable[dict[str, Any]]) -> alt.InlineData:
    return alt.InlineData(values=list(points))
