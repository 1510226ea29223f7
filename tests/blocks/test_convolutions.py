"""The plain convolutions and RepLKNet's blocks against their equations; merging them."""

import pytest
import torch
from slow_loops import Grid, Weights, act, assert_equals_loop, batch_norm, conv, randomise
from torch import nn

from blocklab.blocks.convolution import Conv3x3, Depthwise3x3
from blocklab.blocks.protocol import merge_parts
from blocklab.blocks.registry import create_block
from blocklab.blocks.reparam_large_kernel import ConvFFN, ReparamLargeKernelConv, RepLKBlock
from blocklab.errors import InputError


@pytest.mark.parametrize("stride", [1, 2])
def test_conv3x3(stride: int) -> None:
    class Outer(nn.Module):  # the block is itself a convolution; the loops ask for a name
        def __init__(self) -> None:
            super().__init__()
            self.mixer = Conv3x3(3, 2, stride)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.mixer(x)

    assert_equals_loop(
        Outer(), lambda x, w: conv(x, w, "mixer", stride=stride, padding=1), (2, 3, 5, 4)
    )


def test_conv3x3_has_no_bias_as_a_norm_follows() -> None:
    assert [name for name, _ in Conv3x3(3, 2, 1).named_parameters()] == ["weight"]


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_depthwise(kernel: int) -> None:
    block = Depthwise3x3(3, kernel=kernel)
    assert block.out_channels == 3
    assert_equals_loop(
        block, lambda x, w: conv(x, w, "dwconv", padding=kernel // 2, groups=3), (2, 3, 4, 5)
    )


def large_kernel(
    x: Grid, weights: Weights, kernel: int, small: int | None, prefix: str = ""
) -> Grid:
    """arXiv:2203.06717, guideline 3: both convolutions, each with its BatchNorm, summed."""

    def path(name: str, size: int) -> Grid:
        out = conv(x, weights, f"{prefix}{name}.conv", padding=size // 2, groups=x.shape[1])
        return batch_norm(out, weights, f"{prefix}{name}.bn")

    out = path("lkb_origin", kernel)
    return out if small is None else out + path("small_conv", small)


KERNELS = [(7, 3), (5, 5), (5, 1), (9, None)]  # 9 reaches beyond a 4 x 5 map on every side


@pytest.mark.parametrize(("kernel", "small"), KERNELS)
def test_reparam_large_kernel_conv(kernel: int, small: int | None) -> None:
    block = ReparamLargeKernelConv(2, kernel, small)
    assert_equals_loop(block, lambda x, w: large_kernel(x, w, kernel, small), (2, 2, 4, 5))


@pytest.mark.parametrize(
    ("kernel", "small", "width", "inner"), [(7, 3, 1.0, 2), (5, None, 1.5, 3), (3, 3, 0.1, 1)]
)
def test_replk_block(kernel: int, small: int | None, width: float, inner: int) -> None:
    block = RepLKBlock(2, 0.0, kernel=kernel, small_kernel=small, width=width)
    assert block.pw1.conv.weight.shape == (inner, 2, 1, 1)

    def loop(x: Grid, weights: Weights) -> Grid:
        out = batch_norm(x, weights, "prelkb_bn")
        out = act(batch_norm(conv(out, weights, "pw1.conv"), weights, "pw1.bn"), "relu")
        out = act(large_kernel(out, weights, kernel, small, "large_kernel."), "relu")
        return x + batch_norm(conv(out, weights, "pw2.conv"), weights, "pw2.bn")

    assert_equals_loop(block, loop, (2, 2, 4, 5))


@pytest.mark.parametrize("hidden", [1, 5])
def test_conv_ffn(hidden: int) -> None:
    def loop(x: Grid, weights: Weights) -> Grid:
        out = batch_norm(x, weights, "preffn_bn")
        out = act(batch_norm(conv(out, weights, "pw1.conv"), weights, "pw1.bn"), "gelu")
        return x + batch_norm(conv(out, weights, "pw2.conv"), weights, "pw2.bn")

    assert_equals_loop(ConvFFN(3, hidden, 0.0), loop, (2, 3, 3, 4))


@pytest.mark.parametrize(("kernel", "small"), KERNELS)
def test_merge_keeps_the_outputs(kernel: int, small: int | None) -> None:
    conv_block = randomise(ReparamLargeKernelConv(3, kernel, small)).eval()
    block = randomise(RepLKBlock(3, 0.0, kernel=kernel, small_kernel=small)).eval()
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    for module in (conv_block, block):
        before = module(x)
        for _ in range(2):  # a second call changes nothing
            merge_parts(module)
            torch.testing.assert_close(module(x), before, rtol=1e-10, atol=1e-12)
    assert [name for name, _ in conv_block.named_parameters()] == [
        "lkb_reparam.weight",
        "lkb_reparam.bias",
    ]


def test_drop_path_drops_whole_samples_of_the_branch() -> None:
    block = RepLKBlock(2, 0.5, kernel=3, small_kernel=None)
    x = torch.randn(64, 2, 3, 4)
    kept = [bool((y != image).any()) for image, y in zip(x, block(x), strict=True)]
    assert any(kept) and not all(kept)
    own = RepLKBlock(2, 0.5, kernel=3, small_kernel=None, drop_path_rate=0.0)
    assert all(bool((y != image).any()) for image, y in zip(x, own(x), strict=True))


def test_a_small_kernel_larger_than_the_large_one_is_refused() -> None:
    spec = {"type": "reparam_large_kernel", "kernel": 3, "small_kernel": 5}
    with pytest.raises(InputError, match="small_kernel 5 is larger than the kernel 3"):
        create_block("token_mixer", spec, channels=4, drop_path=0.0)
