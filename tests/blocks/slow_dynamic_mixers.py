"""Mixers whose kernels cover some channels or come from the image, as loops from their papers."""

from itertools import product

import torch
from slow_loops import (
    SCALAR_ACTIVATIONS,
    Grid,
    Weights,
    act,
    batch_norm,
    conv,
    join,
    sigmoid,
    softmax,
    total,
)


def projected(x: Grid, weights: Weights) -> Grid:
    """The 1x1 convolution where the widths differ."""
    return conv(x, weights, "project") if "project.weight" in weights.parameters else x


def means(x: Grid, kernel: int, stride: int, padding: int, *, with_margin: bool) -> Grid:
    """Means of windows; of what is inside alone, or as if the margin were zeros."""
    batch, channels, height, width = x.shape
    size = [(side + stride - 1) // stride for side in (height, width)]
    y = Grid((batch, channels, size[0], size[1]))
    for b, c, i, j in y:
        rows = range(stride * i - padding, stride * i - padding + kernel)
        columns = range(stride * j - padding, stride * j - padding + kernel)
        inside = [
            x[b, c, u, v] for u, v in product(rows, columns) if 0 <= u < height and 0 <= v < width
        ]
        y[b, c, i, j] = total(inside) / (kernel**2 if with_margin else len(inside))
    return y


def partial(x: Grid, weights: Weights, width: int, stride: int) -> Grid:
    """arXiv:2303.03667, section 3.2: the first channels are convolved, the others pass."""
    x = projected(x, weights)
    first, others = x.channels(0, width), x.channels(width, x.shape[1])
    first = conv(first, weights, "partial_conv3", stride=stride, padding=1)
    if stride > 1:
        others = means(others, 3, stride, 1, with_margin=True)
    return join([first, others]) if others.shape[1] else first


def involution(x: Grid, weights: Weights, kernel: int, group: int, stride: int) -> Grid:
    """arXiv:2103.06255, equations 4 to 6."""
    x = projected(x, weights)
    seen = means(x, stride, stride, 0, with_margin=False)
    hidden = act(batch_norm(conv(seen, weights, "conv1.conv"), weights, "conv1.bn"), "relu")
    own = conv(hidden, weights, "conv2.conv")
    batch, channels, height, width = x.shape
    y = Grid((batch, channels, own.shape[2], own.shape[3]))
    for b, c, i, j in y:
        value = torch.zeros((), dtype=torch.float64)
        for u, v in product(range(kernel), range(kernel)):
            row, column = stride * i + u - kernel // 2, stride * j + v - kernel // 2
            if 0 <= row < height and 0 <= column < width:
                weight = own[b, (c // group * kernel + u) * kernel + v, i, j]
                value = value + weight * x[b, c, row, column]
        y[b, c, i, j] = value
    return y


def dynamic(x: Grid, weights: Weights, kernels: int, temperature: float, stride: int) -> Grid:
    """arXiv:2209.07947, equation 2, and the attention of section 3.2."""
    batch, channels, height, width = x.shape
    pooled = Grid((batch, channels, 1, 1))
    for b, c, _, _ in pooled:
        places = product(range(height), range(width))
        pooled[b, c, 0, 0] = total([x[b, c, i, j] for i, j in places]) / (height * width)
    seen = batch_norm(conv(pooled, weights, "attention.fc"), weights, "attention.bn")
    seen = seen.map(SCALAR_ACTIVATIONS["relu"])

    def gate(name: str) -> Grid:
        return conv(seen, weights, f"attention.{name}").map(lambda v: sigmoid(v / temperature))

    of_channels, of_filters, of_taps = (
        gate(name) for name in ("channel_fc", "filter_fc", "spatial_fc")
    )
    shares = [[torch.ones((), dtype=torch.float64)]] * batch
    if kernels > 1:
        scores = conv(seen, weights, "attention.kernel_fc")
        shares = [
            softmax([scores[b, n, 0, 0] / temperature for n in range(kernels)])
            for b in range(batch)
        ]
    weight = weights["weight"]
    y = Grid((batch, of_filters.shape[1], -(-height // stride), -(-width // stride)))
    for b, o, i, j in y:
        value = torch.zeros((), dtype=torch.float64)
        for c, u, v in product(range(channels), range(3), range(3)):
            row, column = stride * i + u - 1, stride * j + v - 1
            if not (0 <= row < height and 0 <= column < width):
                continue
            tap = 3 * u + v
            mixed = total([shares[b][n] * weight[n, o, 9 * c + tap] for n in range(kernels)])
            mixed = mixed * of_taps[b, tap, 0, 0] * of_channels[b, c, 0, 0]
            value = value + mixed * x[b, c, row, column]
        y[b, o, i, j] = of_filters[b, o, 0, 0] * value
    return y
