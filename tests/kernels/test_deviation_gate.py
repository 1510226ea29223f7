"""The gate by deviations: its forms agree, in values, gradients and gradients of gradients."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from blocklab.kernels import deviation_gate as kernel
from blocklab.kernels.deviation_gate import deviation_gate

LAYOUTS = [torch.contiguous_format, torch.channels_last]
SHAPES = [(2, 8, 5, 7), (3, 4, 1, 1), (1, 6, 1, 9), (2, 3, 33, 2)]


def plain(x: Tensor, factor: float = 0.25, offset: float = 0.5, eps: float = 1e-4) -> Tensor:
    positions = x.shape[2] * x.shape[3]
    squares = (x - x.mean((2, 3), keepdim=True)).square()
    variance = squares.sum((2, 3), keepdim=True) / max(1, positions - 1)
    return x * (factor * squares / (variance + eps) + offset).sigmoid()


def gate(x: Tensor, factor: float = 0.25, offset: float = 0.5, eps: float = 1e-4) -> Tensor:
    return deviation_gate(x, factor=factor, offset=offset, eps=eps)


def images(shape: tuple[int, ...], layout: torch.memory_format) -> Tensor:
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return x.contiguous(memory_format=layout).requires_grad_()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_forms_agree(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    x = images(shape, layout)
    weighting = torch.randn(shape, dtype=torch.float64)
    wanted = plain(x, 0.7, -0.2, 0.1)
    (slope,) = torch.autograd.grad(wanted, x, weighting)
    found = gate(x, 0.7, -0.2, 0.1)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(torch.autograd.grad(found, x, weighting)[0], slope)
    assert found.is_contiguous(memory_format=layout)
    with FlopCounterMode(display=False):  # as recorded
        recorded = gate(x, 0.7, -0.2, 0.1)
    torch.testing.assert_close(recorded, wanted)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_of_gradients(layout: torch.memory_format) -> None:
    x = images((2, 3, 3, 2), layout)
    assert torch.autograd.gradgradcheck(gate, x)
    (once,) = torch.autograd.grad(gate(x).sum(), x)
    (again,) = torch.autograd.grad(gate(x).sum(), x, create_graph=True)
    torch.testing.assert_close(again, once)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_half_precision_is_rounded_once(layout: torch.memory_format, dtype: torch.dtype) -> None:
    x = images((2, 8, 9, 7), layout).detach().to(dtype)
    wanted = plain(x.double())
    with torch.autocast("cpu", dtype):
        found = gate(x)
    assert found.dtype == dtype
    assert (found.double() - wanted).abs().max() < 2e-2 * wanted.abs().max()


@pytest.fixture
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("blocklab.kernels.layout._PIECE", 64)
    yield


@pytest.mark.usefixtures("_small_pieces")
def test_in_several_pieces_and_nothing_is_saved_but_the_map() -> None:
    x = images((5, 4, 3, 6), torch.channels_last)
    weighting = torch.randn(x.shape, dtype=torch.float64)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        found = gate(x)
    assert [one.data_ptr() for one in kept] == [x.data_ptr()]
    (slope,) = torch.autograd.grad(found, x, weighting)
    torch.testing.assert_close(slope, torch.autograd.grad(plain(x), x, weighting)[0])
    assert len(list(kernel.pieces(x))) == 5
