"""Shuffle Attention (SA-Net). Zhang and Yang, ICASSP 2021, arXiv:2102.00240, section 3."""

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from blocklab.blocks.grouping import fitting_groups, halved
from blocklab.blocks.registry import register_block
from blocklab.kernels.channel_groups import grouped, shuffled
from blocklab.kernels.gates import gated_product
from blocklab.kernels.group_norm import GroupNorm
from blocklab.kernels.pooling import mean_over


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

    Args:
        groups: of channels, which share their numbers.
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
        one, two = grouped(x, self.groups).chunk(2, 1)  # (BG, C / 2G, H, W) each
        channel = (self.cweight * mean_over(one, 2, 3) + self.cbias).sigmoid()
        spatial = self.gn.scaled(two, self.sweight, self.sbias).sigmoid()
        gated = [gated_product(one, [channel]), gated_product(two, [spatial])]
        whole = torch.cat(gated, 1).unflatten(0, (-1, self.groups)).flatten(1, 2)
        return shuffled(whole.type_as(x), 2, like=x)
