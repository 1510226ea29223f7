"""Shuffle Attention (SA-Net). Zhang and Yang, ICASSP 2021, arXiv:2102.00240, section 3."""

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from blocklab.blocks.grouping import fitting_groups, halved
from blocklab.blocks.registry import register_block
from blocklab.kernels.gates import gated_product
from blocklab.kernels.group_norm import GroupNorm, channel_normal
from blocklab.kernels.pooling import mean_over
from blocklab.kernels.shuffle import shuffled


@register_block("shuffle")
class ShuffleAttention(nn.Module):
    """Gate half of each group by its mean and half by its norm, then mix them: same shape.

    (B, C, H, W) -> same. Of each of G groups of C / G channels the first half is
    a * sigmoid(w1 mean_{hw}(a) + b1), the second b * sigmoid(w2 GN(b) + b2), each channel normed by
    itself; w and b are numbers a channel, which the groups share. Then channels are shuffled: those
    of the map's first half and of its second take turns. Parameters are named as the authors'
    (``cweight``, ``cbias``, ``sweight``, ``sbias``, ``gn``); as there w starts at 0 and b at 1.
    Differs from the paper: nothing; G is the largest count up to ``groups`` (the authors' 64) that
    splits the channels into groups with two halves.
    """

    def __init__(self, channels: int, *, groups: PositiveInt = 64) -> None:
        super().__init__()
        half = halved(channels, "shuffle")
        self.groups = fitting_groups(groups, half)
        width = half // self.groups
        self.cweight = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.cbias = nn.Parameter(torch.ones(1, width, 1, 1))
        self.sweight = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.sbias = nn.Parameter(torch.ones(1, width, 1, 1))
        self.gn = GroupNorm(width, width)

    def forward(self, x: Tensor) -> Tensor:
        groups, width = self.groups, self.cweight.shape[1]
        means = mean_over(x, 2, 3).unflatten(1, (groups, 2, width))[:, :, 0]
        channel = torch.addcmul(self.cbias, self.cweight, means)  # (B, G, C / 2G, 1, 1)
        slope = self.sweight.flatten() * self.gn.weight
        shift = torch.addcmul(self.sbias.flatten(), self.sweight.flatten(), self.gn.bias)
        # One norm of the whole map, of which the first halves' channels take nothing.
        scale = torch.cat([torch.zeros_like(slope), slope]).repeat(groups)
        spatial = shift.view(1, 1, width, 1, 1).expand(means.shape)
        offset = torch.cat([channel, spatial], 2).flatten(1, 2)  # (B, C, 1, 1)
        scores = channel_normal(x, self.gn.eps, scale) + offset.type_as(x)
        return shuffled(gated_product(x, [scores.sigmoid()]), 2)
