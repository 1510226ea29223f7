"""PyTorch's depth-wise convolution, around a flaw of the one for processors.

With bf16, channels_last, up to 16 channels, kernels wider than 13 and outputs wider than 30, the
convolution of PyTorch 2.14.1 (oneDNN's ``brdgmm_dw``) never returns: it writes its own machine
code without end. With more channels it does not.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

Pair = tuple[int, int]

_TOO_FEW = 16  # channels, up to which it may not return
_ENOUGH = 32
_NARROW_KERNEL, _NARROW_OUTPUT = 13, 30


def depthwise_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: Pair, dilation: int
) -> Tensor:
    """Convolve (B, C, H, W) with kernels (C, 1, k_h, k_w), one a channel."""
    channels = weight.shape[0]
    if not _may_never_return(x, weight, stride, padding, dilation):
        return F.conv2d(x, weight, bias, stride, padding, dilation, channels)
    added = _ENOUGH - channels
    x, weight = F.pad(x, (0, 0, 0, 0, 0, added)), F.pad(weight, (0, 0, 0, 0, 0, 0, 0, added))
    x = x.contiguous(memory_format=torch.channels_last)
    bias = None if bias is None else F.pad(bias, (0, added))
    out = F.conv2d(x, weight, bias, stride, padding, dilation, _ENOUGH)[:, :channels]
    return out.contiguous(memory_format=torch.channels_last)


def _may_never_return(x: Tensor, weight: Tensor, stride: int, padding: Pair, dilation: int) -> bool:
    if x.device.type != "cpu" or x.dtype != torch.bfloat16 or x.ndim != 4:
        return False
    kernel = dilation * (weight.shape[3] - 1) + 1
    output = (x.shape[3] + 2 * padding[1] - kernel) // stride + 1
    few = weight.shape[0] <= _TOO_FEW and x.is_contiguous(memory_format=torch.channels_last)
    return few and kernel > _NARROW_KERNEL and output > _NARROW_OUTPUT
