"""Draws a block's boxes as SVG, from its input at the top down to its output: layers, then lanes.

Each box lies in the layer below the last of those that it takes maps of (Sugiyama, Tagawa and Toda,
1981); a way that crosses a layer has a place of its own there, so that no line runs through a box.
"""

from dataclasses import dataclass
from html import escape
from itertools import pairwise

from block_graph import Box, Graph, children
from block_trace import TIMES

LINE, CHARACTER, PADDING, GAP, LANE = 19, 7.0, 12, 30, 24
_SIGN = 28
_SWEEPS = 24


@dataclass
class Place:
    """Where a box lies, or a way past one: its middle, its size, its layer, and where it goes on.

    `height` is with the shape below a box.
    """

    box: Box | None
    layer: int
    width: float
    height: float
    x: float = 0.0
    top: float = 0.0


def svg(graph: Graph, title: str) -> str:
    """Return the drawing, in the page's colours, to be written into a page."""
    places, ways = _places(graph)
    layers = _ordered(places, ways)
    _set_across(layers, places, ways)
    height = _set_down(layers, places)
    left = min(place.x - place.width / 2 for place in places.values()) - 2
    right = max(place.x + place.width / 2 for place in places.values()) + 2
    arriving: dict[int, list[int]] = {key: [] for key in places}
    for way in ways:
        arriving[way[-1]].append(way[-2])
    drawn = [_line(way, places, arriving[way[-1]]) for way in ways]
    drawn += [_box(place.box, place) for place in places.values() if place.box]
    return (
        f'<svg class="block-drawing" role="img" aria-label="{escape(title)}" '
        f'viewBox="{left:.0f} 0 {right - left:.0f} {height:.0f}" '
        f'width="{right - left:.0f}" style="min-width: {0.8 * (right - left):.0f}px">'
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8Z"/></marker></defs>'
        f"{''.join(drawn)}</svg>"
    )


def _places(graph: Graph) -> tuple[dict[int, Place], list[list[int]]]:
    """Return the places of boxes and of ways past them, and each way from place to place."""
    layer: dict[int, int] = {}
    for number, box in graph.items():
        layer[number] = 1 + max((layer[parent] for parent in box.parents), default=-1)
    for number, taken in reversed(children(graph).items()):  # short branches start late
        if taken and len(graph[number].parents) == 1:
            layer[number] = max(layer[number], min(layer[child] for child in taken) - 1)
    places = dict[int, Place]()
    for number, box in graph.items():
        longest = max(
            map(len, [*box.heading, *box.lines, box.shape if _has_shape(graph, number) else ""])
        )
        width = longest * CHARACTER + (0 if box.is_sign else 2 * PADDING)
        lines = len(box.heading) + len(box.lines)
        height = _SIGN if box.is_sign else lines * LINE + PADDING
        below = LINE if _has_shape(graph, number) else 0
        places[number] = Place(box, layer[number], max(width, _SIGN), height + below)
    ways = list[list[int]]()
    for number, box in graph.items():
        for parent in box.parents:
            way = [parent]
            for between in range(layer[parent] + 1, layer[number]):
                way.append(-len(places))
                places[way[-1]] = Place(None, between, 8, 0)
            ways.append([*way, number])
    return places, ways


def _has_shape(graph: Graph, number: int) -> bool:
    """Whether a box says what comes out: a sign only where that is unlike all that goes in."""
    box = graph[number]
    return not box.is_sign or all(graph[parent].shape != box.shape for parent in box.parents)


def _ordered(places: dict[int, Place], ways: list[list[int]]) -> list[list[int]]:
    """Return each layer's places from left to right, with few crossings."""
    layers: list[list[int]] = [[] for _ in range(1 + max(one.layer for one in places.values()))]
    for key, place in places.items():
        layers[place.layer].append(key)
    up, down = _neighbours(places, ways)
    best = [list(layer) for layer in layers]
    for sweep in range(_SWEEPS):
        beside = down if sweep % 2 else up
        for layer in reversed(layers) if sweep % 2 else layers:
            at = {key: n for one in layers for n, key in enumerate(one)}
            near = {key: [at[other] for other in beside[key]] or [at[key]] for key in layer}
            layer.sort(key=lambda key: sum(near[key]) / len(near[key]))
        if _crossings(layers, down) < _crossings(best, down):
            best = [list(layer) for layer in layers]
    return best


def _neighbours(
    places: dict[int, Place], ways: list[list[int]]
) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    up: dict[int, list[int]] = {key: [] for key in places}
    down: dict[int, list[int]] = {key: [] for key in places}
    for way in ways:
        for one, other in pairwise(way):
            down[one].append(other)
            up[other].append(one)
    return up, down


def _crossings(layers: list[list[int]], down: dict[int, list[int]]) -> int:
    total = 0
    for upper, lower in pairwise(layers):
        at = {key: n for n, key in enumerate(lower)}
        ends = [sorted(at[key] for key in down[one]) for one in upper]
        for n, left in enumerate(ends):
            total += sum(a > b for right in ends[n + 1 :] for a in left for b in right)
    return total


def _set_across(layers: list[list[int]], places: dict[int, Place], ways: list[list[int]]) -> None:
    """Set each place's middle near its neighbours', with room between; long ways stay straight."""
    up, down = _neighbours(places, ways)
    for layer in layers:
        _spread(layer, places, {key: 0.0 for key in layer})
    for sweep in range(_SWEEPS + 1):  # the last goes down, to leave each end below what it is of
        last = sweep >= _SWEEPS - 4
        for layer in reversed(layers) if sweep % 2 else layers:
            wanted = dict[int, float]()
            for key in layer:
                near = up[key] + down[key] if last else (down if sweep % 2 else up)[key]
                if places[key].box is None:  # a way keeps to the ways
                    near = [one for one in up[key] + down[key] if places[one].box is None] or near
                wanted[key] = (
                    sum(places[one].x for one in near) / len(near) if near else places[key].x
                )
            _spread(layer, places, wanted)
    for way in ways:
        _straighten(way[1:-1], layers, places)


def _straighten(way: list[int], layers: list[list[int]], places: dict[int, Place]) -> None:
    """Lead a way past several layers straight down, where there is room for it."""
    least, most = float("-inf"), float("inf")
    for key in way:
        layer = layers[places[key].layer]
        at = layer.index(key)
        for other in layer[at - 1 : at] if at else []:
            least = max(least, places[other].x + places[other].width / 2 + LANE / 2)
        for other in layer[at + 1 : at + 2]:
            most = min(most, places[other].x - places[other].width / 2 - LANE / 2)
    if len(way) > 1 and least <= most:
        middle = sum(places[key].x for key in way) / len(way)
        for key in way:
            places[key].x = min(max(middle, least), most)


def _spread(layer: list[int], places: dict[int, Place], wanted: dict[int, float]) -> None:
    """Set the middles as near to the wanted ones as their order and widths let (least squares)."""
    offsets, offset, before = list[float](), 0.0, 0.0
    for key in layer:
        half = places[key].width / 2
        offset += before + half + (LANE if offsets else 0)
        offsets.append(offset)
        before = half
    groups = list[list[float]]()  # of neighbours that touch: the sum of what they want, how many
    for key, offset in zip(layer, offsets, strict=True):
        weight = 4.0 if places[key].box is None else 1.0
        groups.append([(wanted[key] - offset) * weight, weight, 1])
        while len(groups) > 1 and groups[-2][0] / groups[-2][1] > groups[-1][0] / groups[-1][1]:
            last = groups.pop()
            groups[-1] = [a + b for a, b in zip(groups[-1], last, strict=True)]
    starts = [total / weight for total, weight, count in groups for _ in range(int(count))]
    for key, start, offset in zip(layer, starts, offsets, strict=True):
        places[key].x = start + offset


def _set_down(layers: list[list[int]], places: dict[int, Place]) -> float:
    top = 2.0
    for layer in layers:
        tallest = max(places[key].height for key in layer)
        for place in (places[key] for key in layer):
            place.top, place.height = top, place.height if place.box else tallest
        top += tallest + GAP
    return top - GAP + 4


def _line(way: list[int], places: dict[int, Place], arriving: list[int]) -> str:
    start, end = places[way[0]], places[way[-1]]
    port = sorted(arriving, key=lambda key: places[key].x).index(way[-2])
    is_sign = end.box is not None and end.box.is_sign
    room = 20 / max(len(arriving) - 1, 1) if is_sign else min(18, (end.width - 8) / len(arriving))
    x, y = start.x, start.top + start.height
    path = [f"M{x:.1f} {y:.1f}"]
    for key in way[1:]:
        place = places[key]
        to, top = place.x, place.top
        if key == way[-1]:
            beside = (port - (len(arriving) - 1) / 2) * room
            to += beside
            top += _SIGN / 2 - (196 - beside**2) ** 0.5 if is_sign else 0
        leaves = place.top - GAP
        middle = (leaves + top) / 2
        path.append(f"V{leaves:.1f}C{x:.1f} {middle:.1f} {to:.1f} {middle:.1f} {to:.1f} {top:.1f}")
        x = to
    return f'<path class="way" d="{"".join(path)}" marker-end="url(#arrow)"/>'


def _box(box: Box, place: Place) -> str:
    lines = [*box.heading, *box.lines]
    size = _SIGN if box.is_sign else len(lines) * LINE + PADDING
    parts = list[str]()
    if box.is_sign:
        kind = "gate" if box.lines[0] == TIMES else "sum"
        parts.append(
            f'<circle class="{kind}" cx="{place.x:.1f}" cy="{place.top + size / 2:.1f}" r="13"/>'
        )
    else:
        kind = "end" if lines[0] in ("x", "y") else "step"
        left, round_ = place.x - place.width / 2, 16 if kind == "end" else 6
        parts.append(
            f'<rect class="{kind}" x="{left:.1f}" y="{place.top:.1f}" width="{place.width:.1f}" '
            f'height="{size}" rx="{round_}"/>'
        )
    middle = place.top + size / 2 - (len(lines) - 1) * LINE / 2 + 5
    for n, line in enumerate(lines):
        style = ' class="sign"' if box.is_sign else ""
        parts.append(
            f'<text{style} x="{place.x:.1f}" y="{middle + n * LINE:.1f}">{escape(line)}</text>'
        )
    if place.height > size:
        parts.append(
            f'<text class="shape" x="{place.x:.1f}" y="{place.top + size + 15:.1f}">'
            f"{escape(box.shape)}</text>"
        )
    return f"<g>{''.join(parts)}</g>"
