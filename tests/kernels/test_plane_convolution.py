"""Convolutions of planes as band matrices, against PyTorch's convolution."""

from itertools import product

import pytest
import torch
from torch.nn import functional as F

from blocklab.kernels.plane_convolution import PlaneConv2d


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("kernel", [1, 3, 7, 9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_equals_the_convolution(kernel: int, dtype: torch.dtype, swapped: bool) -> None:
    for (rows, columns), channels in product([(1, 1), (4, 9), (33, 6), (70, 3), (130, 2)], (1, 3)):
        ours = PlaneConv2d(channels, kernel, swapped).to(dtype)
        # Positive, so that no sum of many cancels to rounding.
        x = torch.rand(2, channels, rows, columns).to(dtype).requires_grad_()
        mine = ours(x)
        plane = x.double().mT if swapped else x.double()
        theirs = F.conv2d(plane, ours.weight.double(), padding=kernel // 2)
        theirs = theirs.mT if swapped else theirs
        grad = torch.rand(mine.shape).to(dtype)
        inputs = [x, ours.weight]
        found = torch.autograd.grad(mine, inputs, grad)
        wanted = torch.autograd.grad(theirs, inputs, grad.double())
        bound = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
        for value, right in zip((mine, *found), (theirs, *wanted), strict=True):
            assert (value.double() - right).abs().max() <= bound * right.abs().max()


@pytest.mark.parametrize("swapped", [False, True])
def test_a_bias_that_folding_adds_is_added(swapped: bool) -> None:
    conv = PlaneConv2d(2, 3, swapped)
    x = torch.randn(2, 2, 5, 4)
    before = conv(x)
    conv.bias = torch.nn.Parameter(torch.tensor([0.5]))
    torch.testing.assert_close(conv(x), before + 0.5)


@pytest.mark.parametrize("swapped", [False, True])
def test_is_recorded_as_one_convolution(swapped: bool) -> None:
    conv, x = PlaneConv2d(2, 3, swapped), torch.randn(2, 2, 5, 4)
    program = torch.export.export(conv, (x,))
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert [name for name in names if "conv" in name] == ["aten.conv2d.default"]
    torch.testing.assert_close(program.module()(x), conv(x))
