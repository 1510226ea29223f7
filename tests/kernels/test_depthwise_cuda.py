"""The ways of CUDA devices to convolve depth-wise, tried where there is none: what they compute."""

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocklab.errors import InputError
from blocklab.kernels import depthwise, depthwise_cuda
from blocklab.kernels.depthwise import Algorithm, DepthwiseConv2d, apply_algorithms

Calls = list[tuple[tuple[int, ...], torch.dtype]]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processor take the ways of a CUDA device."""
    for module in (depthwise, depthwise_cuda):
        monkeypatch.setattr(module, "DEVICE", "cpu")


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, device: None) -> Calls:
    """Stand in for the package: the kernels that it was called with."""
    calls: Calls = []

    class StandIn(nn.Conv2d):
        def __init__(self, channels: int, kernel: int, bias: bool = False) -> None:
            super().__init__(channels, channels, kernel, groups=channels, bias=bias)

        def forward(self, input: Tensor) -> Tensor:
            assert input.is_contiguous() and self.weight.is_contiguous()
            if torch.is_autocast_enabled("cpu") or input.dtype not in (torch.float32, torch.half):
                raise TypeError("only float32 and float16")
            calls.append((tuple(self.weight.shape), input.dtype))
            half = self.weight.shape[2] // 2
            return F.conv2d(input, self.weight, padding=half, groups=self.groups)

    module: Any = ModuleType(depthwise_cuda.PACKAGE)
    module.DepthWiseConv2dImplicitGEMM = StandIn
    monkeypatch.setitem(sys.modules, depthwise_cuda.PACKAGE, module)
    depthwise_cuda._module.cache_clear()
    return calls


def computed(
    algorithm: Algorithm, x: Tensor, kernel: int, dilation: int = 1, bias: bool = True
) -> list[Tensor]:
    torch.manual_seed(0)
    conv = DepthwiseConv2d(x.shape[1], kernel, dilation, bias)
    conv = conv.to(x.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    conv.algorithm = algorithm
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    out = conv(x)
    assert out.is_contiguous(memory_format=torch.channels_last)
    out.backward(torch.linspace(-1, 1, out.numel()).view(out.shape).to(out.dtype))
    found = [out.detach(), x.grad, *(p.grad for p in conv.parameters())]
    assert all(value is not None for value in found)
    return found  # type: ignore[return-value]


def maps(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(size, dtype=dtype).contiguous(memory_format=torch.channels_last)


SIZES = [((2, 3, 9, 7), 5, 1, True), ((2, 3, 6, 6), 9, 1, False), ((2, 1, 9, 9), 7, 3, True)]


@pytest.mark.parametrize(("size", "kernel", "dilation", "bias"), SIZES)
def test_a_contiguous_convolution_is_the_same(
    device: None,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, ...],
    kernel: int,
    dilation: int,
    bias: bool,
) -> None:
    strides: list[tuple[int, ...]] = []
    convolve = depthwise_cuda.F.conv2d

    def seen(x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
        strides.extend((x.stride(), weight.stride()))
        return convolve(x, weight, *rest)

    x = maps(*size)
    expected = computed("plain", x, kernel, dilation, bias)
    monkeypatch.setattr(depthwise_cuda.F, "conv2d", seen)
    found = computed("contiguous", x, kernel, dilation, bias)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    # An axis of one must not look as if the map or the weight were in channels_last.
    for stride in strides:
        assert list(stride) == sorted(stride, reverse=True), strides
    assert len(strides) == 2


@pytest.mark.parametrize(
    ("size", "kernel", "dtype", "met"),
    [
        ((2, 3, 9, 9), 5, torch.float32, (3, 1, 5, 5)),
        ((2, 3, 4, 4), 31, torch.float32, (3, 1, 7, 7)),
        ((2, 3, 9, 9), 5, torch.float16, (3, 1, 5, 5)),
    ],
)
def test_the_package_convolves_what_it_takes(
    package: Calls, size: tuple[int, ...], kernel: int, dtype: torch.dtype, met: tuple[int, ...]
) -> None:
    x = maps(*size, dtype=dtype)
    found, expected = (computed(way, x, kernel) for way in ("implicit_gemm", "plain"))
    bound = 1e-5 if dtype == torch.float32 else 1e-2
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=bound, atol=bound)
    assert package == [(met, dtype)]


@pytest.mark.parametrize(
    ("size", "kernel", "dilation", "dtype"),
    [
        ((2, 3, 9, 9), 5, 1, torch.bfloat16),
        ((2, 3, 9, 9), 5, 1, torch.float64),
        ((2, 3, 9, 9), 5, 2, torch.float32),
        ((2, 3, 9, 3), 7, 1, torch.float32),  # cut to 7x5
    ],
)
def test_what_the_package_does_not_take_is_convolved_as_usual(
    package: Calls, size: tuple[int, ...], kernel: int, dilation: int, dtype: torch.dtype
) -> None:
    x = maps(*size, dtype=dtype)
    found, expected = (computed(way, x, kernel, dilation) for way in ("implicit_gemm", "direct"))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    assert package == []


def test_autocast_does_not_reach_the_package(package: Calls) -> None:
    with torch.autocast("cpu", torch.float16):
        computed("implicit_gemm", maps(2, 3, 9, 9), 5)
    assert package == [((3, 1, 5, 5), torch.float16)]


def test_on_a_processor_neither_changes_a_bit() -> None:
    x = maps(2, 3, 9, 9)
    usual = computed("direct", x, 9)
    for way in ("contiguous", "implicit_gemm"):
        assert all(map(torch.equal, computed(way, x, 9), usual))


def test_a_package_that_is_gone_is_said(monkeypatch: pytest.MonkeyPatch, package: Calls) -> None:
    model = nn.Sequential(DepthwiseConv2d(2, 5))
    apply_algorithms(model, {"0": "implicit_gemm"})
    monkeypatch.delitem(sys.modules, depthwise_cuda.PACKAGE)
    with pytest.raises(InputError, match="depthwise_conv2d_implicit_gemm; install it, or choose"):
        apply_algorithms(model, {"0": "implicit_gemm"})
