"""Means of a map over its height, its width or both, in the way that PyTorch vectorises."""

import torch
from torch import Tensor
from torch.nn import functional as F

from blocklab.blocks.pieces import HEIGHT, WIDTH
from blocklab.blocks.recording import is_recorded

_LONG = 256  # values of a mean from where a pooling in half precision is the faster way


def mean_over(x: Tensor, *axes: int) -> Tensor:
    """x.mean(axes, keepdim=True) for axes 2, 3 or both: (B, C, H, W) -> 1 on these axes.

    On processors, a mean over channels_last or of many values in half precision is no vector code;
    the average pooling of the whole axis is, and 2 to 40 times as fast.
    """
    if is_recorded(x) or x.device.type != "cpu" or x.numel() == 0:
        return x.mean(axes, keepdim=True)
    window = [x.shape[axis] if axis in axes else 1 for axis in (HEIGHT, WIDTH)]
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    long = x.dtype == torch.bfloat16 and x.shape[HEIGHT] * x.shape[WIDTH] >= _LONG
    if len(axes) == 2 and x.requires_grad and torch.is_grad_enabled():
        long = False  # backward, such a pooling is the slower one
    return F.avg_pool2d(x, window) if last or long else x.mean(axes, keepdim=True)
