"""The hierarchical split and its bottleneck inside an FFN against their equations."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from slow_blocks import squeeze_excitation
from slow_loops import Grid, Weights, act, assert_equals_loop, batch_norm, conv, join, total

from blocklab.blocks.hierarchical_split import HierarchicalSplit, HierarchicalSplitBottleneck
from blocklab.blocks.registry import mixer_width, parse_block
from blocklab.errors import InputError

Attend = Callable[[Grid, Weights, str], Grid]


def average_3x3(x: Grid, stride: int) -> Grid:
    """Mean of nine places, those outside the map counting as zeros (the authors' pooling)."""
    batch, channels, height, width = x.shape
    pooled = Grid((batch, channels, (height - 1) // stride + 1, (width - 1) // stride + 1))
    for b, c, i, j in pooled:
        places = product(
            range(i * stride - 1, i * stride + 2), range(j * stride - 1, j * stride + 2)
        )
        inside = [x[b, c, u, v] for u, v in places if 0 <= u < height and 0 <= v < width]
        pooled[b, c, i, j] = total(inside) / 9
    return pooled


def hierarchical_split(
    x: Grid,
    weights: Weights,
    prefix: str = "",
    *,
    scale: int,
    stride: int,
    first: bool,
    activation: str,
    attend: Attend | None = None,
    project: bool = False,
) -> Grid:
    """arXiv:1904.01169, equation 1; the first block of a stage has no chain and pools."""
    if project:
        x = conv(x, weights, f"{prefix}project.0")
        x = act(batch_norm(x, weights, f"{prefix}project.1"), activation)
    width = x.shape[1] // scale
    outputs: list[Grid] = []
    for number in range(scale - 1):
        group = x.channels(number * width, (number + 1) * width)
        if number > 0 and not first:
            group = group + outputs[-1]
        out = conv(group, weights, f"{prefix}convs.{number}", stride=stride, padding=1)
        out = act(batch_norm(out, weights, f"{prefix}bns.{number}"), activation)
        outputs.append(attend(out, weights, f"{prefix}attention.") if attend else out)
    last = x.channels((scale - 1) * width, scale * width)
    if first or stride > 1:
        last = average_3x3(last, stride)
    return join([*outputs, last])


@pytest.mark.parametrize(
    ("in_channels", "width", "stride", "first", "scale"),
    [
        (8, 8, 1, False, 4),
        (8, 8, 1, True, 4),
        (8, 8, 2, True, 4),
        (6, 6, 1, False, 3),
        (4, 4, 2, True, 2),
        (3, 6, 2, True, 3),  # another width: projected first
        (4, 8, 1, False, 2),
    ],
)
def test_hierarchical_split(
    in_channels: int, width: int, stride: int, first: bool, scale: int
) -> None:
    block = HierarchicalSplit(in_channels, width, stride, first, "relu", scale=scale)

    def loop(x: Grid, weights: Weights) -> Grid:
        return hierarchical_split(
            x,
            weights,
            scale=scale,
            stride=stride,
            first=first,
            activation="relu",
            project=in_channels != width,
        )

    assert_equals_loop(block, loop, (2, in_channels, 4, 3))


@pytest.mark.parametrize("name", ["celu", "gelu", "leaky_relu", "elu"])
def test_inner_activation_takes_the_place_of_the_blocks(name: str) -> None:
    block = HierarchicalSplit(4, 6, 1, False, "relu", scale=3, inner_activation=name)

    def loop(x: Grid, weights: Weights) -> Grid:
        return hierarchical_split(
            x, weights, scale=3, stride=1, first=False, activation=name, project=True
        )

    assert_equals_loop(block, loop, (2, 4, 3, 4))


@pytest.mark.parametrize(("first", "stride"), [(False, 1), (True, 2)])
def test_attention_inside_is_shared_by_the_groups(first: bool, stride: int) -> None:
    chain: Any = [{"type": "se", "reduction": 2}]
    block = HierarchicalSplit(6, 6, stride, first, "celu", scale=3, attention=chain)

    def loop(x: Grid, weights: Weights) -> Grid:
        return hierarchical_split(
            x,
            weights,
            scale=3,
            stride=stride,
            first=first,
            activation="celu",
            attend=squeeze_excitation,
        )

    assert_equals_loop(block, loop, (2, 6, 4, 3))


@pytest.mark.parametrize(
    ("planes", "scale", "base_width", "width"),
    [(64, 4, 26, 104), (128, 4, 26, 208), (64, 4, 16, 64), (64, 8, 14, 112), (1, 2, 26, 2)],
)
def test_width_inside_the_block(planes: int, scale: int, base_width: int, width: int) -> None:
    spec = {"type": "hierarchical_split", "scale": scale, "base_width": base_width}
    assert mixer_width(parse_block("mixer", spec), planes) == width


def test_one_group_is_refused() -> None:
    with pytest.raises(InputError, match="scale"):
        parse_block("mixer", {"type": "hierarchical_split", "scale": 1})


@pytest.mark.parametrize(
    ("scale", "expansion", "activation"), [(4, 4, "celu"), (2, 2, "relu"), (3, 1, "gelu")]
)
def test_bottleneck_inside_an_ffn(scale: int, expansion: int, activation: str) -> None:
    block = HierarchicalSplitBottleneck(
        4, scale=scale, base_width=16, expansion=expansion, inner_activation=activation
    )
    assert block.out_channels == 4 * expansion

    def loop(x: Grid, weights: Weights) -> Grid:
        out = act(batch_norm(conv(x, weights, "conv1"), weights, "bn1"), activation)
        out = hierarchical_split(
            out, weights, "conv2.", scale=scale, stride=1, first=False, activation=activation
        )
        out = batch_norm(conv(out, weights, "conv3"), weights, "bn3")
        shortcut = batch_norm(conv(x, weights, "downsample.0"), weights, "downsample.1")
        return act(out + shortcut, activation)

    assert_equals_loop(block, loop, (2, 4, 3, 4))
