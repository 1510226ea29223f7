"""Strided convolutions in bf16 on maps narrower than the stride: all gradients are written."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blocklab import create_model
from blocklab.backbones.replknet import RepLKNet
from blocklab.blocks.dynamic_convolution import OmniDimensionalDynamicConv
from blocklab.blocks.registry import create_block, parse_block
from blocklab.kernels.small_map import SmallMapConv2d
from blocklab.kernels.strided import StridedConv2d


def spoil_memory(like: Tensor) -> None:
    """Leave what is no number where memory is handed out next."""
    for dtype in (torch.bfloat16, torch.float32):
        blocks = [torch.full((like.numel(),), float("nan"), dtype=dtype) for _ in range(8)]
        del blocks


def gradients(conv: nn.Module, x: Tensor) -> list[Tensor]:
    weights = list(conv.parameters())
    spoil_memory(weights[0])
    x = x.detach().requires_grad_()
    conv.zero_grad()
    out = conv(x)
    out.backward(torch.ones_like(out))
    return [out, *(value.grad for value in (x, *weights) if value.grad is not None)]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 2), (2, 2), (5, 1), (3, 3)])
@pytest.mark.parametrize("groups", [1, 8, 32])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (3, 3), (7, 2)])
def test_gradients_are_those_of_the_plain_convolution(
    kernel: int, stride: int, groups: int, size: tuple[int, int], layout: Any
) -> None:
    torch.manual_seed(0)
    conv = StridedConv2d(32, 64, kernel, stride, kernel // 2, groups=groups).bfloat16()
    plain = nn.Conv2d(32, 64, kernel, stride, kernel // 2, groups=groups)
    plain.load_state_dict(conv.state_dict())
    x = torch.randn(2, 32, *size).bfloat16()
    expected = gradients(plain, x.float())
    conv = conv.to(memory_format=layout)  # type: ignore[call-overload]
    for one, other in zip(
        gradients(conv, x.contiguous(memory_format=layout)), expected, strict=True
    ):
        assert one.shape == other.shape
        assert (one.float() - other).abs().max() <= 0.02 * other.abs().max()


def test_other_maps_and_paddings_are_left_to_pytorch() -> None:
    x = torch.randn(2, 8, 4, 1)
    for conv in (
        StridedConv2d(8, 8, 1, 2),  # no output is added to one that does not reach
        StridedConv2d(8, 8, (3, 2), 2, (1, 1)),
        StridedConv2d(8, 8, 3, 2, 1, padding_mode="circular"),
    ):
        plain = nn.Conv2d(8, 8, conv.kernel_size, 2, conv.padding, padding_mode=conv.padding_mode)
        plain.load_state_dict(conv.state_dict())
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(conv(x), plain(x))


def test_blocks_and_backbones_on_such_maps() -> None:
    spec = parse_block("mixer", "selective_kernel")
    told = {"in_channels": 64, "out_channels": 64, "stride": 2, "activation": "relu"}
    mixer = create_block("mixer", spec, **told, first_in_stage=True)
    narrow: dict[str, Any] = {"widths": (8, 16), "depths": (1, 1), "num_classes": 3}
    cases: list[tuple[nn.Module, Tensor]] = [
        (mixer, torch.randn(4, 64, 3, 1)),
        (OmniDimensionalDynamicConv(32, 16, 2), torch.randn(4, 32, 1, 1)),
        (OmniDimensionalDynamicConv(32, 16, 2), torch.randn(4, 32, 3, 1)),
        (SmallMapConv2d(16, 16, 3, 2, 1), torch.randn(4, 16, 4, 1)),
        (create_model("resnet18", **narrow), torch.randn(4, 3, 8, 1)),
        (create_model("resnet18", stem="deep", **narrow), torch.randn(4, 3, 8, 1)),
        (create_model("replknet_31n", kernels=(3, 3), **narrow), torch.randn(4, 3, 8, 1)),
        (create_model("van_b0", ffn_ratios=(2, 2), **narrow), torch.randn(4, 3, 8, 1)),
    ]
    assert any(isinstance(network, RepLKNet) for network, _ in cases)
    for network, x in cases:
        for _ in range(3):
            network.zero_grad()
            for parameter in network.parameters():
                spoil_memory(parameter)
            with torch.autocast("cpu", torch.bfloat16):
                network(x).float().square().mean().backward()
            for name, parameter in network.named_parameters():
                assert parameter.grad is not None
                assert parameter.grad.isfinite().all(), (type(network).__name__, name)
                assert parameter.grad.abs().max() < 1e4, (type(network).__name__, name)
