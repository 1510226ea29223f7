"""Coordinate Attention against its equations."""

import pytest
from slow_blocks import coordinate_attention
from slow_loops import assert_equals_loop

from blocklab.blocks.coordinate_attention import CoordinateAttention


@pytest.mark.parametrize(("channels", "reduction", "hidden"), [(4, 32, 8), (9, 1, 9), (20, 2, 10)])
def test_coordinate_attention(channels: int, reduction: int, hidden: int) -> None:
    block = CoordinateAttention(channels, reduction=reduction)
    assert block.conv1.weight.shape == (hidden, channels, 1, 1)
    assert_equals_loop(block, coordinate_attention, (2, channels, 3, 4))
