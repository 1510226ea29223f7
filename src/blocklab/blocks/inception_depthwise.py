"""Inception depth-wise convolution. Yu, Zhou, Yan and Wang, CVPR 2024, arXiv:2303.16900."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from blocklab.blocks.option_types import OddInt
from blocklab.blocks.registry import register_block
from blocklab.errors import InputError
from blocklab.kernels.depthwise import DepthwiseConv2d


@register_block("inception_depthwise", kind="token_mixer")
class InceptionDepthwise(nn.Module):
    """A square kernel, two bands and the identity side by side: (B, C, H, W) -> same.

    Section 3.2: channels are split into C - 3g, g, g and g with g = C * ratio (at least 1); the
    first are left as they are, the others convolved depth-wise by k x k, 1 x b and b x 1, and all
    are joined in this order. Parameters are named as the authors' and timm's (``dwconv_hw``,
    ``dwconv_w``, ``dwconv_h``). Differs from the paper: nothing.

    Args:
        kernel: side of the square kernel, odd.
        band: length of the two bands, odd.
        ratio: part of the channels in each of the three groups that are convolved.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel: OddInt = 3,
        band: OddInt = 11,
        ratio: Annotated[float, Field(gt=0, le=1 / 3)] = 0.125,
    ) -> None:
        super().__init__()
        group = max(1, int(channels * ratio))
        if channels < 3 * group:
            raise InputError(
                f"inception_depthwise needs a channel for each of its three kernels, not {channels}"
            )
        self.dwconv_hw = DepthwiseConv2d(group, kernel)
        self.dwconv_w = DepthwiseConv2d(group, (1, band))
        self.dwconv_h = DepthwiseConv2d(group, (band, 1))
        self.split = [channels - 3 * group, group, group, group]

    def forward(self, x: Tensor) -> Tensor:
        kept, square, wide, high = x.split(self.split, dim=1)
        parts = [kept, self.dwconv_hw(square), self.dwconv_w(wide), self.dwconv_h(high)]
        return torch.cat(parts, dim=1)
