"""Attentions by frequencies, norms, positions and scales, as loops written from their papers."""

import math
from itertools import product

import torch
from slow_loops import (
    SCALAR_ACTIVATIONS,
    Grid,
    Index,
    Weights,
    act,
    batch_norm,
    conv,
    join,
    sigmoid,
    softmax,
    tanh,
    total,
)
from torch import Tensor

Numbers = dict[Index, Tensor]


def gated(x: Grid, gates: Numbers) -> Grid:
    """y[b, c, i, j] = x[b, c, i, j] * gate[b, c]."""
    y = Grid(x.shape)
    for b, c, i, j in y:
        y[b, c, i, j] = x[b, c, i, j] * gates[b, c]
    return y


def frequency_channels(
    x: Grid, weights: Weights, frequencies: list[tuple[int, int]], space: int = 7
) -> Grid:
    """arXiv:2012.11929, equations 5 to 9, with the cosines of length 1 of the authors' code."""
    batch, channels, height, width = x.shape

    def cosine(part: int, place: int, size: int) -> float:
        u = part * size // space
        length = math.sqrt(1 / size) if u == 0 else math.sqrt(2 / size)
        return length * math.cos(math.pi * u * (place + 0.5) / size)

    sums: Numbers = {}
    for b, c in product(range(batch), range(channels)):
        u, v = frequencies[c * len(frequencies) // channels]
        sums[b, c] = total(
            [
                x[b, c, i, j] * cosine(u, i, height) * cosine(v, j, width)
                for i, j in product(range(height), range(width))
            ]
        )
    inner, outer = weights["fc.0.weight"], weights["fc.2.weight"]
    hidden = weights.parameters["fc.0.weight"].shape[0]
    relu, gates = SCALAR_ACTIVATIONS["relu"], Numbers()
    for b in range(batch):
        features = [
            relu(total([inner[k, c] * sums[b, c] for c in range(channels)])) for k in range(hidden)
        ]
        for c in range(channels):
            gates[b, c] = sigmoid(total([outer[c, k] * features[k] for k in range(hidden)]))
    return gated(x, gates)


def gated_channels(x: Grid, weights: Weights, norm: str, eps: float) -> Grid:
    """arXiv:1909.11519, equations 2 to 5."""
    batch, channels, height, width = x.shape
    alpha, gamma, beta = (weights[name] for name in ("alpha", "gamma", "beta"))
    gates: Numbers = {}
    for b in range(batch):
        embedded = []
        for c in range(channels):
            values = [x[b, c, i, j] for i, j in product(range(height), range(width))]
            if norm == "l2":
                size = torch.sqrt(total([value * value for value in values]) + eps)
            else:
                size = total([value if value > 0 else -value for value in values])
            embedded.append(alpha[0, c, 0, 0] * size)
        if norm == "l2":
            mean = total([one * one for one in embedded]) / channels
            divisor = torch.sqrt(mean + eps)
        else:
            divisor = total([one if one > 0 else -one for one in embedded]) / channels + eps
        for c in range(channels):
            normal = embedded[c] / divisor
            gates[b, c] = 1 + tanh(gamma[0, c, 0, 0] * normal + beta[0, c, 0, 0])
    return gated(x, gates)


def largest_of_windows(x: Grid) -> Grid:
    """The maxima of 2 x 2 positions, of what there is at an odd border."""
    batch, channels, height, width = x.shape
    y = Grid((batch, channels, -(-height // 2), -(-width // 2)))
    for b, c, i, j in y:
        places = product(range(2 * i, min(2 * i + 2, height)), range(2 * j, min(2 * j + 2, width)))
        best, *others = [x[b, c, row, column] for row, column in places]
        for other in others:
            best = other if other > best else best
        y[b, c, i, j] = best
    return y


def non_local(x: Grid, weights: Weights, sub_sample: bool, scale: float) -> Grid:
    """arXiv:1711.07971, equations 1, 4 and 6, with BatchNorm behind the last convolution."""
    queries, keys, values = (conv(x, weights, name) for name in "tpg")
    if sub_sample:
        keys, values = largest_of_windows(keys), largest_of_windows(values)
    attended = Grid(queries.shape)
    batch, hidden, height, width = queries.shape
    places = list(product(range(keys.shape[2]), range(keys.shape[3])))
    for b, i, j in product(range(batch), range(height), range(width)):
        scores = [
            scale * total([queries[b, k, i, j] * keys[b, k, u, v] for k in range(hidden)])
            for u, v in places
        ]
        chosen = softmax(scores)
        for k in range(hidden):
            attended[b, k, i, j] = total(
                [w * values[b, k, u, v] for w, (u, v) in zip(chosen, places, strict=True)]
            )
    return x + batch_norm(conv(attended, weights, "z"), weights, "norm")


def group_norm(x: Grid, weights: Weights, name: str, groups: int) -> Grid:
    batch, channels, height, width = x.shape
    scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
    y, size = Grid(x.shape), channels // groups
    for b, g in product(range(batch), range(groups)):
        members = list(product(range(g * size, (g + 1) * size), range(height), range(width)))
        mean = total([x[b, c, i, j] for c, i, j in members]) / len(members)
        variance = total([(x[b, c, i, j] - mean) ** 2 for c, i, j in members]) / len(members)
        for c, i, j in members:
            normal = (x[b, c, i, j] - mean) / torch.sqrt(variance + 1e-5)
            y[b, c, i, j] = scale[c,] * normal + shift[c,]
    return y


def along(x: Grid, weights: Weights, name: str) -> Grid:
    """A depth-wise convolution along the rows' axis of maps of one column."""
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    kernel, (_, _, length, _) = weights.parameters[f"{name}.weight"].shape[2], x.shape
    y = Grid(x.shape)
    for b, c, i, _ in y:
        value = bias[c,]
        for tap in range(kernel):
            place = i + tap - kernel // 2
            if 0 <= place < length:
                value = value + weight[c, 0, tap] * x[b, c, place, 0]
        y[b, c, i, 0] = value
    return y


def spatial_channel_synergy(x: Grid, weights: Weights, heads: int, window: int) -> Grid:
    """arXiv:2407.05128, equations 1 to 9."""
    batch, channels, height, width = x.shape
    rows, columns = Grid((batch, channels, height, 1)), Grid((batch, channels, width, 1))
    for b, c, i, _ in rows:
        rows[b, c, i, 0] = total([x[b, c, i, j] for j in range(width)]) / width
    for b, c, j, _ in columns:
        columns[b, c, j, 0] = total([x[b, c, i, j] for i in range(height)]) / height

    def gates(means: Grid, norm: str) -> Grid:
        size = channels // 4
        names = ("local_dwc", "global_dwc_s", "global_dwc_m", "global_dwc_l")
        parts = [
            along(means.channels(i * size, (i + 1) * size), weights, name)
            for i, name in enumerate(names)
        ]
        return group_norm(join(parts), weights, norm, 4).map(sigmoid)

    row_gates, column_gates = gates(rows, "norm_h"), gates(columns, "norm_w")
    y = Grid(x.shape)
    for b, c, i, j in y:
        y[b, c, i, j] = x[b, c, i, j] * row_gates[b, c, i, 0] * column_gates[b, c, j, 0]
    tall, wide = min(window, height), min(window, width)
    means = Grid((batch, channels, height // tall, width // wide))
    for b, c, i, j in means:
        places = product(range(i * tall, (i + 1) * tall), range(j * wide, (j + 1) * wide))
        means[b, c, i, j] = total([y[b, c, u, v] for u, v in places]) / (tall * wide)
    normal = group_norm(means, weights, "norm", 1)
    queries, keys, values = (conv(normal, weights, name, groups=channels) for name in "qkv")
    positions = list(product(range(means.shape[2]), range(means.shape[3])))
    size, channel_gates = channels // heads, Numbers()
    for b, c in product(range(batch), range(channels)):
        members = range(c // size * size, (c // size + 1) * size)
        scores = [
            total([queries[b, c, i, j] * keys[b, d, i, j] for i, j in positions]) / math.sqrt(size)
            for d in members
        ]
        chosen = softmax(scores)
        attended = [
            total([w * values[b, d, i, j] for w, d in zip(chosen, members, strict=True)])
            for i, j in positions
        ]
        channel_gates[b, c] = sigmoid(total(attended) / len(positions))
    return gated(y, channel_gates)


def adaptive_means(x: Grid, rows: int, columns: int) -> Grid:
    """Means over cells from floor(i H / rows) up to ceil((i + 1) H / rows)."""
    batch, channels, height, width = x.shape
    y = Grid((batch, channels, rows, columns))
    for b, c, i, j in y:
        tall = range(i * height // rows, -(-(i + 1) * height // rows))
        wide = range(j * width // columns, -(-(j + 1) * width // columns))
        values = [x[b, c, u, v] for u, v in product(tall, wide)]
        y[b, c, i, j] = total(values) / len(values)
    return y


def mixed_local_channels(x: Grid, weights: Weights, size: int, weight: float) -> Grid:
    """Section 3.1: gates of cells and of the whole, mixed, and pooled back to the map."""
    batch, channels, height, width = x.shape
    cells = adaptive_means(x, size, size)
    mixed = Grid(cells.shape)

    def convolved(line: list[Tensor], name: str) -> list[Tensor]:
        taps = [
            weights[f"{name}.weight"][0, 0, k]
            for k in range(weights.parameters[f"{name}.weight"].shape[2])
        ]
        half = len(taps) // 2
        return [
            total(
                [
                    tap * line[place + k - half]
                    for k, tap in enumerate(taps)
                    if 0 <= place + k - half < len(line)
                ]
            )
            for place in range(len(line))
        ]

    for b in range(batch):
        places = list(product(range(size), range(size), range(channels)))
        line = convolved([cells[b, c, i, j] for i, j, c in places], "conv_local")
        local = dict(zip(places, line, strict=True))
        means = [
            total([cells[b, c, i, j] for i, j in product(range(size), range(size))]) / size**2
            for c in range(channels)
        ]
        whole = convolved(means, "conv")
        for i, j, c in places:
            mixed[b, c, i, j] = weight * sigmoid(local[i, j, c]) + (1 - weight) * sigmoid(whole[c])
    gate = adaptive_means(mixed, height, width)
    return Grid(x.shape, {index: x[index] * gate[index] for index in x})


def large_selective_kernel(x: Grid, weights: Weights) -> Grid:
    """arXiv:2303.09030, equations 2 to 8."""
    channels = x.shape[1]
    near = conv(x, weights, "conv0", padding=2, groups=channels)
    far = conv(near, weights, "conv_spatial", padding=9, dilation=3, groups=channels)
    near, far = conv(near, weights, "conv1"), conv(far, weights, "conv2")
    both = join([near, far])
    batch, count, height, width = both.shape
    plane = Grid((batch, 2, height, width))
    for b, i, j in product(range(batch), range(height), range(width)):
        values = [both[b, c, i, j] for c in range(count)]
        plane[b, 0, i, j] = total(values) / count
        plane[b, 1, i, j] = max(values)
    choice = conv(plane, weights, "conv_squeeze", padding=3).map(sigmoid)
    mixed = Grid(near.shape)
    for b, c, i, j in mixed:
        mixed[b, c, i, j] = (
            near[b, c, i, j] * choice[b, 0, i, j] + far[b, c, i, j] * choice[b, 1, i, j]
        )
    gate = conv(mixed, weights, "conv")
    return Grid(x.shape, {index: x[index] * gate[index] for index in x})


def strip(x: Grid, weights: Weights, name: str) -> Grid:
    """A depth-wise convolution of a kernel with a height and a width."""
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    _, _, tall, wide = weights.parameters[f"{name}.weight"].shape
    _, _, height, width = x.shape
    y = Grid(x.shape)
    for b, c, i, j in y:
        value = bias[c,]
        for u, v in product(range(tall), range(wide)):
            row, column = i + u - tall // 2, j + v - wide // 2
            if 0 <= row < height and 0 <= column < width:
                value = value + weight[c, 0, u, v] * x[b, c, row, column]
        y[b, c, i, j] = value
    return y


def context_anchors(x: Grid, weights: Weights, pool: int) -> Grid:
    """arXiv:2403.06258, equations 5 to 8."""
    _, _, height, width = x.shape
    means = Grid(x.shape)
    for b, c, i, j in means:
        places = product(range(i - pool // 2, i + pool // 2 + 1), range(width))
        inside = [x[b, c, u, v] for u, v in places if 0 <= u < height and abs(v - j) <= pool // 2]
        means[b, c, i, j] = total(inside) / pool**2

    def layer(y: Grid, name: str) -> Grid:
        y = conv(y, weights, f"{name}.conv")
        if f"{name}.bn.weight" not in weights.parameters:
            return y
        return act(batch_norm(y, weights, f"{name}.bn", momentum=0.03, eps=1e-3), "silu")

    context = strip(strip(layer(means, "conv1"), weights, "h_conv.conv"), weights, "v_conv.conv")
    gate = layer(context, "conv2").map(sigmoid)
    return Grid(x.shape, {index: x[index] * gate[index] for index in x})
