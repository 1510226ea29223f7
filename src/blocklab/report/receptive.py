"""A figure of effective receptive fields, which says what they hang on."""

import math
from collections.abc import Sequence

import altair as alt
import numpy as np

from blocklab.errors import InputError
from blocklab.measure.receptive_field import ReceptiveField
from blocklab.report.cell_text import sides
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
    height, width = field.values.shape
    step = math.ceil(max(height, width) / MOST_CELLS)  # pixels a side of a cell; the last: fewer
    rows, columns = (np.append(np.arange(0, side, step), side) for side in (height, width))
    coarse = np.add.reduceat(np.add.reduceat(field.values, rows[:-1], 0), columns[:-1], 1)
    coarse /= np.outer(np.diff(rows), np.diff(columns))
    coarse /= max(float(coarse.max()), 1e-300)
    across, down = len(columns) - 1, len(rows) - 1
    drawn = max(1, round(SIDE / max(across, down)))  # cells of whole pixels leave no seams
    points = [
        {"x": int(columns[j]), "x2": int(columns[j + 1]), "y": int(rows[i]), "y2": int(rows[i + 1])}
        | {"value": round(float(coarse[i, j]), 4)}
        for i in range(down)
        for j in range(across)
    ]
    pixels = alt.Scale(domain=[0, width], nice=False)
    bare = alt.Axis(grid=False, tickCount=4)
    colour = alt.Scale(type="sqrt", domain=[0, 1], scheme="viridis")
    reach = ", ".join(f"{share:.0%}: {field.side_holding(share)}" for share in SHARES)
    title = alt.TitleParams(
        text=field.name,
        subtitle=[
            f"weights: {field.weights}; input {sides((height, width))}",
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
            y=alt.Y("y:Q", scale=alt.Scale(domain=[height, 0], nice=False), axis=bare, title=None),
            y2="y2:Q",
            color=alt.Color("value:Q", scale=colour, legend=None),
        )
        .properties(width=across * drawn, height=down * drawn, title=title)
    )
