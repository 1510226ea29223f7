"""A token mixer of one's own: a depth-wise kernel as a row and a column, which doubles the width.

blocklab check examples/my_token_mixer.py
"""

import torch
from torch import Tensor, nn

from blocklab import register_block
from blocklab.blocks.option_types import OddInt


@register_block("row_and_column", kind="token_mixer")
class RowAndColumn(nn.Module):
    """(B, C, H, W) -> (B, 2 C, H, W): what lies beside each position, and what above and below."""

    def __init__(self, channels: int, *, kernel: OddInt = 7) -> None:
        super().__init__()
        self.out_channels = 2 * channels  # read by the network, which narrows it again
        half = kernel // 2
        self.row = nn.Conv2d(channels, channels, (1, kernel), padding=(0, half), groups=channels)
        self.column = nn.Conv2d(channels, channels, (kernel, 1), padding=(half, 0), groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.row(x), self.column(x)], 1)
