"""Convolutions that are matrix products on small maps, against PyTorch's convolution."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import blocklab
from blocklab.blocks.folding import convolution_obstacle
from blocklab.kernels.small_map import SmallMapConv2d

SHAPES = [(3, 6, 1, 1), (2, 5, 2, 2), (2, 6, 4, 3), (1, 4, 4, 4), (2, 6, 5, 4), (2, 3, 8, 6)]
OPTIONS: list[dict[str, Any]] = [
    {"kernel_size": 1},
    {"kernel_size": 1, "stride": 2, "bias": False},
    {"kernel_size": (1, 1), "stride": (2, 1)},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": 1, "stride": 2, "bias": False},
    {"kernel_size": (3, 5), "padding": (1, 2)},
    {"kernel_size": 3, "padding": 2, "dilation": 2},
    {"kernel_size": 1, "padding": 1},
    {"kernel_size": 3, "padding": 2},
    {"kernel_size": 3, "padding": "same"},
]


def errors(conv: SmallMapConv2d, x: Tensor) -> list[float]:
    """Of the output and of all gradients to float64's, relative to the largest value."""
    wanted = nn.Conv2d.forward
    exact = copy.deepcopy(conv).double()
    mine, theirs = x.clone().requires_grad_(), x.double().requires_grad_()
    out, expected = conv(mine), wanted(exact, theirs)
    assert out.shape == expected.shape and out.dtype == x.dtype
    grad = torch.randn(out.shape)
    out.backward(grad.to(out.dtype))
    expected.backward(grad.double())
    pairs = [(out, expected), (mine.grad, theirs.grad)]
    ours = [parameter.grad for parameter in conv.parameters()]
    pairs += zip(ours, [parameter.grad for parameter in exact.parameters()], strict=True)
    found = []
    for value, right in pairs:
        assert value is not None and right is not None and value.shape == right.shape
        found.append(((value.double() - right).abs().max() / right.abs().max()).item())
    return found


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_equals_the_convolution(
    options: dict[str, Any], layout: torch.memory_format, dtype: torch.dtype, most: float
) -> None:
    for shape in SHAPES:
        conv = SmallMapConv2d(shape[1], 7, **options).to(dtype)
        x = torch.randn(shape).to(dtype).contiguous(memory_format=layout)
        assert max(errors(conv, x)) < most, shape


def products(conv: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many matrix products a forward pass takes."""
    calls = []
    linear = F.linear

    def counted(*given: Any) -> Tensor:
        calls.append(given)
        return linear(*given)

    monkeypatch.setattr(F, "linear", counted)
    conv(x)
    monkeypatch.undo()
    return len(calls)


@pytest.mark.parametrize(
    ("options", "size", "dtype", "expected"),
    [
        ({"kernel_size": 1}, 4, torch.bfloat16, 1),
        ({"kernel_size": 1}, 5, torch.bfloat16, 0),  # 25 pixels
        ({"kernel_size": 1, "stride": 2}, 8, torch.bfloat16, 1),
        ({"kernel_size": 3, "padding": 1}, 1, torch.bfloat16, 1),
        ({"kernel_size": 3, "padding": 1}, 2, torch.bfloat16, 0),
        ({"kernel_size": 3, "padding": 2}, 1, torch.bfloat16, 0),  # a larger map comes out
        ({"kernel_size": 3, "padding": 1, "padding_mode": "circular"}, 1, torch.bfloat16, 0),
        ({"kernel_size": 1, "groups": 2}, 1, torch.bfloat16, 0),
        ({"kernel_size": 1}, 1, torch.float32, 1),
        ({"kernel_size": 1}, 2, torch.float32, 0),
    ],
)
def test_it_is_a_product_where_that_is_faster(
    options: dict[str, Any],
    size: int,
    dtype: torch.dtype,
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("without oneDNN there is nothing to be faster than")
    conv = SmallMapConv2d(4, 6, **options).to(dtype)
    x = torch.randn(2, 4, size, size).to(dtype).contiguous(memory_format=torch.channels_last)
    assert products(conv, x, monkeypatch) == expected
    if size > 1:  # channels are not innermost
        assert products(conv, x.contiguous(), monkeypatch) == 0


def test_autocast_says_the_type() -> None:
    conv = SmallMapConv2d(4, 6, 1)
    x = torch.randn(2, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(x)
    assert out.dtype == torch.bfloat16
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(out.float(), nn.Conv2d.forward(conv, x), rtol=0.02, atol=0.02)


def test_taps_that_never_meet_the_map_have_no_gradient() -> None:
    conv = SmallMapConv2d(3, 5, 3, padding=1)
    conv(torch.randn(2, 3, 1, 1)).sum().backward()
    grad = conv.weight.grad
    assert grad is not None and grad[:, :, 1, 1].ne(0).all()
    assert grad.ne(0).sum() == grad[:, :, 1, 1].numel()


def test_counted_and_folded_as_the_convolution() -> None:
    conv = SmallMapConv2d(3, 6, 3, padding=1, bias=False)
    assert blocklab.cost(conv, input_size=1).macs == 3 * 6 * 9  # all taps, as anywhere
    assert not convolution_obstacle(nn.Sequential(conv), "0")
    assert not convolution_obstacle(nn.Sequential(SmallMapConv2d(4, 6, 1)), "0", pointwise=True)


def test_networks_behind_an_imagenet_stem_train_as_with_pytorchs_convolution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    model = blocklab.create_model("res2net50", num_classes=5).double()
    x, target = torch.randn(4, 3, 32, 32).double(), torch.tensor([0, 1, 2, 3])

    def gradients() -> list[Tensor]:
        model.zero_grad()
        F.cross_entropy(model(x), target).backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    ours = gradients()
    monkeypatch.setattr(SmallMapConv2d, "forward", nn.Conv2d.forward)
    theirs = gradients()
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-9)
