"""Triplet Attention, its options and its four spatial branches, against their equations."""

from itertools import product
from typing import Any

import pytest
import torch
from slow_blocks import coordinate_gates, large_kernel_attention
from slow_loops import (
    SCALAR_ACTIVATIONS,
    Grid,
    Weights,
    act,
    assert_equals_loop,
    batch_norm,
    conv,
    sigmoid,
    softmax,
    tanh,
    total,
)
from torch import Tensor

from blocklab.blocks.registry import create_block
from blocklab.blocks.triplet_attention import TripletAttention
from blocklab.errors import InputError

SHAPE = (2, 4, 3, 5)
MOMENTUM = 0.01


def _largest(values: list[Tensor]) -> Tensor:
    best = values[0]
    for value in values[1:]:
        best = value if value > best else best
    return best


STATISTICS = {
    "max": _largest,
    "avg": lambda values: total(values) / len(values),
    "median": lambda values: sorted(values, key=lambda v: v.item())[(len(values) - 1) // 2],
    "l1": lambda values: total([v if v > 0 else -v for v in values]),
    "l2": lambda values: torch.sqrt(total([v * v for v in values])),
}


def z_pool(x: Grid, axis: int, statistics: tuple[str, ...]) -> Grid:
    """arXiv:2010.03045, equation 1, over any axis: (B, statistics, the other two in order)."""
    batch, *sizes = x.shape
    kept = [place for place in (1, 2, 3) if place != axis]
    pooled = Grid((batch, len(statistics), x.shape[kept[0]], x.shape[kept[1]]))
    for b, s, p, q in pooled:
        places = []
        for r in range(sizes[axis - 1]):
            place = {kept[0]: p, kept[1]: q, axis: r}
            places.append(x[b, place[1], place[2], place[3]])
        pooled[b, s, p, q] = STATISTICS[statistics[s]](places)
    return pooled


def gate_of(scores: Grid, gate: str) -> Grid:
    if gate == "softmax_over_batch":
        gates = Grid(scores.shape)
        for i, j in product(range(scores.shape[2]), range(scores.shape[3])):
            shares = softmax([scores[b, 0, i, j] for b in range(scores.shape[0])])
            for b, share in enumerate(shares):
                gates[b, 0, i, j] = share
        return gates
    if gate != "softmax":
        return scores.map(sigmoid if gate == "sigmoid" else tanh)
    batch, _, height, width = scores.shape
    places = list(product(range(height), range(width)))
    gates = Grid(scores.shape)
    for b in range(batch):
        shares = softmax([scores[b, 0, i, j] for i, j in places])
        for share, (i, j) in zip(shares, places, strict=True):
            gates[b, 0, i, j] = share
    return gates


def triplet_attention(
    x: Grid,
    weights: Weights,
    *,
    statistics: tuple[str, ...] = ("max", "avg"),
    kernel: int = 7,
    inner_activation: str | None = None,
    gate: str = "sigmoid",
    spatial: str = "zpool",
) -> Grid:
    """y = x * (gate over H + gate over W + gate over C) / 3, equations 2 to 4."""

    before, after = inner_activation, None
    if inner_activation is not None and inner_activation.endswith("_after_norm"):
        before, after = None, inner_activation.removesuffix("_after_norm")

    def branch(pooled: Grid, name: str) -> Grid:
        scores = act(conv(pooled, weights, f"{name}.conv.conv", padding=kernel // 2), before)
        scores = batch_norm(scores, weights, f"{name}.conv.bn", momentum=MOMENTUM)
        return gate_of(act(scores, after), gate)

    cw = branch(z_pool(x, 2, statistics), "cw")  # (B, 1, C, W)
    over_width = z_pool(x, 3, statistics)  # (B, S, C, H), which the authors convolve as (H, C)
    turned = Grid((x.shape[0], len(statistics), x.shape[2], x.shape[1]))
    for b, s, i, c in turned:
        turned[b, s, i, c] = over_width[b, s, c, i]
    hc = branch(turned, "hc")  # (B, 1, H, C)
    hw, attended = Grid(x.shape), Grid(x.shape)  # a gate of each value, or x gated by it
    plane, rows, columns = (Grid((0, 0, 0, 0)) for _ in range(3))
    if spatial == "zpool":
        plane = branch(z_pool(x, 1, statistics), "hw")
    elif spatial == "large_kernel":
        scores = conv(conv(x, weights, "hw.reduce"), weights, "hw.conv0", padding=2)
        scores = conv(scores, weights, "hw.conv_spatial", padding=9, dilation=3)
        plane = gate_of(batch_norm(scores, weights, "hw.bn", momentum=MOMENTUM), gate)
    elif spatial == "coordinate":
        rows, columns = coordinate_gates(x, weights, "hw.")
    for b, c, i, j in x:
        if spatial == "coordinate":
            hw[b, c, i, j] = rows[b, c, i, 0] * columns[b, c, j, 0]
        elif spatial != "full_large_kernel":
            hw[b, c, i, j] = plane[b, 0, i, j]
    if spatial == "full_large_kernel":
        attended = large_kernel_attention(x, weights, "hw.")
    else:
        for index in x:
            attended[index] = x[index] * hw[index]
    y = Grid(x.shape)
    for b, c, i, j in y:
        value = x[b, c, i, j]
        y[b, c, i, j] = (value * cw[b, 0, c, j] + value * hc[b, 0, i, c] + attended[b, c, i, j]) / 3
    return y


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"statistics": ("avg", "max"), "kernel": 3},  # another order is another function
        {"statistics": ("avg", "max", "median"), "kernel": 3},
        {"statistics": ("l1", "max"), "kernel": 3},
        {"statistics": ("l2", "max"), "kernel": 3},
        {"statistics": ("median",), "kernel": 1},
        {"gate": "tanh", "kernel": 3},
        {"gate": "softmax", "kernel": 3},
        {"gate": "softmax_over_batch", "kernel": 3},
        {"inner_activation": "celu_after_norm", "kernel": 3},
        {"inner_activation": "relu_after_norm", "statistics": ("l2", "max"), "kernel": 3},
        {"spatial": "coordinate", "kernel": 3},
        {"spatial": "coordinate", "kernel": 3, "gate": "tanh"},
        {"spatial": "large_kernel", "kernel": 3},
        {"spatial": "large_kernel", "kernel": 3, "gate": "softmax"},
        {"spatial": "full_large_kernel", "kernel": 3},
        {"spatial": "full_large_kernel", "kernel": 3, "inner_activation": "relu", "gate": "tanh"},
    ],
    ids=str,
)
def test_triplet_attention(options: dict[str, Any]) -> None:
    block = TripletAttention(SHAPE[1], **options)
    assert_equals_loop(block, lambda x, w: triplet_attention(x, w, **options), SHAPE)


@pytest.mark.parametrize("name", sorted(SCALAR_ACTIVATIONS))
def test_inner_activation(name: str) -> None:
    options: dict[str, Any] = {"inner_activation": name, "kernel": 1}
    block = TripletAttention(3, **options)
    assert_equals_loop(block, lambda x, w: triplet_attention(x, w, **options), (2, 3, 2, 3))


def test_softmax_gates_of_a_plane_sum_to_one() -> None:
    """Why softmax as a gate leaves little of x: the mean gate of a plane is one over its points."""
    block = TripletAttention(4, gate="softmax").eval()
    ones = torch.ones(SHAPE)
    planes = 1 / (3 * 5) + 1 / (3 * 4) + 1 / (4 * 5)  # points of H x W, H x C and C x W
    torch.testing.assert_close(block(ones).mean(), torch.tensor(planes / 3))


def test_softmax_over_the_batch_shares_a_point_among_the_images() -> None:
    """Gates of a point sum to 1 over the batch; so one image alone would be left as it was."""
    block = TripletAttention(4, gate="softmax_over_batch").eval()
    ones = torch.ones(SHAPE)
    torch.testing.assert_close(block(ones), ones / SHAPE[0])
    for training in (True, False):
        with pytest.raises(InputError, match="batch of one 1; give two images or more"):
            block.train(training)(ones[:1])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("celu_after_norms", "no activation 'celu_after_norms'"),
        ("celo_after_norm", "did you mean 'celu'"),
        ("_after_norm", "no activation ''"),
    ],
)
def test_wrong_inner_activations_are_refused(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        create_block("attention", {"type": "triplet", "inner_activation": name}, channels=4)


@pytest.mark.parametrize("statistics", [[], ["max", "max"], ["mean"]])
def test_wrong_statistics_are_refused(statistics: list[str]) -> None:
    with pytest.raises(InputError, match="statistics"):
        create_block("attention", {"type": "triplet", "statistics": statistics}, channels=4)


def test_its_spatial_coordinate_attention_has_reduction_16() -> None:
    block = TripletAttention(256, spatial="coordinate")
    assert block.hw.conv1.weight.shape == (16, 256, 1, 1)  # type: ignore[union-attr]
