"""A convolution that is a matrix product on small maps, where that is faster.

Stages at the end of a network see maps of a few pixels: 4x4, 2x2 or 1x1 behind an ImageNet stem on
32x32 images. There, oneDNN's convolutions spend most of their time on bringing weights and their
gradients into another order, and a matrix product of pixels by channels is two to six times as fast
(``benchmarks/small_maps.py``). Parameters, gradients and state dicts are those of `nn.Conv2d`;
outputs are equal to rounding.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from blocklab.kernels.recording import is_traced
from blocklab.kernels.strided import StridedConv2d

# The largest map, in pixels, on which a product is the faster one; of other types, one pixel.
_MOST_PIXELS = {torch.bfloat16: 16}


class SmallMapConv2d(StridedConv2d):
    """`nn.Conv2d`, with its arguments: (B, C_in, H, W) -> (B, C_out, H', W').

    On processors, a 1x1 convolution of a small map is a product of its pixels by the weights. So is
    a larger kernel that is padded to keep the size, on a map of one pixel, which only its centre
    tap meets; the other taps' gradients are zero.
    """

    def forward(self, input: Tensor) -> Tensor:
        recorded = is_traced(input)
        if recorded or not self._is_product(input) or not _pays(input, self.stride):
            return super().forward(input)
        weight = self.weight
        if self.kernel_size != (1, 1):
            weight = weight[:, :, self.kernel_size[0] // 2, self.kernel_size[1] // 2]
        # In this order a gradient that is spread over the pixels left out is channels_last too.
        pixels = input.permute(0, 2, 3, 1)[:, :: self.stride[0], :: self.stride[1]]
        return F.linear(pixels, weight.flatten(1), self.bias).permute(0, 3, 1, 2)

    def _is_product(self, input: Tensor) -> bool:
        if input.ndim != 4 or self.groups != 1 or isinstance(self.padding, str):
            return False
        if self.kernel_size == (1, 1):
            return self.padding == (0, 0)
        taps = zip(self.kernel_size, self.dilation, self.padding, strict=True)
        same = all(k % 2 and pad == dilation * (k // 2) for k, dilation, pad in taps)
        return same and input.shape[2:] == (1, 1) and self.padding_mode == "zeros"


def _pays(input: Tensor, stride: tuple[int, ...]) -> bool:
    """Whether a product is the faster way; it needs channels innermost, as they are multiplied."""
    if input.device.type != "cpu" or input.stride(1) != 1 or input.numel() == 0:
        return False
    if not torch.backends.mkldnn.is_available():
        return False
    dtype = input.dtype
    if torch.is_autocast_enabled("cpu") and dtype != torch.float64:
        dtype = torch.get_autocast_dtype("cpu")
    height, width = (-(-size // step) for size, step in zip(input.shape[2:], stride, strict=True))
    return height * width <= _MOST_PIXELS.get(dtype, 1)
