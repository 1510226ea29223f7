"""An FFN mixer of one's own: each position takes a learned share of its 3x3 neighbours' mean.

blocklab check examples/my_ffn_mixer.py
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocklab import register_block


@register_block("neighbours", kind="ffn_mixer")
class Neighbours(nn.Module):
    """y = x + a * (mean of the 3x3 around x - x), a learned a channel each, from 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        around = F.avg_pool2d(x, 3, 1, padding=1, count_include_pad=False)
        return x + self.a * (around - x)
