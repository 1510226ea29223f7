"""Grouped, partial and dynamic convolutions against their equations."""

from typing import Any

import pytest
from slow_loops import Grid, Weights, assert_equals_loop, conv
from torch import Tensor, nn

import blocklab
from blocklab.blocks.grouped_convolution import GroupedConv3x3
from blocklab.blocks.registry import mixer_width, parse_block
from blocklab.errors import InputError


class Named(nn.Module):
    """A mixer that is itself a convolution, whose weight the loop calls ``mixer.weight``."""

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, x: Tensor) -> Tensor:
        return self.mixer(x)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("channels", "groups", "used"),
    [((4, 4), 2, 2), ((4, 6), "channels", 2), ((3, 3), "channels", 3), ((4, 8), 3, 2)],
)
def test_grouped(channels: tuple[int, int], groups: Any, used: int, stride: int) -> None:
    block = GroupedConv3x3(*channels, stride, groups=groups)
    assert block.groups == used

    def loop(x: Grid, weights: Weights) -> Grid:
        return conv(x, weights, "mixer", stride=stride, padding=1, groups=used)

    assert_equals_loop(Named(block), loop, (2, channels[0], 5, 4))


@pytest.mark.parametrize(
    ("options", "width"),
    [
        ({}, 128),
        ({"groups": "channels"}, 128),
        ({"groups": 32, "group_width": 4}, 256),
        ({"groups": 1, "group_width": 128}, 256),
    ],
)
def test_how_wide_a_block_with_groups_is(options: dict[str, Any], width: int) -> None:
    spec = parse_block("mixer", {"type": "grouped", **options})
    assert mixer_width(spec, 128) == width


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"groups": 0}, "a count from 1 to 65,536, or 'channels'"),
        ({"groups": "chanels"}, "not 'chanels'"),
        ({"groups": "channels", "group_width": 4}, "leave one of them out"),
    ],
)
def test_groups_that_cannot_be(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        blocklab.create_model("resnet50", mixer={"type": "grouped", **options})
