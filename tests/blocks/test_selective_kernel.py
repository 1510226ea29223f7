"""Selective Kernel against its equations."""

from typing import Any

import pytest
import torch
from slow_loops import (
    Grid,
    Weights,
    act,
    assert_equals_loop,
    batch_norm,
    conv,
    join,
    softmax,
    total,
)

from blocklab.blocks.selective_kernel import SelectiveKernel
from blocklab.errors import InputError


def selective_kernel(
    x: Grid,
    weights: Weights,
    *,
    stride: int,
    groups: int,
    activation: str = "relu",
    dilations: tuple[int, ...] = (1, 2),
    split_input: bool = False,
) -> Grid:
    """arXiv:1903.06586, equations 1 to 6: split, fuse, select."""
    count = len(dilations)
    taken = x.shape[1] // count
    branches = []
    for number, dilation in enumerate(dilations):
        part = x.channels(number * taken, (number + 1) * taken) if split_input else x
        out = conv(
            part,
            weights,
            f"paths.{number}.conv",
            stride=stride,
            padding=dilation,
            dilation=dilation,
            groups=groups,
        )
        branches.append(act(batch_norm(out, weights, f"paths.{number}.bn"), activation))
    batch, channels, height, width = branches[0].shape
    mean = Grid((batch, channels, 1, 1))
    for b, c, _, _ in mean:
        values = [
            branch[b, c, i, j] for branch in branches for i in range(height) for j in range(width)
        ]
        mean[b, c, 0, 0] = total(values) / (height * width)
    reduced = act(batch_norm(conv(mean, weights, "attn.fc_reduce"), weights, "attn.bn"), "relu")
    scores = conv(reduced, weights, "attn.fc_select")  # branch by branch on the channel axis
    y = Grid(branches[0].shape)
    for b, c in {(b, c) for b, c, _, _ in y}:
        shares = softmax([scores[b, number * channels + c, 0, 0] for number in range(count)])
        for i in range(height):
            for j in range(width):
                y[b, c, i, j] = total(
                    [s * out[b, c, i, j] for s, out in zip(shares, branches, strict=True)]
                )
    return y


@pytest.mark.parametrize(
    ("channels", "stride", "activation", "options", "groups"),
    [
        ((4, 4), 1, "relu", {}, 4),
        ((4, 6), 2, "relu", {"groups": 2}, 2),
        ((4, 6), 1, "celu", {"groups": 3}, 2),  # 3 does not divide 4
        ((4, 4), 1, "relu", {"groups": 2, "split_input": True}, 2),
        ((4, 3), 2, "silu", {"split_input": True}, 1),
        ((3, 3), 1, "relu", {"dilations": (1, 2, 3)}, 3),
    ],
)
def test_selective_kernel(
    channels: tuple[int, int], stride: int, activation: str, options: dict[str, Any], groups: int
) -> None:
    block = SelectiveKernel(*channels, stride, activation, min_hidden=3, **options)
    assert block.paths[0].conv.groups == groups  # type: ignore[union-attr]
    told = {key: value for key, value in options.items() if key != "groups"}

    def loop(x: Grid, weights: Weights) -> Grid:
        return selective_kernel(
            x, weights, stride=stride, groups=groups, activation=activation, **told
        )

    assert_equals_loop(block, loop, (2, channels[0], 5, 4))


@pytest.mark.parametrize(
    ("channels", "options", "hidden"),
    [
        (64, {}, 32),
        (1024, {}, 64),
        (64, {"reduction": 1}, 64),
        (64, {"min_hidden": 8, "reduction": 2}, 32),
        (80, {"min_hidden": 1, "reduction": 4, "hidden_divisor": 8}, 24),  # 20 rounds to 24
    ],
)
def test_width_of_the_reduction(channels: int, options: dict[str, Any], hidden: int) -> None:
    block = SelectiveKernel(channels, channels, 1, "relu", **options)
    assert block.attn.fc_reduce.weight.shape == (hidden, channels, 1, 1)


def test_input_that_does_not_split_is_refused() -> None:
    with pytest.raises(InputError, match="divide by 2, not 5"):
        SelectiveKernel(5, 4, 1, "relu", split_input=True)


def test_weights_of_one_branch_cannot_hide_in_the_order_of_the_channels() -> None:
    """`join` and `channels` of the loops undo each other: the split above relies on it."""
    grid = Grid((1, 4, 1, 1), {(0, c, 0, 0): c for c in range(4)})  # type: ignore[arg-type]
    assert join([grid.channels(0, 2), grid.channels(2, 4)]).numbers == grid.numbers


def test_sixteen_depthwise_kernels_in_bf16_and_channels_last() -> None:
    """oneDNN's own backward pass gives this one shape weight gradients that are not numbers."""
    block = SelectiveKernel(16, 16, 1, "relu", groups=16)
    x = torch.randn(16, 16, 32, 32).contiguous(memory_format=torch.channels_last)
    block.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    weight = block.get_parameter("paths.1.conv.weight")

    def gradient() -> torch.Tensor:
        return torch.autograd.grad(block(x).float().square().mean(), weight)[0]

    exact = gradient()
    for _ in range(3):  # what is read beside the map varies from call to call
        with torch.autocast("cpu", torch.bfloat16):
            rounded = gradient()
        torch.testing.assert_close(rounded, exact, rtol=0, atol=0.25 * float(exact.abs().max()))
