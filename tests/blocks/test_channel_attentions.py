"""Squeeze-and-excitation, Global Context and the mean of attentions against their equations."""

from itertools import product

import pytest
import torch
from slow_blocks import coordinate_attention, squeeze_excitation
from slow_loops import Grid, Weights, act, assert_equals_loop, conv, sigmoid, softmax, total
from torch import nn

from blocklab.blocks.combine import MeanOfAttentions
from blocklab.blocks.global_context import GlobalContext
from blocklab.blocks.registry import create_block
from blocklab.blocks.squeeze_excitation import SqueezeExcitation
from blocklab.errors import InputError


@pytest.mark.parametrize(("reduction", "hidden"), [(1, 6), (2, 3), (16, 1)])
def test_squeeze_excitation(reduction: int, hidden: int) -> None:
    block = SqueezeExcitation(6, reduction=reduction)
    assert block.fc1.weight.shape == (hidden, 6, 1, 1)
    assert_equals_loop(block, squeeze_excitation, (2, 6, 3, 4))


def global_context(x: Grid, weights: Weights, fusion: str, eps: float) -> Grid:
    """arXiv:1904.11492, equation 4: attended mean, bottleneck with LayerNorm, sum."""
    transform = "channel_add_conv" if fusion == "add" else "channel_mul_conv"
    batch, channels, height, width = x.shape
    scores = conv(x, weights, "conv_mask")
    places = list(product(range(height), range(width)))
    context = Grid((batch, channels, 1, 1))
    for b in range(batch):
        attended = softmax([scores[b, 0, i, j] for i, j in places])
        for c in range(channels):
            weighted = [w * x[b, c, i, j] for w, (i, j) in zip(attended, places, strict=True)]
            context[b, c, 0, 0] = total(weighted)
    hidden = conv(context, weights, f"{transform}.0")
    normal, size = Grid(hidden.shape), hidden.shape[1]
    scale, shift = weights[f"{transform}.1.weight"], weights[f"{transform}.1.bias"]
    for b in range(batch):
        mean = total([hidden[b, k, 0, 0] for k in range(size)]) / size
        variance = total([(hidden[b, k, 0, 0] - mean) ** 2 for k in range(size)]) / size
        for k in range(size):
            value = (hidden[b, k, 0, 0] - mean) / torch.sqrt(variance + eps)
            normal[b, k, 0, 0] = scale[k, 0, 0] * value + shift[k, 0, 0]
    transformed = conv(act(normal, "relu"), weights, f"{transform}.3")
    y = Grid(x.shape)
    for b, c, i, j in y:
        t = transformed[b, c, 0, 0]
        y[b, c, i, j] = x[b, c, i, j] + t if fusion == "add" else x[b, c, i, j] * sigmoid(t)
    return y


@pytest.mark.parametrize("fusion", ["add", "scale"])
@pytest.mark.parametrize(("reduction", "eps"), [(2, 1e-5), (1, 0.3)])
def test_global_context(fusion: str, reduction: int, eps: float) -> None:
    block = create_block(
        "attention",
        {"type": "global_context", "fusion": fusion, "reduction": reduction, "norm_eps": eps},
        channels=6,
    )
    assert_equals_loop(block, lambda x, w: global_context(x, w, fusion, eps), (2, 6, 3, 4))


def test_global_context_that_starts_at_zero_is_the_identity() -> None:
    x = torch.randn(2, 16, 3, 4)
    for zero_init in (False, True):
        block = GlobalContext(16, zero_init=zero_init)
        block.init_weights()
        assert torch.equal(block(x), x) == zero_init


def mean_of_se_and_coordinate(x: Grid, weights: Weights) -> Grid:
    one = squeeze_excitation(x, weights, "branches.0.")
    other = coordinate_attention(x, weights, "branches.1.")
    return (one + other).map(lambda v: v / 2)


def test_mean_of_attentions() -> None:
    block = MeanOfAttentions(4, of=[{"type": "se", "reduction": 2}, {"type": "coordinate"}])
    assert_equals_loop(block, mean_of_se_and_coordinate, (2, 4, 3, 5))


def test_mean_of_one_attention_is_that_attention() -> None:
    block = MeanOfAttentions(4, of=[{"type": "se", "reduction": 2}])
    assert_equals_loop(block, lambda x, w: squeeze_excitation(x, w, "branches.0."), (2, 4, 3, 5))


def test_mean_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="of: "):
        create_block("attention", "mean", channels=4)


def test_mean_nests() -> None:
    spec = {"type": "mean", "of": [{"type": "mean", "of": ["se"]}, "coordinate"]}
    block = create_block("attention", spec, channels=8)
    x = torch.randn(2, 8, 3, 5)
    assert isinstance(block, MeanOfAttentions)
    inner = block.branches[0]
    assert isinstance(inner, MeanOfAttentions) and isinstance(inner.branches, nn.ModuleList)
    torch.testing.assert_close(block(x), (inner.branches[0](x) + block.branches[1](x)) / 2)
