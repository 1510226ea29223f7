"""Attentions that gate by pooled values, as loops written from their papers' equations."""

import math
from collections.abc import Callable
from itertools import product

import torch
from slow_loops import Grid, Index, Weights, act, batch_norm, conv, join, sigmoid, softmax, total
from torch import Tensor

Line = dict[tuple[int, int, int], Tensor]  # numbers by (sample, channel, place)


def places(x: Grid) -> list[tuple[int, int]]:
    return list(product(range(x.shape[2]), range(x.shape[3])))


def over_maps(x: Grid, reduce: Callable[[list[Tensor]], Tensor]) -> Grid:
    """One number of each channel's map."""
    y = Grid((*x.shape[:2], 1, 1))
    for b, c, _, _ in y:
        y[b, c, 0, 0] = reduce([x[b, c, i, j] for i, j in places(x)])
    return y


def over_channels(x: Grid, reduce: Callable[[list[Tensor]], Tensor]) -> Grid:
    """One number of each position's channels."""
    y = Grid((x.shape[0], 1, *x.shape[2:]))
    for b, _, i, j in y:
        y[b, 0, i, j] = reduce([x[b, c, i, j] for c in range(x.shape[1])])
    return y


def mean(values: list[Tensor]) -> Tensor:
    return total(values) / len(values)


def largest(values: list[Tensor]) -> Tensor:
    found = values[0]
    for value in values[1:]:
        found = value if value > found else found
    return found


def gated(x: Grid, gate: Grid) -> Grid:
    """x times a gate that has 1 on some axes."""
    y = Grid(x.shape)
    for index in y:
        at = [place % size for place, size in zip(index, gate.shape, strict=True)]
        y[index] = x[index] * gate[at[0], at[1], at[2], at[3]]
    return y


def cbam(x: Grid, weights: Weights, *, kernel: int = 7) -> Grid:
    """arXiv:1807.06521, equations 2 and 3, with the authors' BatchNorm."""

    def mlp(pooled: Grid) -> Grid:
        return conv(act(conv(pooled, weights, "channel.fc1"), "relu"), weights, "channel.fc2")

    x = gated(x, (mlp(over_maps(x, mean)) + mlp(over_maps(x, largest))).map(sigmoid))
    plane = join([over_channels(x, mean), over_channels(x, largest)])
    scores = conv(plane, weights, "spatial.conv.conv", padding=kernel // 2)
    return gated(x, batch_norm(scores, weights, "spatial.conv.bn", momentum=0.01).map(sigmoid))


def bam(x: Grid, weights: Weights, *, dilation: int = 4, combine: str, norms: str) -> Grid:
    """arXiv:1807.06514, equations 1 to 4."""

    def layer(x: Grid, branch: str, name: str, norm: str, padding: int = 0) -> Grid:
        last = name.endswith("final")
        y = conv(x, weights, f"{branch}_{name}", padding=padding, dilation=padding or 1)
        if last == (norms == "last"):
            y = batch_norm(y, weights, f"{branch}_{norm}")
        return y if last else act(y, "relu")

    branch = "channel_att.gate_c.gate_c"
    channel = layer(over_maps(x, mean), branch, "fc_0", "bn_1")
    channel = layer(channel, branch, "fc_final", "bn_final")
    branch = "spatial_att.gate_s.gate_s"
    spatial = layer(x, branch, "conv_reduce0", "bn_reduce0")
    for number in range(2):
        name = f"di_{number}"
        spatial = layer(spatial, branch, f"conv_{name}", f"bn_{name}", dilation)
    spatial = layer(spatial, branch, "conv_final", "bn_final")
    y = Grid(x.shape)
    for b, c, i, j in y:
        one, two = channel[b, c, 0, 0], spatial[b, 0, i, j]
        scores = {"sum": one + two, "product": one * two, "max": one if one > two else two}
        y[b, c, i, j] = x[b, c, i, j] + x[b, c, i, j] * sigmoid(scores[combine])
    return y


def eca(x: Grid, weights: Weights) -> Grid:
    """arXiv:1910.03151, equation 9: a convolution along the channels' means."""
    kernel = weights["conv.weight"]
    size = len(kernel)
    means = over_maps(x, mean)
    gate = Grid(means.shape)
    for b, c, _, _ in gate:
        reach = [(k, c + k - size // 2) for k in range(size)]
        terms = [kernel[0, 0, k] * means[b, d, 0, 0] for k, d in reach if 0 <= d < x.shape[1]]
        gate[b, c, 0, 0] = sigmoid(total(terms))
    return gated(x, gate)


def simam(x: Grid, weights: Weights, *, e_lambda: float = 1e-4) -> Grid:
    """PMLR 139:11863, equation 5 inverted, and 6; the variance as in the authors' code."""
    y = Grid(x.shape)
    for b, c in product(*map(range, x.shape[:2])):
        values = [x[b, c, i, j] for i, j in places(x)]
        centre = mean(values)
        squares = total([(value - centre) ** 2 for value in values])
        variance = squares / max(1, len(values) - 1)
        for i, j in places(x):
            energy = (x[b, c, i, j] - centre) ** 2 / (4 * (variance + e_lambda)) + 0.5
            y[b, c, i, j] = x[b, c, i, j] * sigmoid(energy)
    return y


def normal(values: list[Tensor], eps: float = 1e-5) -> list[Tensor]:
    centre = mean(values)
    variance = mean([(value - centre) ** 2 for value in values])
    return [(value - centre) / torch.sqrt(variance + eps) for value in values]


def ema(x: Grid, weights: Weights, *, groups: int) -> Grid:
    """arXiv:2305.13563, section 2.3 and figure 3(b), a group at a time."""
    width = x.shape[1] // groups
    return join([_ema_of(x.channels(g * width, (g + 1) * width), weights) for g in range(groups)])


def _ema_of(x: Grid, weights: Weights) -> Grid:
    batch, width, height, breadth = x.shape
    means = Grid((batch, width, height + breadth, 1))
    for b, c in product(range(batch), range(width)):
        for i in range(height):
            means[b, c, i, 0] = mean([x[b, c, i, j] for j in range(breadth)])
        for j in range(breadth):
            means[b, c, height + j, 0] = mean([x[b, c, i, j] for i in range(height)])
    gates = conv(means, weights, "conv1x1").map(sigmoid)
    one, two = Grid(x.shape), conv(x, weights, "conv3x3", padding=1)
    scale, shift = weights["gn.weight"], weights["gn.bias"]
    for b, c in product(range(batch), range(width)):
        crossed = [
            x[b, c, i, j] * gates[b, c, i, 0] * gates[b, c, height + j, 0] for i, j in places(x)
        ]
        for (i, j), value in zip(places(x), normal(crossed), strict=True):
            one[b, c, i, j] = scale[c,] * value + shift[c,]
    y = Grid(x.shape)
    for b in range(batch):
        of_one, of_two = (
            softmax([over_maps(path, mean)[b, c, 0, 0] for c in range(width)])
            for path in (one, two)
        )
        for i, j in places(x):
            terms = [
                of_one[c] * two[b, c, i, j] + of_two[c] * one[b, c, i, j] for c in range(width)
            ]
            for c in range(width):
                y[b, c, i, j] = x[b, c, i, j] * sigmoid(total(terms))
    return y


def shuffle(x: Grid, weights: Weights, *, groups: int) -> Grid:
    """arXiv:2102.00240, equations 1 to 3, and the shuffle of the authors' code."""
    channels = x.shape[1]
    width = channels // groups // 2
    named = {name: weights[name] for name in ("cweight", "cbias", "sweight", "sbias")}
    scale, shift = weights["gn.weight"], weights["gn.bias"]
    mixed = Grid(x.shape)
    for b, c in product(range(x.shape[0]), range(channels)):
        values = [x[b, c, i, j] for i, j in places(x)]
        half, k = c // width % 2, c % width
        at: Index = (0, k, 0, 0)
        if half == 0:
            score = named["cweight"][at] * mean(values) + named["cbias"][at]
            gates = [sigmoid(score)] * len(values)
        else:
            normed = [scale[k,] * value + shift[k,] for value in normal(values)]
            gates = [sigmoid(named["sweight"][at] * v + named["sbias"][at]) for v in normed]
        # Read as (2, C / 2), written as (C / 2, 2).
        to = c % (channels // 2) * 2 + c // (channels // 2)
        for (i, j), value, gate in zip(places(x), values, gates, strict=True):
            mixed[b, to, i, j] = value * gate
    return mixed


def ela(x: Grid, weights: Weights, *, norm_groups: int) -> Grid:
    """arXiv:2403.01123, equations 5 to 8."""
    batch, channels, height, width = x.shape
    rows: Line = {}
    columns: Line = {}
    for b, c in product(range(batch), range(channels)):
        for i in range(height):
            rows[b, c, i] = mean([x[b, c, i, j] for j in range(width)])
        for j in range(width):
            columns[b, c, j] = mean([x[b, c, i, j] for i in range(height)])
    of_rows = _ela_gate(rows, (batch, channels, height), weights, norm_groups)
    of_columns = _ela_gate(columns, (batch, channels, width), weights, norm_groups)
    y = Grid(x.shape)
    for b, c, i, j in y:
        y[b, c, i, j] = x[b, c, i, j] * of_rows[b, c, i] * of_columns[b, c, j]
    return y


def _ela_gate(line: Line, shape: tuple[int, int, int], weights: Weights, norm_groups: int) -> Line:
    batch, channels, length = shape
    kernel = weights["conv.weight"]
    _, per_group, size = weights.parameters["conv.weight"].shape
    scale, shift = weights["gn.weight"], weights["gn.bias"]
    scores: Line = {}
    for b, o, at in product(range(batch), range(channels), range(length)):
        first = o // per_group * per_group
        scores[b, o, at] = total(
            [
                kernel[o, c, k] * line[b, first + c, at + k - size // 2]
                for c, k in product(range(per_group), range(size))
                if 0 <= at + k - size // 2 < length
            ]
        )
    gates: Line = {}
    span = channels // norm_groups
    for b, group in product(range(batch), range(norm_groups)):
        members = list(product(range(group * span, (group + 1) * span), range(length)))
        values = normal([scores[b, c, at] for c, at in members])
        for (c, at), value in zip(members, values, strict=True):
            gates[b, c, at] = sigmoid(scale[c,] * value + shift[c,])
    return gates


def gather_excite(
    x: Grid, weights: Weights, *, extent: int | None, learned: bool, excite: bool
) -> Grid:
    """arXiv:1810.12348, section 3: gather, perhaps excite, spread to the nearest positions."""
    gathered = _gathered(x, weights, extent, learned)
    if excite:
        gathered = conv(act(conv(gathered, weights, "mlp.fc1"), "relu"), weights, "mlp.fc2")
    gate = Grid(x.shape)
    for b, c, i, j in gate:
        row = i * gathered.shape[2] // x.shape[2]
        column = j * gathered.shape[3] // x.shape[3]
        gate[b, c, i, j] = sigmoid(gathered[b, c, row, column])
    return gated(x, gate)


def _gathered(x: Grid, weights: Weights, extent: int | None, learned: bool) -> Grid:
    if extent is None:
        return over_maps(x, mean)
    if learned:
        steps = int(math.log2(extent))
        for step in range(1, steps + 1):
            name = f"gather.conv{step}"
            x = conv(x, weights, name, stride=2, padding=1, groups=x.shape[1])
            x = batch_norm(x, weights, f"gather.norm{step}")
            x = act(x, "relu" if step < steps else None)
        return x
    batch, channels, height, width = x.shape
    y = Grid((batch, channels, -(-height // extent), -(-width // extent)))
    for b, c, i, j in y:
        rows = [row for row in range(height) if abs(row - i * extent) < extent]
        columns = [column for column in range(width) if abs(column - j * extent) < extent]
        y[b, c, i, j] = mean([x[b, c, row, column] for row, column in product(rows, columns)])
    return y
