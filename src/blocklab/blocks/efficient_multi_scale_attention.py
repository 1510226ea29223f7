"""EMA. Ouyang, He, Zhang, Luo, Guo, Zhan and Huang, ICASSP 2023, arXiv:2305.13563, section 2."""

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from blocklab.blocks.grouping import fitting_groups
from blocklab.blocks.registry import register_block
from blocklab.kernels.channel_groups import SharedConv2d, grouped, ungrouped
from blocklab.kernels.gates import crossed_gates, gated_product
from blocklab.kernels.group_norm import GroupNorm
from blocklab.kernels.pooling import mean_over


@register_block("ema")
class EfficientMultiScaleAttention(nn.Module):
    """Gate each position of a group of channels by two paths across it: (B, C, H, W) -> same.

    Channels are G groups g of C / G, which share all weights. One path gates g by its rows and
    columns, (r, c) = sigmoid(conv1x1([mean_w(g); mean_h(g)])), p = GN(g * r * c), each channel
    normed by itself; the other is q = conv3x3(g). Then
    y = g * sigmoid(softmax(mean_{hw}(p)) . q + softmax(mean_{hw}(q)) . p), products over channels.
    Parameters are named as the authors' (``conv1x1``, ``conv3x3``, ``gn``). Their ``factor`` is G,
    and 32; here G is the largest count up to it that divides the channels. The backbone
    initialises it. Differs from the paper: nothing; mean_{hw}(p) is written as what it is, since
    each channel of p is normed over its positions: the norm's bias.

    Args:
        factor: groups of channels, which share all weights.
    """

    def __init__(self, channels: int, *, factor: PositiveInt = 32) -> None:
        super().__init__()
        self.groups = fitting_groups(factor, channels)
        width = channels // self.groups
        self.gn = GroupNorm(width, width)
        self.conv1x1 = nn.Conv2d(width, width, 1)
        self.conv3x3 = SharedConv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        group = grouped(x, self.groups)  # (BG, C / G, H, W)
        rows = mean_over(group, 3)  # (BG, C / G, H, 1)
        columns = mean_over(group, 2).transpose(2, 3)  # (BG, C / G, W, 1)
        gates = self.conv1x1(torch.cat([rows, columns], dim=2)).sigmoid()
        rows, columns = gates.split([height, width], dim=2)
        p = self.gn(crossed_gates(group, rows, columns.transpose(2, 3)))
        q = self.conv3x3.of_groups(group, x)
        of_p = self.gn.bias.softmax(0).view(1, 1, -1).expand(q.shape[0], -1, -1)
        of_q = mean_over(q, 2, 3).flatten(1).softmax(1).unsqueeze(1)  # (BG, 1, C / G)
        scores = of_p.type_as(q) @ q.flatten(2) + of_q @ p.type_as(q).flatten(2)  # (BG, 1, HW)
        gate = scores.sigmoid().unflatten(2, (height, width))  # (BG, 1, H, W)
        return ungrouped(gated_product(group, [gate.type_as(x)]), self.groups, like=x)
