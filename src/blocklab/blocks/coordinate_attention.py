"""Coordinate Attention. Hou, Zhou and Feng, CVPR 2021, arXiv:2103.02907, section 3.2."""

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from blocklab.blocks.folding import fold
from blocklab.blocks.gate_bias import GateBias, open_gates
from blocklab.blocks.registry import register_block
from blocklab.kernels.gates import crossed_gates
from blocklab.kernels.pooling import mean_over


@register_block("coordinate")
class CoordinateAttention(nn.Module):
    """Gate each position by its row's and its column's mean: (B, C, H, W) -> same.

    f = h_swish(BN(W1 [mean_w(x); mean_h(x)])) over H + W positions and max(8, C // reduction)
    channels; y = x * sigmoid(W_h f_h) * sigmoid(W_w f_w). Parameters are named as the authors'
    (``conv1``, ``bn1``, ``conv_h``, ``conv_w``). Differs from the paper: nothing (the minimum of 8
    channels is the authors' code's).

    Both gates begin at about a half, so that a quarter of x is left of every block, which slows the
    start of a short training. ``gate_bias`` sets the biases of ``conv_h`` and ``conv_w`` to begin
    with: at 4 each gate begins at 0.98. It is none of the paper's.

    Args:
        reduction: both gates are made from max(8, C // reduction) channels.
        gate_bias: of both gates, to begin with; none leaves the backbone's start.
    """

    def __init__(
        self, channels: int, *, reduction: PositiveInt = 32, gate_bias: GateBias = None
    ) -> None:
        super().__init__()
        self.gate_bias = gate_bias
        hidden = max(8, channels // reduction)
        self.conv1 = nn.Conv2d(channels, hidden, 1)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.act = nn.Hardswish()
        self.conv_h = nn.Conv2d(hidden, channels, 1)
        self.conv_w = nn.Conv2d(hidden, channels, 1)
        self.init_weights()

    def init_weights(self) -> None:
        """Open the gates where asked."""
        open_gates(self.gate_bias, self.conv_h, self.conv_w)

    def gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gate of the rows, (B, C, H, 1), and of the columns, (B, C, 1, W)."""
        height, width = x.shape[2:]
        rows = mean_over(x, 3)  # (B, C, H, 1)
        columns = mean_over(x, 2).transpose(2, 3)  # (B, C, W, 1)
        features = self.act(self.bn1(self.conv1(torch.cat([rows, columns], dim=2))))
        rows, columns = features.split([height, width], dim=2)
        return self.conv_h(rows).sigmoid(), self.conv_w(columns.transpose(2, 3)).sigmoid()

    def fold_norms(self) -> None:
        """Fold each BatchNorm into the convolution before it; for evaluation alone."""
        fold(self, "conv1", "bn1")

    def forward(self, x: Tensor) -> Tensor:
        row_gate, column_gate = self.gates(x)
        return crossed_gates(x, row_gate, column_gate)
