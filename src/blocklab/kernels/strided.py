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
        if self.stride[1] > 1 and not is_recorded(input) and self._leaves_gradients(input):
            input = F.pad(input, (0, self.stride[1] - input.shape[3]))
        return super().forward(input)

    def _leaves_gradients(self, x: Tensor) -> bool:
        if x.ndim != 4 or x.device.type != "cpu" or x.shape[3] >= self.stride[1]:
            return False
        if not torch.is_grad_enabled() or not self.weight.requires_grad:
            return False
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        if dtype != torch.bfloat16 or self.padding_mode != "zeros" or isinstance(self.padding, str):
            return False
        margin = 2 * self.padding[1] - self.dilation[1] * (self.kernel_size[1] - 1) - 1
        stride = self.stride[1]  # no output may be added
        return (x.shape[3] + margin) // stride == (stride + margin) // stride
