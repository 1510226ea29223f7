"""A depth-wise convolution of stride 1 that keeps the map's size, computed in the cheapest way.

A k x k kernel on an H x W map never meets an image with its taps beyond H - 1 and W - 1: they are
cut away before the map is convolved. Parameters, gradients (zero for dead taps) and state dicts
are those of `nn.Conv2d`; outputs are equal to rounding.

What is left is computed by one of `ALGORITHMS`:

- ``direct``, the default: by PyTorch's convolution throughout, with a backward pass of our own.
  On processors, wide kernels are convolved in channels_last, and those with holes phase by phase,
  which PyTorch vectorises; the input's gradient is a convolution with the turned kernel; a kernel's
  is a convolution of each image with its output's gradient. Elsewhere it is ``plain``.
- ``plain``: as PyTorch differentiates it.
- ``fourier``: as a product of Fourier transforms, in float32 or wider whatever the precision.
- ``contiguous`` and ``implicit_gemm``, on a CUDA device: see `depthwise_cuda`. Elsewhere, and for
  what the package of the second does not take, ``direct``.

Under `torch.compile` the cut kernel is convolved as in ``plain``; an export keeps the whole kernel.

Which is fastest depends on machine and map; a model computes by another one only where a table
says so (`apply_algorithms`), as the choice changes the last bits of the numbers.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocklab.errors import InputError
from blocklab.kernels.depthwise_cuda import (
    DEVICE,
    PACKAGE,
    convolve_contiguous,
    has_implicit_gemm,
    implicit_gemm,
    takes_implicit_gemm,
)
from blocklab.kernels.layout import is_channels_last
from blocklab.kernels.recording import is_compiled, is_recorded

Algorithm = Literal["direct", "plain", "fourier", "contiguous", "implicit_gemm"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)

# Measured on float32 and bf16, with AVX-512 (benchmarks/large_kernels.py).
_FEW_TAPS = 7  # the longest kernel whose own gradient is fast with a channel for each image
_NARROW = 13  # the widest kernel, holes included, that PyTorch vectorises in any layout
_TO_WIDEN = (11, 13)  # widths that are slower in channels_last than _WIDENED
_WIDENED = 15
_LEAST_PHASE = 8  # rows and columns, for a kernel's own gradient to be faster phase by phase

# With bf16, channels_last, so few channels, and kernels and outputs wider than these, PyTorch
# 2.14.1's convolution on processors (oneDNN's `brdgmm_dw`) writes machine code without end.
_TOO_FEW, _ENOUGH = 16, 32
_NARROW_KERNEL, _NARROW_OUTPUT = 13, 30


class DepthwiseConv2d(nn.Conv2d):
    """One odd kernel a channel, padded to keep the map's size: (B, C, H, W) -> same.

    The kernel is as high as it is wide, or its height and width are given.
    """

    def __init__(
        self, channels: int, kernel: int | tuple[int, int], dilation: int = 1, bias: bool = True
    ) -> None:
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (dilation * (height // 2), dilation * (width // 2))
        super().__init__(channels, channels, (height, width), 1, padding, dilation, channels, bias)
        self.algorithm: Algorithm = "direct"
        self.largest_map: tuple[int, int] | None = None  # what a deployed kernel was cut for

    def forward(self, input: Tensor) -> Tensor:
        if self.largest_map is not None:
            self._check_map(input.shape[-2], input.shape[-1])
        if is_recorded(input):
            return super().forward(input)
        weight, bias, dilation = self.weight, self.bias, self.dilation[0]
        if torch.is_autocast_enabled(input.device.type) and input.dtype != torch.float64:
            dtype = torch.get_autocast_dtype(input.device.type)
            input, weight = input.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        weight = cut_to_live_taps(weight, dilation, input.shape[-2], input.shape[-1])
        if weight.shape[2:] == (1, 1):
            out = input * weight.view(-1, 1, 1)
            return out if bias is None else out + bias.view(-1, 1, 1)
        if self.algorithm == "fourier":
            return _fourier(input, weight, bias, dilation)
        plain = self.algorithm == "plain" or input.numel() == 0 or input.ndim != 4 or is_compiled()
        plain = plain or (min(self.kernel_size) == 1 < max(self.kernel_size))  # strips gain nothing
        if not plain and self.algorithm == "contiguous" and input.device.type == DEVICE:
            return _as_laid_out(convolve_contiguous(input, weight, bias, dilation), input)
        by_package = not plain and self.algorithm == "implicit_gemm"
        if by_package and takes_implicit_gemm(input, weight, dilation):
            return _as_laid_out(implicit_gemm(input, weight, bias), input)
        if plain or input.device.type != "cpu" or not torch.backends.mkldnn.is_available():
            return _convolve(input, weight, bias, dilation)
        return _Direct.apply(input, weight, bias, dilation)  # type: ignore[return-value]

    def _check_map(self, height: int, width: int) -> None:
        assert self.largest_map is not None
        if height > self.largest_map[0] or width > self.largest_map[1]:
            rows, columns = self.largest_map
            raise InputError(
                f"this kernel was cut for maps up to {rows}x{columns}, and has one of "
                f"{height}x{width}; deploy the network for the larger input_size"
            )


def cut_to_live_taps(weight: Tensor, dilation: int, height: int, width: int) -> Tensor:
    """Cut kernels (C, 1, k, k) to the taps that can meet a map of this size."""
    for axis, size in ((2, height), (3, width)):
        half = weight.shape[axis] // 2
        reach = min(half, max(0, size - 1) // dilation)
        weight = weight.narrow(axis, half - reach, 2 * reach + 1)
    return weight


def apply_algorithms(model: nn.Module, table: Mapping[str, str]) -> None:
    """Let each depth-wise convolution that a table names compute as it says.

    Raises:
        InputError: for a name that is no depth-wise convolution of the model, an unknown
            algorithm, or one whose package is not installed; nothing is changed then.
    """
    modules = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, DepthwiseConv2d)
    }
    for name, algorithm in table.items():
        if name not in modules:
            raise InputError(f"the model has no depth-wise convolution '{name}'; measure it again")
        if algorithm not in ALGORITHMS:
            raise InputError(f"no algorithm '{algorithm}'; one of {', '.join(ALGORITHMS)}")
        if algorithm == "implicit_gemm" and not has_implicit_gemm():
            raise InputError(
                f"this run computes with the package {PACKAGE}; install it, or choose another --out"
            )
    for name, algorithm in table.items():
        modules[name].algorithm = algorithm  # type: ignore[assignment]


def _as_laid_out(out: Tensor, x: Tensor) -> Tensor:
    last = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    return out.contiguous(memory_format=last)


def _padding(weight: Tensor, dilation: int) -> tuple[int, int]:
    return dilation * (weight.shape[2] // 2), dilation * (weight.shape[3] // 2)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    return _conv2d(x, weight, bias, 1, _padding(weight, dilation), dilation)


def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: tuple[int, int],
    dilation: int,
) -> Tensor:
    """PyTorch's depth-wise convolution, with channels added where it may not return."""
    channels = weight.shape[0]
    width = dilation * (weight.shape[3] - 1) + 1
    output = (x.shape[-1] + 2 * padding[1] - width) // stride + 1
    may_never_return = (
        (x.device.type, x.dtype, x.ndim) == ("cpu", torch.bfloat16, 4)
        and (channels <= _TOO_FEW and width > _NARROW_KERNEL and output > _NARROW_OUTPUT)
        and x.is_contiguous(memory_format=torch.channels_last)
    )
    if not may_never_return:
        return F.conv2d(x, weight, bias, stride, padding, dilation, channels)
    added = _ENOUGH - channels
    x, weight = F.pad(x, (0, 0, 0, 0, 0, added)), F.pad(weight, (0, 0, 0, 0, 0, 0, 0, added))
    x = x.contiguous(memory_format=torch.channels_last)
    bias = None if bias is None else F.pad(bias, (0, added))
    out = F.conv2d(x, weight, bias, stride, padding, dilation, _ENOUGH)[:, :channels]
    return out.contiguous(memory_format=torch.channels_last)


def _convolve_fast(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """Convolve in the way that is fast for the kernel's width; returned in x's layout."""
    width, last = dilation * (weight.shape[3] - 1) + 1, is_channels_last(x)
    if width <= _NARROW:
        if last and dilation == 1 and width in _TO_WIDEN:
            weight = F.pad(weight, ((_WIDENED - width) // 2,) * 2)
        return _convolve(x, weight, bias, dilation)
    image = x.contiguous(memory_format=torch.channels_last)
    if dilation == 1:
        out = _convolve(image, weight, bias, 1)
    else:
        phases = _convolve_fast(to_phases(image, dilation), weight, bias, 1)
        out = from_phases(phases, dilation, x.shape[2], x.shape[3])
    return out if last else out.contiguous()


def to_phases(x: Tensor, dilation: int) -> Tensor:
    """Split maps in channels_last: (B, C, H, W) -> (B * d * d, C, ceil(H / d), ceil(W / d)).

    A phase is every d-th row and column. A kernel with holes of d meets pixels of one phase at a
    time: over the phases it has no holes, and the same sums. Zeros fill the last row and column of
    a phase that is shorter than others.
    """
    batch, channels, height, width = x.shape
    rows, columns = -(-height // dilation), -(-width // dilation)
    make = x.new_zeros if height % dilation or width % dilation else x.new_empty
    phases = make(batch, dilation, dilation, rows, columns, channels).permute(0, 1, 2, 5, 3, 4)
    for row in range(dilation):
        for column in range(dilation):
            part = x[:, :, row::dilation, column::dilation]
            phases[:, row, column, :, : part.shape[2], : part.shape[3]] = part
    return phases.flatten(0, 2)


def from_phases(phases: Tensor, dilation: int, height: int, width: int) -> Tensor:
    """Put maps together again: what `to_phases` gives -> (B, C, height, width), channels_last."""
    parts = phases.unflatten(0, (-1, dilation, dilation))
    batch, channels = parts.shape[0], parts.shape[3]
    x = phases.new_empty(batch, height, width, channels).permute(0, 3, 1, 2)
    for row in range(dilation):
        for column in range(dilation):
            part = x[:, :, row::dilation, column::dilation]
            part.copy_(parts[:, row, column, :, : part.shape[2], : part.shape[3]])
    return x


class _Direct(torch.autograd.Function):
    """The convolution with a backward pass that is itself convolutions forward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return _convolve_fast(x, weight, bias, dilation)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        grad_x = grad_weight = grad_bias = None
        if needs_x:
            grad_x = _convolve_fast(grad, weight.flip(2, 3), None, ctx.dilation)
        if needs_weight:
            grad_weight = _weight_gradient(x, grad, weight, ctx.dilation)
        if needs_bias:
            grad_bias = grad.sum((0, 2, 3))
        return grad_x, grad_weight, grad_bias, None


def _weight_gradient(x: Tensor, grad: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """The kernels' gradient (C, 1, k, k): sums over images of x shifted, times the gradient.

    PyTorch's own is fast for three taps. Others are the convolution of each image, as a channel of
    one image, with its gradient as the kernel, at a stride of the dilation.
    """
    longest = max(weight.shape[2:])
    if dilation > 1 and longest <= _FEW_TAPS and min(x.shape[2:]) >= dilation * _LEAST_PHASE:
        last = torch.channels_last
        x = to_phases(x.contiguous(memory_format=last), dilation)
        grad = to_phases(grad.contiguous(memory_format=last), dilation)
        return _weight_gradient(x, grad, weight, 1)
    if longest <= 3 and dilation == 1:
        if x.shape[2] == 2:  # slow in PyTorch (benchmarks/small_maps.py)
            x, grad = F.pad(x, (0, 0, 0, 1)), F.pad(grad, (0, 0, 0, 1))
        padding = _padding(weight, 1)
        return torch.ops.aten.convolution_backward(
            grad, x, weight, None, (1, 1), padding, (1, 1), False, (0, 0), x.shape[1],
            (False, True, False),
        )[1]  # fmt: skip
    batch, channels, height, width = x.shape
    planes = batch * channels
    if longest <= _FEW_TAPS and dilation == 1:
        image, kernels = x.reshape(1, planes, height, width), grad.reshape(-1, 1, height, width)
    else:
        image, kernels = _last(x), _last(grad).transpose(0, 1)
    sums = _conv2d(image, kernels, None, dilation, _padding(weight, dilation), 1)
    return sums.view(batch, *weight.shape).sum(0, dtype=_wide(x.dtype)).to(weight.dtype)


def _last(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (1, BC, H, W) in channels_last."""
    batch, channels, height, width = x.shape
    if x.is_contiguous():  # as a matrix, PyTorch transposes in blocks
        flat = x.view(batch * channels, -1).t().contiguous()
    else:
        flat = x.permute(2, 3, 0, 1).contiguous()
    return flat.view(1, height, width, -1).permute(0, 3, 1, 2)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def _fourier(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """Correlate x with the kernels by the convolution theorem, on a torus that nothing wraps."""
    dtype = x.dtype
    reach = _padding(weight, dilation)
    size = [_smooth(side + margin) for side, margin in zip(x.shape[2:], reach, strict=True)]
    kernel = weight[:, 0].to(_wide(dtype))
    if dilation > 1:
        spread = kernel.new_zeros(len(kernel), 2 * reach[0] + 1, 2 * reach[1] + 1)
        spread[:, ::dilation, ::dilation] = kernel
        kernel = spread
    # The kernel's middle tap goes to the origin; what lies before it wraps around the torus.
    if any(length > side for length, side in zip(kernel.shape[1:], size, strict=True)):
        size = [max(a, _smooth(b)) for a, b in zip(size, kernel.shape[1:], strict=True)]
    kernel = F.pad(kernel, (0, size[1] - kernel.shape[2], 0, size[0] - kernel.shape[1]))
    kernel = kernel.roll((-reach[0], -reach[1]), (1, 2))
    with torch.autocast(x.device.type, enabled=False):
        product = torch.fft.rfft2(x.to(_wide(dtype)), size) * torch.fft.rfft2(kernel).conj()
        out = torch.fft.irfft2(product, size)[..., : x.shape[2], : x.shape[3]]
    out = out if bias is None else out + bias.view(-1, 1, 1)
    return _as_laid_out(out.to(dtype), x)


def _smooth(least: int) -> int:
    """The smallest even size from `least` on without a prime factor above 5."""
    size = least + least % 2
    while True:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 2
