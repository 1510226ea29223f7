"""A figure of effective receptive fields, which says what they hang on."""

import math
from collections.abc import Sequence

import altair as alt
import numpy as np

from blocklab.errors import InputError
from blocklab.measure.receptive_field import ReceptiveField
from blocklab.report.cell_text import square
from blocklab.report.drawing import Figure, data

MOST_CELLS = 56  # a side: finer ones cannot be seen and make the file heavy
SIDE = 190  # pixels a field
SHARES = (0.2, 0.5, 0.95)


def receptive_field_figure(fields: Sequence[ReceptiveField]) -> Figure:
    """Draw fields side by side; each says its weights, its input size and how far it reaches.

    Raises:
        InputError: if there are none.
    """
    if not fields:
        raise InputError("no receptive field to draw; measure one")
    charts = [_chart(field) for field in fields]
    chart = alt.concat(*charts, columns=3, spacing=24).resolve_scale(color="independent")
    shape = chart.to_dict()
    for key in ("$schema", "config"):
        shape.pop(key, None)
    caption = (
        "Gradient of the last map's centre by each input pixel, averaged over images; the colour "
        "grows with the root, so that faint pixels are seen. Rankings change with the weights "
        "(random or trained) and with the input size: compare fields only where both agree."
    )
    return Figure("receptive_fields", "Effective receptive fields", caption, shape)


def _chart(field: ReceptiveField) -> alt.Chart:
    side = field.input_size
    step = math.ceil(side / MOST_CELLS)  # pixels a side of a cell; the last may have fewer
    edges = np.append(np.arange(0, side, step), side)
    cells = len(edges) - 1
    coarse = np.add.reduceat(np.add.reduceat(field.values, edges[:-1], 0), edges[:-1], 1)
    coarse /= np.outer(np.diff(edges), np.diff(edges))
    coarse /= max(float(coarse.max()), 1e-300)
    drawn = cells * max(1, round(SIDE / cells))  # cells of whole pixels leave no seams
    points = [
        {"x": int(edges[j]), "x2": int(edges[j + 1]), "y": int(edges[i]), "y2": int(edges[i + 1])}
        | {"value": round(float(coarse[i, j]), 4)}
        for i in range(cells)
        for j in range(cells)
    ]
    pixels = alt.Scale(domain=[0, side], nice=False)
    bare = alt.Axis(grid=False, tickCount=4)
    colour = alt.Scale(type="sqrt", domain=[0, 1], scheme="viridis")
    reach = ", ".join(f"{share:.0%}: {field.side_holding(share)}" for share in SHARES)
    title = alt.TitleParams(
        text=field.name,
        subtitle=[
            f"weights: {field.weights}; input {square(side)}",
            f"side (px) of the square holding {reach}",
        ],
        fontSize=13,
        subtitleFontSize=10,
        anchor="start",
    )
    return (
        alt.Chart(data(points))
        .mark_rect()
        .encode(
            x=alt.X("x:Q", scale=pixels, axis=bare, title=None),
            x2="x2:Q",
            y=alt.Y("y:Q", scale=alt.Scale(domain=[side, 0], nice=False), axis=bare, title=None),
            y2="y2:Q",
            color=alt.Color("value:Q", scale=colour, legend=None),
        )
        .properties(width=drawn, height=drawn, title=title)
    )
