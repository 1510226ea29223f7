"""Attentions by frequencies, norms, positions and scales against their equations."""

import copy
from typing import Any

import pytest
import timm.layers
import torch
from slow_context_attentions import (
    context_anchors,
    frequency_channels,
    gated_channels,
    large_selective_kernel,
    mixed_local_channels,
    non_local,
    spatial_channel_synergy,
)
from slow_loops import assert_equals_loop
from test_against_timm import assert_same

import blocklab
from blocklab.blocks.context_anchor_attention import ContextAnchorAttention
from blocklab.blocks.frequency_channel_attention import FrequencyChannelAttention
from blocklab.blocks.gated_channel_transformation import GatedChannelTransformation
from blocklab.blocks.large_selective_kernel import LargeSelectiveKernel
from blocklab.blocks.mixed_local_channel_attention import MixedLocalChannelAttention
from blocklab.blocks.non_local import NonLocal
from blocklab.blocks.registry import create_block, parse_block
from blocklab.blocks.spatial_channel_synergy import SpatialChannelSynergy
from blocklab.errors import InputError
from blocklab.kernels.cosine_bases import cosine_bases

# The authors' list, "top32", of rows and of columns.
ROWS = "00600114513000324635526553342261"
COLUMNS = "01052020060463526333511242113053"
BEST = [(int(row), int(column)) for row, column in zip(ROWS, COLUMNS, strict=True)]


@pytest.mark.parametrize(
    ("channels", "count", "size"),
    [(32, 32, (7, 7)), (4, 4, (7, 14)), (5, 3, (5, 8)), (3, 5, (1, 3))],
)
def test_frequency_channels(channels: int, count: int, size: tuple[int, int]) -> None:
    block = FrequencyChannelAttention(channels, reduction=2, frequencies=count)
    loop = lambda x, w: frequency_channels(x, w, BEST[:count])  # noqa: E731
    assert_equals_loop(block, loop, (2, channels, *size))


def test_bases_are_those_of_a_cosine_transform() -> None:
    """All 49 of a map of 7 x 7 have length 1 and are at right angles, and none comes twice."""
    pairs = [(u, v) for u in range(7) for v in range(7)]
    bases = cosine_bases(torch.zeros(1, 49, 7, 7, dtype=torch.float64), pairs, 7)[0].flatten(1) / 7
    torch.testing.assert_close(bases @ bases.T, torch.eye(49, dtype=torch.float64))


def test_bases_made_in_inference_mode_can_be_trained_with() -> None:
    block = FrequencyChannelAttention(16)
    x = torch.randn(2, 16, 3, 11)
    with torch.inference_mode():
        expected = block(x)
    out = block(x.clone().requires_grad_())
    out.sum().backward()
    assert torch.equal(out, expected)


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_gated_channels(norm: Any, eps: float) -> None:
    block = GatedChannelTransformation(3, norm=norm, eps=eps)
    assert_equals_loop(block, lambda x, w: gated_channels(x, w, norm, eps), (2, 3, 4, 3))


@pytest.mark.parametrize("sub_sample", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("size", [(3, 4), (1, 1)])
def test_non_local(sub_sample: bool, scaled: bool, size: tuple[int, int]) -> None:
    block = NonLocal(4, sub_sample=sub_sample, scaled=scaled)
    scale = 0.5 if scaled else 1.0
    assert_equals_loop(block, lambda x, w: non_local(x, w, sub_sample, scale), (2, 4, *size))


@pytest.mark.parametrize("scaled", [False, True])
def test_non_local_as_timm_has_it(scaled: bool) -> None:
    theirs = timm.layers.NonLocalAttn(64, use_scale=scaled)
    assert_same(NonLocal(64, reduction=8, scaled=scaled), theirs, 64)


@pytest.mark.parametrize("name", ["gct", "non_local"])
def test_a_block_that_starts_as_the_identity(name: str) -> None:
    plain = blocklab.create_model("resnet20", widths=(8, 8, 8), num_classes=4).eval()
    model = blocklab.create_model("resnet20", widths=(8, 8, 8), num_classes=4, attention=name)
    model.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(2, 3, 12, 8)
    assert torch.equal(model.eval()(x), plain(x))


@pytest.mark.parametrize(
    ("heads", "used", "window", "size"), [(2, 2, 2, (5, 4)), (8, 4, 7, (3, 4)), (3, 2, 1, (1, 2))]
)
def test_spatial_channel_synergy(heads: int, used: int, window: int, size: Any) -> None:
    channels = 4 if used == 4 else 8
    block = SpatialChannelSynergy(channels, heads=heads, window=window)
    assert block.heads == used
    loop = lambda x, w: spatial_channel_synergy(x, w, used, window)  # noqa: E731
    assert_equals_loop(block, loop, (2, channels, *size))


def test_spatial_channel_synergy_needs_four_groups() -> None:
    with pytest.raises(InputError, match="6 do not divide by it; take another width"):
        create_block("attention", "scsa", channels=6)


@pytest.mark.parametrize(
    ("channels", "size", "weight", "shape"),
    [(3, 2, 0.5, (5, 4)), (9, 3, 0.2, (2, 4)), (3, 5, 0.7, (1, 1)), (5, 1, 0.5, (3, 2))],
)
def test_mixed_local_channels(channels: int, size: int, weight: float, shape: Any) -> None:
    block = MixedLocalChannelAttention(channels, local_size=size, local_weight=weight)
    loop = lambda x, w: mixed_local_channels(x, w, size, weight)  # noqa: E731
    assert_equals_loop(block, loop, (2, channels, *shape))


@pytest.mark.parametrize(("channels", "kernel"), [(3, 1), (64, 3), (100, 3), (256, 5), (2048, 7)])
def test_the_kernel_over_channels_is_that_of_eca(channels: int, kernel: int) -> None:
    assert MixedLocalChannelAttention(channels).conv.kernel_size == (kernel,)


def test_large_selective_kernel() -> None:
    assert_equals_loop(LargeSelectiveKernel(5), large_selective_kernel, (2, 5, 5, 4))


def test_large_selective_kernel_needs_two_channels() -> None:
    with pytest.raises(InputError, match="needs 2 at least"):
        create_block("attention", "lsk", channels=1)


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize(("kernel", "pool"), [(11, 7), (3, 5)])
def test_context_anchors(kernel: int, pool: int, norms: bool) -> None:
    block = ContextAnchorAttention(3, kernel=kernel, pool=pool, norms=norms)
    assert_equals_loop(block, lambda x, w: context_anchors(x, w, pool), (2, 3, 6, 4))


@torch.no_grad()
def test_a_context_gate_closes_as_the_trained_one_does() -> None:
    """PKINet builds it without norms; behind SiLU no gate is below 0.43."""
    x = torch.randn(2, 32, 9, 7)
    least = []
    for block in (ContextAnchorAttention(32), ContextAnchorAttention(32, norms=True)):
        for part in block.modules():
            if isinstance(part, torch.nn.Conv2d):
                torch.nn.init.normal_(part.weight, 0, 3)
        least.append(float((block.eval()(x) / x).min()))
    assert least[0] < 1e-6 and 0.43 < least[1] < 0.44
    names = set(ContextAnchorAttention(32).state_dict())  # as their ConvModules name them
    assert names == {f"{part}.conv.{one}" for part in PARTS for one in ("weight", "bias")}


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"type": "fca", "frequencies": 33}, "frequencies"),
        ({"type": "gct", "norm": "l3"}, "norm"),
        ({"type": "non_local", "reduction": 0}, "reduction"),
        ({"type": "mlca", "local_weight": 1.0}, "local_weight"),
        ({"type": "scsa", "kernels": [3, 5, 7]}, "kernels"),
        ({"type": "caa", "kernel": 10}, "odd and positive"),
    ],
)
def test_what_no_block_can_be_is_refused(block: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_block("attention", block)


PARTS = ("conv1", "h_conv", "v_conv", "conv2")
NAMES = ("fca", "gct", "non_local", "scsa", "mlca", "lsk", "caa")


@pytest.mark.parametrize("name", NAMES)
def test_in_every_stage_down_to_one_pixel(name: str) -> None:
    torch.manual_seed(0)
    sizes = {"widths": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "num_classes": 4}
    model = blocklab.create_model("resnet18", **sizes, attention=name)
    for side in (32, 96):
        x = torch.randn(2, 3, side, side)
        model.train()(x).square().sum().backward()
        assert all(one.grad is not None for one in model.parameters())
    model.eval()
    with torch.no_grad():
        deployed = blocklab.deploy(copy.deepcopy(model), input_size=96)
        torch.testing.assert_close(deployed(x), model(x), rtol=1e-3, atol=1e-3)
