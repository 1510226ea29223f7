"""Partial convolution. Chen, Kao, He, Zhuo, Wen, Lee and Chan, CVPR 2023, arXiv:2303.03667."""

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from blocklab.blocks.registry import register_block
from blocklab.kernels.small_map import SmallMapConv2d


@register_block("partial", kind="mixer")
class PartialConv3x3(nn.Module):
    """A 3x3 convolution of the first channels: (B, C_in, H, W) -> (B, C, H/s, W/s).

    The first max(1, C // divisor) channels are convolved among themselves, the others pass
    (section 3.2). Parameters are named as the authors' (``partial_conv3``). BatchNorm and
    activation are the block's. Differs from the paper, which has no strides and keeps its channels:
    at a stride the others are averaged 3x3, as Res2Net's last group is, and where C_in is not C, as
    in a basic block, a 1x1 convolution (``project``) comes first.

    Args:
        divisor: one in so many channels is convolved.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, *, divisor: PositiveInt = 4
    ) -> None:
        super().__init__()
        width = max(1, out_channels // divisor)
        self.widths = [width, out_channels - width]
        self.project: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.project = SmallMapConv2d(in_channels, out_channels, 1, bias=False)
        self.partial_conv3 = SmallMapConv2d(width, width, 3, stride, padding=1, bias=False)
        self.pool = nn.AvgPool2d(3, stride, padding=1) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)
        if not self.widths[1]:
            return self.partial_conv3(x)
        parts = x.split(self.widths, 1)
        return torch.cat([self.partial_conv3(parts[0]), self.pool(parts[1])], 1)
