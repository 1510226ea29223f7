"""Products with gates, against what they stand for."""

import pytest
import torch
from torch import Tensor

from blocklab.kernels import layout as layouts
from blocklab.kernels.gates import crossed_gates, gated_product
from blocklab.kernels.pooling import axis_pool, unpooled

LAYOUTS = [torch.contiguous_format, torch.channels_last]
SHAPES = [(3, 5, 8, 7), (2, 6, 20, 17), (2, 3, 1, 1), (1, 1, 4, 4), (5, 300, 2, 3)]


@pytest.fixture(autouse=True)
def _several_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    # So that small maps are taken in pieces.
    monkeypatch.setattr(layouts, "_PIECE", 300)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "gates",
    [
        *([(1, 2)], [(1, 3)], [(2, 3)], [(1,)], [()]),
        *([(2,), (3,)], [(2,), (3,), (1,)], [(1, 2, 3), ()]),
    ],
)
def test_gated_products(gates: list[tuple[int, ...]], layout: torch.memory_format) -> None:
    """`gates` are the axes that each gate has not."""
    for shape in SHAPES:
        shapes = [[1 if axis in gate else shape[axis] for axis in range(4)] for gate in gates]
        inputs = [torch.randn(each, dtype=torch.float64) for each in (shape, *shapes)]
        inputs[0] = inputs[0].contiguous(memory_format=layout)
        mine = [each.clone().requires_grad_() for each in inputs]
        theirs = [each.clone().requires_grad_() for each in inputs]
        out = gated_product(mine[0], mine[1:], divisor=4)
        expected = theirs[0] * sum(theirs[2:], theirs[1]) / 4
        assert out.is_contiguous(memory_format=layout)
        grad = torch.randn(shape, dtype=torch.float64)
        out.backward(grad)
        expected.backward(grad)
        torch.testing.assert_close(out, expected)
        for one, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(one.grad, other.grad)
        with torch.no_grad():
            torch.testing.assert_close(gated_product(mine[0], mine[1:], divisor=4), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_crossed_gates(dtype: torch.dtype, layout: torch.memory_format) -> None:
    for batch, channels, height, width in (*SHAPES, (0, 3, 4, 5)):
        shapes = [(height, width), (height, 1), (1, width)]
        inputs = [torch.randn(batch, channels, *each).to(dtype) for each in shapes]
        inputs[0] = inputs[0].contiguous(memory_format=layout)
        mine = [each.clone().requires_grad_() for each in inputs]
        theirs = [each.double().requires_grad_() for each in inputs]
        grad = torch.randn(inputs[0].shape).to(dtype).contiguous(memory_format=layout)
        out, expected = crossed_gates(*mine), theirs[0] * theirs[1] * theirs[2]
        assert out.is_contiguous(memory_format=layout)
        out.backward(grad)
        expected.backward(grad.double())
        pairs = [(out, expected), *((a.grad, b.grad) for a, b in zip(mine, theirs, strict=True))]
        bound = 1e-13 if dtype == torch.float64 else 2e-2
        for value, wanted in pairs:
            assert value is not None and wanted is not None and value.dtype == dtype
            largest = wanted.abs().flatten().amax(0) if wanted.numel() else 1.0
            assert ((value.double() - wanted).abs() <= bound * largest).all()


def test_only_what_learns_gets_a_gradient() -> None:
    x, gate = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 1, 1, requires_grad=True)
    gated_product(x, [gate, torch.randn(2, 1, 4, 5)]).sum().backward()
    torch.testing.assert_close(gate.grad, x.sum((2, 3), keepdim=True))


def test_numerical_gradients_once_and_twice() -> None:
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor) -> tuple[Tensor, ...]:
        handed, pooled = axis_pool(x, (2, 3, 1), ("max", "avg", "l2", "l1", "median"))
        planes = zip((plane.sin().sum(1, keepdim=True) for plane in pooled), (2, 3, 1), strict=True)
        gates = [unpooled(plane, dim) for plane, dim in planes]
        crossed = crossed_gates(handed, gates[1], gates[0])
        return gated_product(handed, gates, 2), crossed, *pooled

    assert torch.autograd.gradcheck(function, (x,))
    assert torch.autograd.gradgradcheck(function, (x,))


def test_a_gradient_of_a_gradient_is_whole() -> None:
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    found = []
    for gated in (lambda x, gate: gated_product(x, [gate]), lambda x, gate: x * gate):
        (grad,) = torch.autograd.grad(
            gated(x, x.mean((2, 3), keepdim=True)).sum(), x, create_graph=True
        )
        found.append(torch.autograd.grad(grad.square().sum(), x)[0])
    torch.testing.assert_close(*found)
