"""Blocks that start as their authors' code does, in a backbone whose scheme is another."""

import math

import pytest
import torch
from torch import nn

from blocklab.blocks.context_anchor_attention import ContextAnchorAttention
from blocklab.blocks.convolutional_block_attention import ConvolutionalBlockAttention
from blocklab.blocks.global_context import GlobalContext
from blocklab.blocks.large_kernel_attention import LargeKernelAttention
from blocklab.blocks.large_selective_kernel import LargeSelectiveKernel
from blocklab.blocks.non_local import NonLocal
from blocklab.blocks.registry import create_block, parse_block
from blocklab.blocks.triplet_attention import TripletAttention
from blocklab.errors import InputError
from blocklab.models.factory import create_model

BLOCKS = (
    *("global_context", "cbam", "triplet", "large_kernel_attention", "lsk", "caa", "non_local"),
)


def first(name: str, kind: type[nn.Module], **options: object) -> nn.Module:
    """Return the first block of this kind in a ResNet, as the ResNet starts it."""
    torch.manual_seed(0)
    attention = {"type": name, **options}
    model = create_model("resnet18", attention=attention, num_classes=10)
    return next(part for part in model.modules() if isinstance(part, kind))


def positions_used(block: GlobalContext) -> float:
    """Return of how many of 256 positions the softmax makes its mean: 1 / sum of squares."""
    x = torch.randn(4, 64, 16, 16)
    weights = block.conv_mask(x).flatten(2).softmax(2)
    return float((1 / weights.square().sum(2)).mean())


@torch.no_grad()
def test_global_context_starts_as_a_mean_of_many_positions_and_the_identity() -> None:
    plain = first("global_context", GlobalContext)
    block = first("global_context", GlobalContext, authors_start=True)
    assert isinstance(plain, GlobalContext) and isinstance(block, GlobalContext)
    assert positions_used(plain) < 2  # of 256: the ResNet's scheme, as the docstring says
    assert positions_used(block) > 20
    assert float(block.conv_mask.weight.std()) == pytest.approx(math.sqrt(2 / 64), rel=0.3)
    x = torch.randn(2, 64, 5, 7)
    assert torch.equal(block(x), x) and not torch.equal(plain(x), x)


@torch.no_grad()
def test_what_authors_start_at_zero_is_a_half_to_begin_with() -> None:
    x = torch.randn(2, 64, 5, 7)
    cbam = first("cbam", ConvolutionalBlockAttention, authors_start=True)
    assert isinstance(cbam, ConvolutionalBlockAttention)
    torch.testing.assert_close(cbam(x), cbam.channel(x) / 2)
    # As linear layers of 64 inputs: uniform within 1 / 8, where the ResNet's SD is sqrt(2 / 4).
    assert float(cbam.channel.fc1.weight.abs().max()) <= 1 / 8
    triplet = first("triplet", TripletAttention, authors_start=True)
    assert isinstance(triplet, TripletAttention)
    assert [float(p) for p in triplet.hw.conv.bn.parameters()] == [0, 0]
    assert [float(p) for p in triplet.cw.conv.bn.parameters()] == [1, 0]
    plain = first("triplet", TripletAttention)
    assert [float(p) for p in plain.get_submodule("hw.conv.bn").parameters()] == [1, 0]


@torch.no_grad()
def test_a_large_kernel_attention_looks_at_the_image_from_the_start() -> None:
    shares = []
    for asked in (False, True):
        block = first("large_kernel_attention", LargeKernelAttention, authors_start=asked)
        assert isinstance(block, LargeKernelAttention) and block.conv1.bias is not None
        gate = block.conv1(block.conv_spatial(block.conv0(torch.randn(8, 64, 16, 16))))
        shares.append(float(gate.std((0, 2, 3)).mean() / gate.mean((0, 2, 3)).abs().mean()))
    assert shares[0] < 0.5 and shares[1] > 5  # what follows the image, to what does not


@pytest.mark.parametrize(
    ("name", "kind"), [("caa", ContextAnchorAttention), ("lsk", LargeSelectiveKernel)]
)
@torch.no_grad()
def test_depth_wise_kernels_start_as_large_as_others(name: str, kind: type[nn.Module]) -> None:
    """A ResNet starts them smaller by the root of the channels: here 8."""
    sizes = []
    for asked in (False, True):
        block = first(name, kind, authors_start=asked)
        found = [
            part for part in block.modules() if isinstance(part, nn.Conv2d) and part.groups > 1
        ]
        assert len(found) == 2
        sizes.append(float(torch.stack([part.weight.std() for part in found]).mean()))
        if asked:
            assert all(part.bias is None or not part.bias.any() for part in found)
    assert sizes[1] > 3 * sizes[0]


@torch.no_grad()
def test_a_non_local_block_starts_as_a_mean() -> None:
    x, weights = torch.randn(1, 64, 6, 9), []
    for asked in (False, True):
        block = first("non_local", NonLocal, authors_start=asked)
        assert isinstance(block, NonLocal)
        scores = block.t(x).flatten(2).transpose(1, 2) @ block.p(x).flatten(2) * block.scale
        weights.append(float((1 / scores.softmax(2).square().sum(2)).mean()))
        assert torch.equal(block(x), x)
    assert weights[0] < 5 and weights[1] > 53  # of 54 positions


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_without_the_option_are_the_models_of_old(name: str) -> None:
    plain = parse_block("attention", name)
    assert "authors_start" not in plain and "least" not in plain
    assert parse_block("attention", {**plain, "authors_start": False}) == plain
    assert parse_block("attention", {**plain, "authors_start": True})["authors_start"] is True


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "triplet", "spatial": "coordinate", "authors_start": True},
        {"type": "non_local", "scaled": True, "authors_start": True},
    ],
)
def test_what_the_authors_have_not_is_refused(spec: dict[str, object]) -> None:
    with pytest.raises(InputError, match="leave"):
        create_block("attention", parse_block("attention", spec), channels=16)


def test_global_context_keeps_its_least_width() -> None:
    block = GlobalContext(32, least=8)
    assert block.channel_add_conv is not None
    assert block.channel_add_conv[0].out_channels == 8  # type: ignore[union-attr]
    # A LayerNorm of one value is constant: nothing learns below it.
    for least, learns in ((1, False), (8, True)):
        torch.manual_seed(0)
        block = GlobalContext(16, least=least)
        block(torch.randn(2, 16, 4, 5)).square().sum().backward()
        grad = block.conv_mask.weight.grad
        assert grad is not None and bool(grad.abs().max() > 1e-6) == learns
