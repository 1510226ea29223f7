"""A strided convolution whose weights' gradients are all written.

On processors, in bf16 and on maps narrower than the stride, PyTorch 2.14.1 (oneDNN) does not write
the gradients of taps that meet no pixel: they hold what the memory held, often no numbers. A map
that is widened by zeros to the stride has the same outputs and gradients, all of them written.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocklab.kernels.recording import is_recorded


class StridedConv2d(nn.Conv2d):
    """`nn.Conv2d`, with its arguments: (B, C_in, H, W) -> (B, C_out, H', W')."""

    def forward(self, input: Tensor) -> Tensor:
        if self.padding_mode == "zeros" and not isinstance(self.padding, str):
            input = widened(input, self.weight, self.stride[1], self.padding[1], self.dilation[1])
        return super().forward(input)


def widened(x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int = 1) -> Tensor:
    """Return a map that a convolution of these weights can take with all gradients written.

    Args:
        x: (B, C_in, H, W).
        weight: (C_out, C_in / groups, k, k).
        stride: along the width, as are `padding`, of zeros, and `dilation`.
    """
    if stride < 2 or is_recorded(x):
        return x
    if x.ndim != 4 or x.device.type != "cpu" or x.shape[3] >= stride:
        return x
    if not torch.is_grad_enabled() or not weight.requires_grad:
        return x
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    margin = 2 * padding - dilation * (weight.shape[3] - 1) - 1
    # No output may be added.
    if dtype != torch.bfloat16 or (x.shape[3] + margin) // stride != (stride + margin) // stride:
        return x
    return F.pad(x, (0, stride - x.shape[3]))
