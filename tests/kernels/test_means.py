"""Means that are poolings where those are vectorised, against PyTorch's means."""

import pytest
import torch

from blocklab.kernels.means import mean_over


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


def test_an_empty_batch_has_means() -> None:
    assert mean_over(torch.randn(0, 3, 4, 4), 2, 3).shape == (0, 3, 1, 1)
