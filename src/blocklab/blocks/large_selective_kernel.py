"""Large Selective Kernel. Li, Hou, Zheng, Cheng, Yang and Li, ICCV 2023, arXiv:2303.09030."""

import torch
from torch import Tensor, nn

from blocklab.blocks.authors_start import AuthorsStart, start_by_fan_out_of_group
from blocklab.blocks.registry import register_block
from blocklab.errors import InputError
from blocklab.kernels.depthwise import DepthwiseConv2d
from blocklab.kernels.pooling import axis_pool
from blocklab.kernels.small_map import SmallMapConv2d


@register_block("lsk")
class LargeSelectiveKernel(nn.Module):
    """Gate each value by two kernel sizes, chosen at each position: (B, C, H, W) -> same.

    u1 = depth-wise 5x5(x), u2 = depth-wise 7x7 dilated by 3(u1), which sees 23x23; each to C // 2
    channels by a 1x1 convolution; from the mean and the maximum over all of these channels a 7x7
    convolution and a sigmoid make a map a size, m1 and m2; y = x * conv1x1(m1 * u1 + m2 * u2)
    (section 3.3). Parameters are named as the authors' (``conv0``, ``conv_spatial``, ``conv1``,
    ``conv2``, ``conv_squeeze``, ``conv``). Differs from the paper: stands as an attention alone,
    without the 1x1 convolutions, GELU and sum that the authors put around it.

    In a ResNet, whose scheme takes the fan-out of a depth-wise kernel for that of all channels, the
    two depth-wise convolutions start small. ``authors_start=True`` starts all convolutions over the
    fan-out of a group, without biases, as the authors' code.

    Args:
        authors_start: start as the authors' code does, not by the backbone's scheme.
    """

    def __init__(self, channels: int, *, authors_start: AuthorsStart = False) -> None:
        super().__init__()
        self.authors_start = authors_start
        if channels < 2:
            raise InputError("lsk halves its channels, and needs 2 at least; take another width")
        half = channels // 2
        self.conv0 = DepthwiseConv2d(channels, 5)
        self.conv_spatial = DepthwiseConv2d(channels, 7, 3)
        self.conv1 = SmallMapConv2d(channels, half, 1)
        self.conv2 = SmallMapConv2d(channels, half, 1)
        self.conv_squeeze = nn.Conv2d(2, 2, 7, padding=3)
        self.conv = SmallMapConv2d(half, channels, 1)

    def init_weights(self) -> None:
        """Start as the authors' code does, where asked."""
        for part in self.children() if self.authors_start else ():
            assert isinstance(part, nn.Conv2d)
            start_by_fan_out_of_group(part)

    def forward(self, x: Tensor) -> Tensor:
        near = self.conv0(x)
        far = self.conv2(self.conv_spatial(near))
        near = self.conv1(near)
        both, (plane,) = axis_pool(torch.cat([near, far], 1), (1,), ("avg", "max"))
        choice = self.conv_squeeze(plane).sigmoid()  # (B, 2, H, W)
        halves = both.chunk(2, 1)
        return x * self.conv(halves[0] * choice[:, :1] + halves[1] * choice[:, 1:])
