"""ELA. Xu and Wan, 2024, arXiv:2403.01123, section 3."""

from pydantic import PositiveInt
from torch import Tensor, nn

from blocklab.blocks.grouping import fitting_groups
from blocklab.blocks.option_types import OddInt
from blocklab.blocks.registry import register_block
from blocklab.kernels.gates import crossed_gates
from blocklab.kernels.group_norm import GroupNorm
from blocklab.kernels.pooling import mean_over


@register_block("ela")
class EfficientLocalAttention(nn.Module):
    """Gate each position by its row and its column, each seen with those beside it: same shape.

    (B, C, H, W) -> same: y = x * sigmoid(GN(F(mean_w(x)))) * sigmoid(GN(F(mean_h(x)))), F a 1-d
    convolution without bias along the rows, or the columns, with the same weights, as is GN's.
    The paper has no release; parameters are named ``conv`` and ``gn``, after its listing. F starts
    as PyTorch starts a `nn.Conv1d`. The defaults are the paper's ELA-B; with ``kernel`` 5 and 32
    ``norm_groups`` ELA-T, with ``group_width`` 8 (of F's groups) and ``kernel`` 5 ELA-S, 7 ELA-L.
    Differs from the paper: nothing; ``norm_groups`` and ``group_width`` are the largest up to what
    is asked for that divide the channels.

    Args:
        kernel: length of the convolution along rows and columns, odd.
        group_width: channels of one group of that convolution; 1 is depth-wise.
        norm_groups: groups of the norm behind it.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel: OddInt = 7,
        group_width: PositiveInt = 1,
        norm_groups: PositiveInt = 16,
    ) -> None:
        super().__init__()
        groups = channels // fitting_groups(group_width, channels)
        self.conv = nn.Conv1d(
            channels, channels, kernel, padding=kernel // 2, groups=groups, bias=False
        )
        self.gn = GroupNorm(fitting_groups(norm_groups, channels), channels)

    def gate(self, line: Tensor) -> Tensor:
        """The gate of a row's or a column's means: (B, C, L) -> same."""
        return self.gn(self.conv(line)).sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        rows = self.gate(mean_over(x, 3).squeeze(3)).unsqueeze(3)  # (B, C, H, 1)
        columns = self.gate(mean_over(x, 2).squeeze(2)).unsqueeze(2)  # (B, C, 1, W)
        return crossed_gates(x, rows.type_as(x), columns.type_as(x))
