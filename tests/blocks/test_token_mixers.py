"""Token mixers and what stands beside them, against their equations and their merged forms."""

import copy

import pytest
import torch
from slow_loops import Grid, Weights, assert_equals_loop, randomise
from slow_mixers import (
    depthwise,
    dilated_reparam,
    global_response_norm,
    inception,
    pooling,
    slak,
)
from timm.layers.grn import GlobalResponseNorm as TimmGRN
from timm.models.inception_next import InceptionDWConv2d
from timm.models.metaformer import Pooling as TimmPooling
from torch import Tensor, nn

from blocklab.blocks.convolution import Depthwise
from blocklab.blocks.decomposed_large_kernel import DecomposedLargeKernel
from blocklab.blocks.dilated_reparam import DilatedReparam
from blocklab.blocks.global_response_norm import GlobalResponseNorm
from blocklab.blocks.inception_depthwise import InceptionDepthwise
from blocklab.blocks.mean_pooling import Pooling
from blocklab.blocks.protocol import merge_parts

SHAPE = (2, 3, 6, 5)
MERGING = [
    *(lambda kernel=kernel: DilatedReparam(4, kernel=kernel) for kernel in range(3, 21, 2)),
    *(
        lambda k=k, s=s: DecomposedLargeKernel(4, kernel=k, small_kernel=s)
        for k, s in ((51, 5), (7, 3), (5, 5), (3, 5))
    ),
]


class Inside(nn.Module):
    """A module that is itself the convolution, one level down, so that the loop finds its name."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


@pytest.mark.parametrize("kernel", [1, 3, 7, 13])
def test_depthwise(kernel: int) -> None:
    block = Inside(Depthwise(3, kernel=kernel))
    assert_equals_loop(block, lambda x, w: depthwise(x, w, "conv"), SHAPE)


@pytest.mark.parametrize(("kernel", "band", "ratio"), [(3, 11, 0.125), (5, 3, 0.25), (1, 9, 1 / 3)])
def test_inception(kernel: int, band: int, ratio: float) -> None:
    block = InceptionDepthwise(6, kernel=kernel, band=band, ratio=ratio)
    group = max(1, int(6 * ratio))
    sides = [conv.kernel_size for conv in (block.dwconv_hw, block.dwconv_w, block.dwconv_h)]
    assert sides == [(kernel, kernel), (1, band), (band, 1)]
    assert_equals_loop(block, lambda x, w: inception(x, w, group), (2, 6, 6, 5))


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_pooling(kernel: int) -> None:
    assert_equals_loop(Pooling(3, kernel=kernel), lambda x, w: pooling(x, kernel), SHAPE)


@pytest.mark.parametrize("kernel", [5, 7, 13])
def test_dilated_reparam(kernel: int) -> None:
    block = DilatedReparam(2, kernel=kernel)
    assert all(r * (k - 1) + 1 <= kernel for k, r in block.branches)
    assert_equals_loop(block, lambda x, w: dilated_reparam(x, w, block.branches), (2, 2, 8, 5))


def test_a_small_kernel_has_no_branches() -> None:
    block = DilatedReparam(3, kernel=3)
    assert [name for name, _ in block.named_parameters()] == ["lk_origin.weight"]
    assert_equals_loop(block, lambda x, w: depthwise(x, w, "lk_origin"), SHAPE)


@pytest.mark.parametrize(("kernel", "small"), [(7, 3), (5, 5), (51, 5)])
def test_slak(kernel: int, small: int) -> None:
    block = DecomposedLargeKernel(2, kernel=kernel, small_kernel=small)
    parts = (block.Decom1, block.Decom2, block.small_conv)
    sides = [part.conv.kernel_size for part in parts]
    assert sides == [(kernel, small), (small, kernel), (small, small)]
    assert_equals_loop(block, slak, (2, 2, 6, 5))


def test_global_response_norm() -> None:
    def loop(x: Grid, weights: Weights) -> Grid:
        return global_response_norm(x, weights)

    assert_equals_loop(GlobalResponseNorm(3), loop, SHAPE)


def test_a_fresh_response_norm_is_the_identity_and_half_precision_has_room() -> None:
    norm, x = GlobalResponseNorm(4), 1000 * torch.randn(2, 4, 80, 72)
    assert torch.equal(norm(x), x)
    with torch.no_grad():
        norm.weight.uniform_(-1, 1)
        expected = norm(x)
        got = norm.half()(x.half())
    assert ((got.float() - expected).abs().max() / expected.abs().max()).item() < 2e-3


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: InceptionDepthwise(24), lambda: InceptionDWConv2d(24)),
        (
            lambda: InceptionDepthwise(24, band=9, ratio=0.25),
            lambda: InceptionDWConv2d(24, band_kernel_size=9, branch_ratio=0.25),
        ),
        (lambda: Pooling(24), lambda: TimmPooling()),
        (lambda: GlobalResponseNorm(24), lambda: TimmGRN(24, channels_last=False)),
    ],
)
def test_equal_to_timms(ours, theirs) -> None:
    block, other = randomise(ours()), theirs().double()
    other.load_state_dict(block.state_dict())
    x = torch.randn(2, 24, 9, 7, dtype=torch.float64)
    torch.testing.assert_close(block(x), other(x))


@pytest.mark.parametrize("make", MERGING)
def test_merged_gives_the_same(make) -> None:
    block = randomise(make()).eval()
    merged = copy.deepcopy(block)
    merge_parts(merged)
    for size in ((9, 7), (1, 1), (30, 2)):
        x = torch.randn(2, 4, *size, dtype=torch.float64)
        with torch.no_grad():
            torch.testing.assert_close(merged(x), block(x), rtol=1e-10, atol=1e-10)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in merged.modules())
    state = {name: value.clone() for name, value in merged.state_dict().items()}
    merge_parts(merged)  # a second time changes nothing
    assert all(torch.equal(value, state[name]) for name, value in merged.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("make", MERGING)
def test_a_merge_in_half_precision_rounds_once(make, dtype: torch.dtype) -> None:
    block = randomise(make()).eval().to(dtype)
    exact = copy.deepcopy(block).double()
    merge_parts(block)
    merge_parts(exact)
    for (name, value), other in zip(block.named_parameters(), exact.parameters(), strict=True):
        assert value.dtype == dtype
        assert torch.equal(value, other.to(dtype)), name


def test_a_branch_that_is_watched_stays() -> None:
    for block, branch in (
        (DilatedReparam(4, kernel=7), "dil_conv_k3_2"),
        (DecomposedLargeKernel(4, kernel=7), "Decom2.conv"),
    ):
        block.get_submodule(branch).register_forward_hook(lambda *_: None)
        names = set(block.state_dict())
        merge_parts(block)
        assert set(block.state_dict()) == names
