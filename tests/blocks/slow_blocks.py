"""Blocks that other blocks contain, as loops written from their papers' equations."""

from itertools import product

from slow_loops import Grid, Weights, act, batch_norm, conv, hardswish, sigmoid, total


def squeeze_excitation(x: Grid, weights: Weights, prefix: str = "") -> Grid:
    """y = x * sigmoid(W2 relu(W1 mean(x) + b1) + b2), arXiv:1709.01507, equations 2 to 4."""
    batch, channels, height, width = x.shape
    mean = Grid((batch, channels, 1, 1))
    for b, c, _, _ in mean:
        places = product(range(height), range(width))
        mean[b, c, 0, 0] = total([x[b, c, i, j] for i, j in places]) / (height * width)
    hidden = act(conv(mean, weights, f"{prefix}fc1"), "relu")
    gate = conv(hidden, weights, f"{prefix}fc2").map(sigmoid)
    y = Grid(x.shape)
    for b, c, i, j in y:
        y[b, c, i, j] = x[b, c, i, j] * gate[b, c, 0, 0]
    return y


def coordinate_gates(x: Grid, weights: Weights, prefix: str = "") -> tuple[Grid, Grid]:
    """Gates of rows (B, C, H, 1) and columns (B, C, W, 1), arXiv:2103.02907, equations 4 to 8."""
    batch, channels, height, width = x.shape
    means = Grid((batch, channels, height + width, 1))
    for b, c in product(range(batch), range(channels)):
        for i in range(height):
            means[b, c, i, 0] = total([x[b, c, i, j] for j in range(width)]) / width
        for j in range(width):
            means[b, c, height + j, 0] = total([x[b, c, i, j] for i in range(height)]) / height
    features = batch_norm(conv(means, weights, f"{prefix}conv1"), weights, f"{prefix}bn1")
    features = features.map(hardswish)
    hidden = features.shape[1]
    rows, columns = Grid((batch, hidden, height, 1)), Grid((batch, hidden, width, 1))
    for b, c, i, _ in rows:
        rows[b, c, i, 0] = features[b, c, i, 0]
    for b, c, j, _ in columns:
        columns[b, c, j, 0] = features[b, c, height + j, 0]
    return (
        conv(rows, weights, f"{prefix}conv_h").map(sigmoid),
        conv(columns, weights, f"{prefix}conv_w").map(sigmoid),
    )


def coordinate_attention(x: Grid, weights: Weights, prefix: str = "") -> Grid:
    """y[c, i, j] = x[c, i, j] * row gate[c, i] * column gate[c, j], equation 9."""
    rows, columns = coordinate_gates(x, weights, prefix)
    y = Grid(x.shape)
    for b, c, i, j in y:
        y[b, c, i, j] = x[b, c, i, j] * rows[b, c, i, 0] * columns[b, c, j, 0]
    return y


def large_kernel_attention(
    x: Grid,
    weights: Weights,
    prefix: str = "",
    *,
    local_kernel: int = 5,
    kernel: int = 7,
    dilation: int = 3,
    norm: bool = False,
    inner_activation: str | None = None,
) -> Grid:
    """y = x * 1x1(dilated depth-wise(depth-wise(x))), arXiv:2202.09741, equations 1 and 2."""
    groups = x.shape[1]

    def then(gate: Grid, name: str, activation: str | None) -> Grid:
        gate = batch_norm(gate, weights, f"{prefix}{name}") if norm else gate
        return act(gate, activation)

    gate = conv(x, weights, f"{prefix}conv0", padding=local_kernel // 2, groups=groups)
    gate = conv(
        then(gate, "bn0", inner_activation),
        weights,
        f"{prefix}conv_spatial",
        padding=dilation * (kernel // 2),
        dilation=dilation,
        groups=groups,
    )
    gate = conv(then(gate, "bn_spatial", inner_activation), weights, f"{prefix}conv1")
    gate = then(gate, "bn1", None)
    y = Grid(x.shape)
    for index in y:
        y[index] = x[index] * gate[index]
    return y
