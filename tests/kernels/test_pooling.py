"""Means, sums and statistics of single axes, against PyTorch's."""

import pytest
import torch
from torch import Tensor

from blocklab.kernels import layout as layouts
from blocklab.kernels.gates import gated_product
from blocklab.kernels.pooling import Statistic, axis_pool, mean_over, plain_axis_pool, sum_over

LAYOUTS = [torch.contiguous_format, torch.channels_last]
SHAPES = [(3, 5, 8, 7), (2, 6, 20, 17), (2, 3, 1, 1), (1, 1, 4, 4), (5, 300, 2, 3)]
STATISTICS: list[Statistic] = ["max", "avg", "median", "l1", "l2"]


@pytest.fixture(autouse=True)
def _several_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    # So that small maps are taken in pieces.
    monkeypatch.setattr(layouts, "_PIECE", 300)


def pooled_plainly(x: Tensor, statistics: tuple[Statistic, ...]) -> list[Tensor]:
    return [plain_axis_pool(x, dim, statistics) for dim in (2, 3, 1)]


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
    plain_axis_pool(theirs, 1, (statistic,)).sum().backward()
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


@pytest.mark.parametrize("axes", [(2,), (3,), (2, 3)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-6), (torch.bfloat16, 4e-3)])
@pytest.mark.parametrize("shape", [(2, 5, 7, 4), (3, 4, 1, 1), (2, 3, 20, 17), (1, 6, 1, 9)])
def test_equals_the_mean(
    axes: tuple[int, ...],
    layout: torch.memory_format,
    dtype: torch.dtype,
    most: float,
    shape: tuple[int, ...],
) -> None:
    x = (torch.randn(shape) + 1).to(dtype).contiguous(memory_format=layout)
    wanted = x.double().mean(axes, keepdim=True)
    with torch.no_grad():
        found = mean_over(x, *axes)
    assert found.dtype == dtype and found.shape == wanted.shape
    assert ((found.double() - wanted).abs().max() / wanted.abs().max()).item() < most

    x.requires_grad_()
    out = mean_over(x, *axes)
    grad = torch.randn(out.shape).to(dtype)
    out.backward(grad)
    count = x.numel() / out.numel()
    assert x.grad is not None and x.grad.dtype == dtype
    expected = (grad.double() / count).expand(shape)
    assert ((x.grad.double() - expected).abs().max() / expected.abs().max()).item() < 2 * most


@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_the_sum(layout: torch.memory_format) -> None:
    x = torch.randn(2, 5, 7, 4, dtype=torch.float64).contiguous(memory_format=layout)
    for axes in ((2,), (3,), (2, 3)):
        torch.testing.assert_close(sum_over(x, *axes), x.sum(axes, keepdim=True))


def test_an_empty_batch_has_means() -> None:
    assert mean_over(torch.randn(0, 3, 4, 4), 2, 3).shape == (0, 3, 1, 1)
