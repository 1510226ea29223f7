"""Other ways than PyTorch's usual one to convolve depth-wise on a CUDA device.

In channels_last PyTorch hands every depth-wise convolution to cuDNN. A contiguous map in half
precision reaches PyTorch's own kernel for large ones, and the package `PACKAGE` (Ding et al., CVPR
2022, arXiv:2203.06717, section 4.1: an implicit matrix product), where it is installed, takes those
in float32 and float16. Which is fastest depends on device and map: see `training.algorithms`.
"""

import importlib
from functools import lru_cache
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PACKAGE = "depthwise_conv2d_implicit_gemm"
DEVICE = "cuda"


def has_implicit_gemm() -> bool:
    """Whether the package is installed."""
    try:
        return find_spec(PACKAGE) is not None
    except ValueError:  # a module without a specification is in its place
        return True


def takes_implicit_gemm(x: Tensor, weight: Tensor, dilation: int) -> bool:
    """Whether the package convolves so: square kernels without holes, in float32 or float16."""
    return (
        x.device.type == DEVICE
        and x.numel() > 0
        and x.dtype == weight.dtype
        and x.dtype in (torch.float32, torch.float16)
        and dilation == 1
        and weight.shape[2] == weight.shape[3]
    )


def implicit_gemm(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve (B, C, H, W) with kernels (C, 1, k, k), padded to keep the size, by the package."""
    module = _module(weight.shape[0], weight.shape[2])
    with torch.autocast(x.device.type, enabled=False):  # which it would take for float16
        out = torch.func.functional_call(module, {"weight": _in_order(weight)}, _in_order(x))
    return out if bias is None else out + bias.view(-1, 1, 1)


def convolve_contiguous(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """Convolve (B, C, H, W) with kernels (C, 1, k, l), padded to keep the size, contiguously."""
    padding = tuple(dilation * (taps // 2) for taps in weight.shape[2:])
    channels = weight.shape[0]
    return F.conv2d(_in_order(x), _in_order(weight), bias, 1, padding, dilation, channels)  # type: ignore[arg-type]


def _in_order(x: Tensor) -> Tensor:
    """Copy into contiguous order, and say so: where an axis is of one, both layouts are the same.

    A weight (C, 1, k, k) of a network in channels_last is contiguous as it is, but keeps the
    strides of that layout, and PyTorch goes by them.
    """
    return x.contiguous().flatten().view(x.shape)


@lru_cache(maxsize=64)
def _module(channels: int, kernel: int) -> nn.Module:
    """The package's module, without weights of its own."""
    package = importlib.import_module(PACKAGE)
    with torch.device("meta"):
        return package.DepthWiseConv2dImplicitGEMM(channels, kernel, bias=False)
