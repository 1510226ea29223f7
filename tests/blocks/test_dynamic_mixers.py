"""Grouped, partial and dynamic convolutions against their equations."""

import math
from typing import Any

import pytest
import torch
from slow_dynamic_mixers import dynamic, involution, partial
from slow_loops import Grid, Weights, assert_equals_loop, conv
from torch import Tensor, nn

import blocklab
from blocklab.blocks.dynamic_convolution import OmniDimensionalDynamicConv
from blocklab.blocks.grouped_convolution import GroupedConv3x3
from blocklab.blocks.involution import Involution
from blocklab.blocks.partial_convolution import PartialConv3x3
from blocklab.blocks.registry import mixer_width, parse_block
from blocklab.errors import InputError
from blocklab.kernels.local_product import _as_matrix_products, _plain, local_product
from blocklab.measure.cost import count_macs


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


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("channels", "divisor", "width"), [((5, 5), 4, 1), ((3, 6), 2, 3), ((4, 4), 1, 4)]
)
def test_partial(channels: tuple[int, int], divisor: int, width: int, stride: int) -> None:
    block = PartialConv3x3(*channels, stride, divisor=divisor)
    loop = lambda x, w: partial(x, w, width, stride)  # noqa: E731
    assert_equals_loop(block, loop, (2, channels[0], 5, 4))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("channels", "kernel", "group", "used"),
    [((4, 4), 3, 2, 2), ((3, 6), 3, 4, 3), ((3, 3), 5, 16, 3)],
)
def test_involution(
    channels: tuple[int, int], kernel: int, group: int, used: int, stride: int
) -> None:
    block = Involution(*channels, stride, kernel=kernel, group_channels=group, reduction=2)
    loop = lambda x, w: involution(x, w, kernel, used, stride)  # noqa: E731
    assert_equals_loop(block, loop, (2, channels[0], 5, 4))


@pytest.mark.parametrize("stride", [1, 2])
def test_the_taps_in_turn_are_the_unfolded_product(stride: int) -> None:
    """Where values are asked for: outputs, gradients and gradients of gradients."""
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64, requires_grad=True)
    kernels = torch.randn(2, 18, -(-5 // stride), -(-4 // stride), dtype=torch.float64)
    kernels.requires_grad_()
    out, expected = local_product(x, kernels, 3, stride), _plain(x, kernels, 3, stride)
    torch.testing.assert_close(out, expected)
    weighting = torch.randn_like(out)
    lean, plain = (
        torch.autograd.grad(way, (x, kernels), weighting, retain_graph=True)
        for way in (out, expected)
    )
    for got, wanted in zip(lean, plain, strict=True):
        torch.testing.assert_close(got, wanted)
    second = []
    for way in (out, expected):
        first = torch.autograd.grad(way, (x, kernels), weighting, create_graph=True)
        total = first[0].square().sum() + first[1].square().sum()
        second.append((*first, *torch.autograd.grad(total, (x, kernels))))
    for got, wanted in zip(*second, strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_sum_over_the_taps_is_counted(stride: int) -> None:
    """k * k products a value, as of the depth-wise convolution that it is at each position."""
    block = Involution(32, 32, stride, kernel=7)
    positions = math.ceil(9 / stride) * math.ceil(6 / stride)
    made = 32 * 8 + 8 * 2 * 49  # W0 and W1, for two groups of 16 channels
    counts: list[int] = []
    count_macs(block.to("meta"), torch.empty(1, 32, 9, 6, device="meta"), counts.append)
    assert sum(counts) == positions * (made + 49 * 32)
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    kernels = torch.randn(2, 18, -(-5 // stride), -(-4 // stride), dtype=torch.float64)
    expected = _plain(x, kernels, 3, stride)
    torch.testing.assert_close(_as_matrix_products(x, kernels, 3, stride), expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_local_products_in_every_layout_and_mixed_types(layout: torch.memory_format) -> None:
    x = torch.randn(2, 8, 6, 5).contiguous(memory_format=layout).requires_grad_()
    kernels = torch.randn(2, 9, 6, 5, dtype=torch.bfloat16).contiguous(memory_format=layout)
    out = local_product(x, kernels, 3, 1)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), _plain(x, kernels.float(), 3, 1), rtol=0.1, atol=0.1)
    out.sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.float32


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("channels", "kernels", "temperature"), [((2, 3), 2, 1.0), ((3, 3), 1, 0.5), ((2, 2), 3, 4.0)]
)
def test_dynamic(channels: tuple[int, int], kernels: int, temperature: float, stride: int) -> None:
    block = OmniDimensionalDynamicConv(
        *channels, stride, kernels=kernels, temperature=temperature, min_hidden=2
    )
    loop = lambda x, w: dynamic(x, w, kernels, temperature, stride)  # noqa: E731
    assert_equals_loop(block, loop, (3, channels[0], 4, 3))


def test_dynamic_kernels_start_as_convolutions_do() -> None:
    torch.manual_seed(0)
    block = OmniDimensionalDynamicConv(64, 128, 1, kernels=3)
    block.attention.channel_fc.bias.data.fill_(1)  # type: ignore[union-attr]
    for part in block.modules():
        if hasattr(part, "init_weights"):
            part.init_weights()  # type: ignore[operator]
    expected = (2 / (128 * 9)) ** 0.5
    assert block.weight.std(dim=(1, 2)).detach().numpy() == pytest.approx(expected, rel=0.02)
    assert not block.attention.channel_fc.bias.any()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"type": "partial", "divisor": 0}, "divisor"),
        ({"type": "involution", "kernel": 4}, "odd and positive"),
        ({"type": "odconv", "kernels": 0}, "kernels"),
        ({"type": "odconv", "reduction": 1.5}, "reduction"),
        ({"type": "odconv", "temperature": 0}, "temperature"),
    ],
)
def test_what_no_mixer_can_be_is_refused(block: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_block("mixer", block)


@pytest.mark.parametrize("name", ["grouped", "partial", "involution", "odconv"])
@pytest.mark.parametrize("base", ["resnet18", "resnet50"])
def test_in_every_stage_down_to_one_pixel(name: str, base: str) -> None:
    torch.manual_seed(0)
    sizes = {"widths": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "num_classes": 4}
    model = blocklab.create_model(base, **sizes, mixer=name)
    for side in (32, 72):
        x = torch.randn(2, 3, side, side)
        model.zero_grad()
        model.train()(x).square().sum().backward()
        assert all(one.grad is not None for one in model.parameters())
    with torch.no_grad():
        deployed = blocklab.deploy(model.eval(), input_size=72)
        torch.testing.assert_close(deployed(x), model(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["grouped", "partial", "involution", "odconv"])
def test_a_built_network_costs_what_its_name_does(name: str) -> None:
    """Counted on values, as of a deployed one, or without any: one network, one cost."""
    model = f"resnet20:mixer={name}"
    built = blocklab.create_model(model)
    expected = blocklab.cost(model, 32).macs
    assert blocklab.cost(built, 32).macs == expected
    assert blocklab.cost(blocklab.deploy(built), 32).macs <= expected
    if name == "involution":
        assert blocklab.cost(blocklab.deploy(built), 32).macs == expected


@pytest.mark.parametrize("kernel", [7, 15])
def test_many_taps_are_added_up_before_they_are_rounded(kernel: int) -> None:
    """Added up in bf16, each of 225 taps would round the sum."""
    torch.manual_seed(0)
    x = torch.rand(2, 8, 9, 10).bfloat16().requires_grad_()
    kernels = torch.rand(2, 2 * kernel**2, 9, 10).bfloat16().requires_grad_()
    grad = torch.rand(2, 8, 9, 10).bfloat16()
    exact = [one.detach().double().requires_grad_() for one in (x, kernels)]
    found = local_product(x, kernels, kernel, 1)
    wanted = local_product(*exact, kernel, 1)
    assert found.dtype == torch.bfloat16
    pairs = [(found, wanted)]
    pairs += zip(
        torch.autograd.grad(found, (x, kernels), grad),
        torch.autograd.grad(wanted, exact, grad.double()),
        strict=True,
    )
    for ours, right in pairs:
        assert (ours.double() - right).norm() < 5e-3 * right.norm()
