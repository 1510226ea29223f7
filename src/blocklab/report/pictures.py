"""Figures of one network: where it looks, what it lets through, its kernels, its dead neurons."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray
from torch import nn

from blocklab.errors import InputError, did_you_mean
from blocklab.measure.activations import ACTIVATION, Diagnosis
from blocklab.measure.saliency import LetThrough, Maps, attentions
from blocklab.report.drawing import COLOURS, LETTER, WIDTH, Figure, data, specification
from blocklab.report.raster import SIDE, Pixels, data_address, heat, overlaid, scaled, signed

MOST_KERNELS = 64
MOST_LAYERS = 200  # bars below each other
_GAP, _LINE = 14, 15  # pixels between pictures, and of a line of text


@dataclass(frozen=True)
class Cell:
    """A picture of a grid, with lines of text above it."""

    pixels: Pixels
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Seen:
    """An image that a network was shown: its pixels (H, W, 3), and what to call it."""

    pixels: Pixels
    name: str
    said: str  # which class the network named, and how surely


def grid(rows: Sequence[Sequence[Cell]], side: int = SIDE) -> dict[str, Any]:
    """Return the specification of pictures in rows and columns, each under its text."""
    lines = max(len(cell.lines) for row in rows for cell in row)
    texts = [line for row in rows for cell in row for line in cell.lines]
    across = max([side + _GAP, *(round(LETTER * len(text)) + _GAP for text in texts)])
    down = side + _GAP + _LINE * lines
    width, height = across * max(map(len, rows)), down * len(rows)
    pictures, words = [], []
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            x, y = j * across, i * down
            for number, line in enumerate(cell.lines):
                words.append({"x": x, "y": y + _LINE * (number + 1) - 4, "text": line})
            tall, wide = (side * n / max(cell.pixels.shape[:2]) for n in cell.pixels.shape[:2])
            place = {"x": x, "x2": x + wide, "y": y + _LINE * lines}
            address = data_address(cell.pixels, side)
            pictures.append(place | {"y2": y + _LINE * lines + tall, "picture": address})
    bare: dict[str, Any] = {"axis": None, "title": None}
    x = {"scale": alt.Scale(domain=[0, width], nice=False), **bare}
    y = {"scale": alt.Scale(domain=[height, 0], nice=False), **bare}
    drawn = (
        alt.Chart(data(pictures))
        .mark_image(aspect=False, aria=False)
        .encode(x=alt.X("x:Q", **x), x2="x2:Q", y=alt.Y("y:Q", **y), y2="y2:Q", url="picture:N")
    )
    said = (
        alt.Chart(data(words))
        .mark_text(align="left", baseline="alphabetic", fontSize=11, aria=False)
        .encode(x=alt.X("x:Q", **x), y=alt.Y("y:Q", **y), text="text:N")
    )
    shape = alt.layer(drawn, said).properties(width=width, height=height).to_dict()
    for key in ("$schema", "config"):
        shape.pop(key, None)
    return shape


def grad_cam_figure(name: str, seen: Sequence[Seen], maps: Maps) -> Figure:
    """Draw images beside what speaks for the class that the network named."""
    height, width = maps.size
    rows = [
        [
            Cell(one.pixels, (one.name, one.said)),
            Cell(overlaid(one.pixels, scaled(values)), ("Grad-CAM of that class", "")),
        ]
        for one, values in zip(seen, maps.values, strict=True)
    ]
    caption = (
        f"Grad-CAM at {maps.layer}, whose map is {height}\u00d7{width}: the brighter, the more a "
        "position speaks for the class that is named; each image on its own scale."
    )
    return Figure("grad_cam", f"Where {name} looks", caption, grid(rows))


def attention_figure(name: str, seen: Sequence[Seen], through: LetThrough) -> Figure:
    """Draw images beside what each attention lets through at each position, on one scale."""
    # Most gates are of 0 to 1; a block that adds may go beyond.
    most = max(1.0, *(float(gate.values.max()) for gate in through.maps))
    rows = [
        [
            Cell(one.pixels, (one.name, one.said)),
            *(_gate_cell(one, gate, gate.values[number], most) for gate in through.maps),
        ]
        for number, one in enumerate(seen)
    ]
    drawn = len(through.maps)
    which = f"All {drawn} attentions" if drawn > 1 else "The only attention"
    if drawn < through.of:
        which = f"{drawn} of {through.of} attentions: the last at each size of map, then the last"
    caption = (
        "What an attention lets through at each position: mean size over channels after it by that "
        f"before it. One scale for all: black is 0, pale yellow {most:.3g}; the figures are the "
        "least and the most of a map. A gate of whole channels does the same at every position, "
        f"so its map has one colour. {which}."
    )
    return Figure("attention", f"What the attentions of {name} let through", caption, grid(rows))


def _gate_cell(one: Seen, gate: Maps, values: NDArray[np.float32], most: float) -> Cell:
    low, high = float(values.min()), float(values.max())
    said = f"{low:.2f} to {high:.2f}"
    if gate.everywhere:
        # What differs between positions is only which channels are large there.
        values, said = np.full_like(values, values.mean()), f"{values.mean():.2f} at every position"
    return Cell(overlaid(one.pixels, values / most), (gate.layer, said))


def kernels_figure(name: str, model: nn.Module, weights: str, layer: str | None = None) -> Figure:
    """Draw the kernels of a convolution; by default of the first among the largest.

    Those inside attentions are drawn where they are named.

    Raises:
        InputError: if there is no such convolution, or none larger than 1x1.
    """
    found = {at: module for at, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    spatial = {at: one for at, one in found.items() if max(one.kernel_size) > 1}
    if layer is not None and layer not in found:
        near = did_you_mean(layer, found) or "; its convolutions: " + ", ".join([*spatial][:6])
        raise InputError(f"{name} has no convolution '{layer}'{near}")
    if layer is None and not spatial:
        raise InputError(f"no kernels to draw: {name} has no convolution larger than 1x1")
    gates = tuple(f"{at}." for at in attentions(model))
    own = {at: one for at, one in spatial.items() if not at.startswith(gates)} or spatial
    layer = layer or max(own, key=lambda at: np.prod(own[at].kernel_size))
    conv = found[layer]
    values = conv.weight.detach().float().cpu().numpy()  # (O, I / groups, h, w)
    shown = values[:MOST_KERNELS]
    if values.shape[1] == 1:
        pictures = [signed(one[0] / max(np.abs(one).max(), 1e-12)) for one in shown]
        how = "blue is below and red above zero, each on its own scale"
    elif values.shape[1] == 3:
        pictures = [np.rint(255 * scaled(one)).astype(np.uint8).transpose(1, 2, 0) for one in shown]
        how = "as colours of the image, each on its own scale"
    else:
        sizes = np.sqrt((shown.astype(np.float64) ** 2).sum(1))
        pictures = [heat(one / max(one.max(), 1e-12)) for one in sizes]
        how = f"each position's norm over {values.shape[1]} input channels, black is zero"
    across = 8 if len(pictures) > 8 else len(pictures)
    rows = [
        [Cell(picture) for picture in pictures[start : start + across]]
        for start in range(0, len(pictures), across)
    ]
    count = f"{len(shown)} of {len(values)}" if len(shown) < len(values) else f"All {len(values)}"
    size = "\u00d7".join(map(str, conv.kernel_size))
    caption = f"{count} kernels of {layer}, {size}; {how}. Weights: {weights}."
    return Figure(
        "kernels", f"Kernels of {name}", caption, grid(rows, 64 if len(pictures) > 8 else SIDE)
    )


def zeros_figure(name: str, diagnosis: Diagnosis) -> Figure:
    """Draw which share of each activation's outputs is zero, and of its channels dead.

    Raises:
        InputError: if the network computes no activation that is counted.
    """
    layers = [one for one in diagnosis.layers if one.kind == ACTIVATION]
    if not layers:
        raise InputError(f"no zeros to draw: {name} computes no activation that is counted")
    points = [
        {
            "row": one.layer,
            "zeros": round(one.zero_percent, 3),
            "dead": round(100 * one.channels_dead / one.channels, 3) if one.channels else 0.0,
        }
        for one in layers[:MOST_LAYERS]
    ]
    axis = alt.Axis(grid=False, ticks=False, domain=False, labelPadding=10)
    y = alt.Y("row:N", sort=None, title=None, axis=axis)
    share = alt.Scale(domain=[0, 100], nice=False)
    base = alt.Chart(data(points))
    tooltip = [alt.Tooltip("row:N"), alt.Tooltip("zeros:Q"), alt.Tooltip("dead:Q")]
    layered = [
        base.mark_bar(color=COLOURS[5], height=8).encode(
            x=alt.X("zeros:Q", scale=share, title="% of outputs (bar), of channels (dot)"),
            y=y,
            tooltip=tooltip,
        ),
        base.mark_point(filled=True, size=45, opacity=1, color=COLOURS[1]).encode(
            x=alt.X("dead:Q", scale=share), y=y, tooltip=tooltip
        ),
    ]
    caption = (
        f"{diagnosis.title}. Bar: outputs of an activation that are zero; dot: channels that are "
        "zero at every position of every image, which no gradient revives."
    )
    if len(layers) > MOST_LAYERS:
        caption += f" The first {MOST_LAYERS} of {len(layers)} layers."
    shape = specification(layered, alt.Step(16))
    shape["width"] = WIDTH * 3 // 4
    return Figure("dead_neurons", f"Zeros in {name}", caption, shape)
