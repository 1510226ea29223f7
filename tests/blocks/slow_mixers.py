"""Token mixers and their parts as loops, from their papers' equations."""

from itertools import product

import torch
from slow_loops import Grid, Weights, batch_norm, join, total


def depthwise(x: Grid, weights: Weights, name: str, dilation: int = 1) -> Grid:
    """y[c, i, j] = bias[c] + sum of weight[c, u, v] * x[c, i + d(u - k/2), j + d(v - l/2)]."""
    weight, shape = weights[f"{name}.weight"], weights.parameters[f"{name}.weight"].shape
    bias = weights[f"{name}.bias"] if f"{name}.bias" in weights.parameters else None
    _, _, height, width = x.shape
    y = Grid(x.shape)
    for b, c, i, j in x:
        value = bias[c,] if bias is not None else torch.zeros((), dtype=torch.float64)
        for u, v in product(range(shape[2]), range(shape[3])):
            row, column = i + dilation * (u - shape[2] // 2), j + dilation * (v - shape[3] // 2)
            if 0 <= row < height and 0 <= column < width:
                value = value + weight[c, 0, u, v] * x[b, c, row, column]
        y[b, c, i, j] = value
    return y


def inception(x: Grid, weights: Weights, group: int) -> Grid:
    """arXiv:2303.16900, equations 3 to 5: identity, square, 1 x b and b x 1, concatenated."""
    kept = x.shape[1] - 3 * group
    parts = [x.channels(0, kept)]
    for index, name in enumerate(("dwconv_hw", "dwconv_w", "dwconv_h")):
        first = kept + index * group
        parts.append(depthwise(x.channels(first, first + group), weights, name))
    return join(parts)


def pooling(x: Grid, kernel: int) -> Grid:
    """arXiv:2111.11418, equation 4: the mean of those of the k x k pixels that exist, less x."""
    _, _, height, width = x.shape
    half, y = kernel // 2, Grid(x.shape)
    for b, c, i, j in x:
        rows = range(max(0, i - half), min(height, i + half + 1))
        columns = range(max(0, j - half), min(width, j + half + 1))
        values = [x[b, c, row, column] for row, column in product(rows, columns)]
        y[b, c, i, j] = total(values) / len(values) - x[b, c, i, j]
    return y


def dilated_reparam(x: Grid, weights: Weights, branches: tuple[tuple[int, int], ...]) -> Grid:
    """arXiv:2311.15599, section 3.1: each convolution with its norm, all added."""
    y = batch_norm(depthwise(x, weights, "lk_origin"), weights, "origin_bn")
    for taps, dilation in branches:
        name = f"k{taps}_{dilation}"
        branch = depthwise(x, weights, f"dil_conv_{name}", dilation)
        y = y + batch_norm(branch, weights, f"dil_bn_{name}")
    return y


def slak(x: Grid, weights: Weights) -> Grid:
    """arXiv:2207.03620, section 4: two bands and a square, each with its norm, added."""
    first, second, third = (
        batch_norm(depthwise(x, weights, f"{name}.conv"), weights, f"{name}.bn")
        for name in ("Decom1", "Decom2", "small_conv")
    )
    return first + second + third


def global_response_norm(x: Grid, weights: Weights, eps: float = 1e-6) -> Grid:
    """arXiv:2301.00808, section 4: y = gamma * x * n + beta + x."""
    batch, channels, height, width = x.shape
    scale, shift = weights["weight"], weights["bias"]
    y = Grid(x.shape)
    for b in range(batch):
        norms = [
            torch.sqrt(total([x[b, c, i, j] ** 2 for i in range(height) for j in range(width)]))
            for c in range(channels)
        ]
        mean = total(norms) / channels
        for c, i, j in product(range(channels), range(height), range(width)):
            share = norms[c] / (mean + eps)
            y[b, c, i, j] = scale[c,] * x[b, c, i, j] * share + shift[c,] + x[b, c, i, j]
    return y
