"""Pooling, gates and thin convolutions in pieces against what they stand for."""

from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from blocklab.blocks.triplet_attention import pool
from blocklab.kernels import pieces
from blocklab.kernels.axis_pooling import Statistic, axis_pool, unpooled
from blocklab.kernels.banded_convolution import banded_conv2d
from blocklab.kernels.crossed_gates import crossed_gates
from blocklab.kernels.gated_product import gated_product

LAYOUTS = [torch.contiguous_format, torch.channels_last]
SHAPES = [(3, 5, 8, 7), (2, 6, 20, 17), (2, 3, 1, 1), (1, 1, 4, 4), (5, 300, 2, 3)]
STATISTICS: list[Statistic] = ["max", "avg", "median", "l1", "l2"]


@pytest.fixture(autouse=True)
def _several_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    # So that small maps are taken in pieces.
    monkeypatch.setattr(pieces, "_PIECE", 300)


def pooled_plainly(x: Tensor, statistics: tuple[Statistic, ...]) -> list[Tensor]:
    over_height, over_width, over_channels = (pool(x, dim, statistics) for dim in (2, 3, 1))
    return [over_height.mT, over_width.mT, over_channels]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("statistics", [*((one,) for one in STATISTICS), tuple(STATISTICS)])
def test_statistics_and_their_gradients(
    statistics: tuple[Statistic, ...], layout: torch.memory_format
) -> None:
    for shape in SHAPES:
        x = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=layout)
        mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        handed, pooled = axis_pool(mine, (2, 3, 1), statistics)
        expected = pooled_plainly(theirs, statistics)
        factor = torch.randn(shape, dtype=torch.float64)
        grads = [torch.randn_like(plane) for plane in expected]
        gate = torch.rand(shape[0], 1, 1, 1, dtype=torch.float64)
        gated = gated_product(handed, [gate])
        torch.autograd.backward([gated, *pooled], [factor, *grads])
        torch.autograd.backward([theirs * gate, *expected], [factor, *grads])
        for value, wanted in zip(pooled, expected, strict=True):
            torch.testing.assert_close(value, wanted)
        torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_equal_maxima_the_first_learns(dtype: torch.dtype, layout: torch.memory_format) -> None:
    x = torch.randint(0, 3, (3, 40, 9, 8)).to(dtype).contiguous(memory_format=layout)
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    _, pooled = axis_pool(mine, (2, 3, 1), ("max",))
    expected = pooled_plainly(theirs, ("max",))
    grads = [torch.randint(1, 5, plane.shape).to(dtype) for plane in expected]
    torch.autograd.backward(pooled, grads)
    torch.autograd.backward(expected, grads)
    assert mine.grad is not None and theirs.grad is not None
    assert mine.grad.equal(theirs.grad)


@pytest.mark.parametrize("statistic", ["l1", "l2", "median", "max"])
def test_zeros_have_finite_gradients(statistic: Statistic) -> None:
    mine = torch.zeros(2, 3, 4, 5, requires_grad=True)
    theirs = torch.zeros(2, 3, 4, 5, requires_grad=True)
    _, pooled = axis_pool(mine, (1,), (statistic,))
    pooled[0].sum().backward()
    pool(theirs, 1, (statistic,)).sum().backward()
    assert mine.grad is not None and theirs.grad is not None
    assert mine.grad.isfinite().all() and theirs.grad.isfinite().all()
    assert mine.grad.sum() == theirs.grad.sum() == (0 if statistic in ("l1", "l2") else 2 * 4 * 5)


def test_no_number_stays_no_number() -> None:
    x = torch.randn(2, 3, 6, 5)
    x[0, 1, 2, 3] = torch.nan
    x.requires_grad_()
    handed, pooled = axis_pool(x, (2, 3, 1), ("max", "avg"))
    assert all(plane.isnan().any() for plane in pooled)
    (handed.sum() + sum(plane.nan_to_num().sum() for plane in pooled)).backward()


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
        out = gated_product(mine[0], mine[1:], 0.25)
        expected = theirs[0] * sum(theirs[2:], theirs[1]) * 0.25
        assert out.is_contiguous(memory_format=layout)
        grad = torch.randn(shape, dtype=torch.float64)
        out.backward(grad)
        expected.backward(grad)
        torch.testing.assert_close(out, expected)
        for one, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(one.grad, other.grad)
        with torch.no_grad():
            torch.testing.assert_close(gated_product(mine[0], mine[1:], 0.25), expected)


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


@pytest.mark.parametrize("kernel", [1, 3, 7, 9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_banded_convolutions(kernel: int, dtype: torch.dtype) -> None:
    for (rows, columns), channels in product([(1, 1), (4, 9), (33, 6), (70, 3), (130, 2)], (1, 3)):
        x = torch.randn(2, channels, rows, columns).to(dtype).requires_grad_()
        weight = torch.randn(1, channels, kernel, kernel).to(dtype).requires_grad_()
        mine = banded_conv2d(x, weight, None)
        theirs = F.conv2d(x.double(), weight.double(), padding=kernel // 2)
        grad = torch.randn(mine.shape).to(dtype)
        inputs = [x, weight]
        found = torch.autograd.grad(mine, inputs, grad)
        wanted = torch.autograd.grad(theirs, inputs, grad.double())
        bound = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
        for value, right in zip((mine, *found), (theirs, *wanted), strict=True):
            assert (value.double() - right).abs().max() <= bound * right.abs().max()


def test_numerical_gradients_once_and_twice() -> None:
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor) -> tuple[Tensor, ...]:
        handed, pooled = axis_pool(x, (2, 3, 1), ("max", "avg", "l2", "l1", "median"))
        planes = zip((plane.sin().sum(1) for plane in pooled), (2, 3, 1), strict=True)
        gates = [unpooled(plane, dim) for plane, dim in planes]
        crossed = crossed_gates(handed, gates[1], gates[0])
        return gated_product(handed, gates, 0.5), crossed, *pooled

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
