"""Spatial and Channel Synergistic Attention. Si et al., Neurocomputing 2025, arXiv:2407.05128."""

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from blocklab.blocks.grouping import fitting_groups
from blocklab.blocks.option_types import OddInt
from blocklab.blocks.registry import register_block
from blocklab.errors import InputError
from blocklab.kernels.depthwise import DepthwiseConv2d
from blocklab.kernels.gates import crossed_gates, gated_product
from blocklab.kernels.pooling import mean_over, window_means

_GROUPS = 4


@register_block("scsa")
class SpatialChannelSynergy(nn.Module):
    """Gate rows and columns at four scales, then channels by attention: (B, C, H, W) -> same.

    Spatial (section 3.2): the means of rows and of columns, in four groups of channels, each
    convolved along its axis by a depth-wise kernel of its own size, shared by rows and columns;
    x' = x * sigmoid(GN_h(rows)) * sigmoid(GN_w(columns)). Channels (section 3.3): x' is averaged in
    windows and normed over all; with q, k, v, each a factor a channel, and channels split into
    heads, y = x' * sigmoid(mean_{hw}(softmax(q k^T / sqrt(C / heads)) v)). Parameters are named as
    the authors' (``local_dwc``, ``global_dwc_s/m/l``, ``norm_h``, ``norm_w``, ``norm``, ``q``,
    ``k``, ``v``).

    Differs from the paper: nothing; the mean over positions is taken of v, before the product with
    the weights, which is equal. In a ResNet an attention here follows the last BatchNorm; the
    authors' stands before the last convolution, in a bottleneck on a quarter of the channels.
    ``heads`` is cut to the largest count that divides the channels,
    a window to the map.

    Args:
        heads: into which channels are split where they attend to one another.
        window: side of the windows that are averaged before that.
        kernels: lengths of the four groups' convolutions, odd.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: PositiveInt = 8,
        window: PositiveInt = 7,
        kernels: tuple[OddInt, OddInt, OddInt, OddInt] = (3, 5, 7, 9),
    ) -> None:
        super().__init__()
        if channels % _GROUPS:
            raise InputError(
                f"scsa splits channels into {_GROUPS} groups, and {channels} do not divide by it; "
                "take another width"
            )
        width = channels // _GROUPS
        self.heads = fitting_groups(heads, channels)
        self.scale = (channels // self.heads) ** -0.5
        self.window = window
        self.local_dwc, self.global_dwc_s, self.global_dwc_m, self.global_dwc_l = (
            nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width) for kernel in kernels
        )
        self.norm_h = nn.GroupNorm(_GROUPS, channels)
        self.norm_w = nn.GroupNorm(_GROUPS, channels)
        self.norm = nn.GroupNorm(1, channels)
        self.q = DepthwiseConv2d(channels, 1, bias=False)
        self.k = DepthwiseConv2d(channels, 1, bias=False)
        self.v = DepthwiseConv2d(channels, 1, bias=False)

    def _scales(self, means: Tensor) -> Tensor:
        """Convolve each group of (B, C, L) along L."""
        groups = means.chunk(_GROUPS, 1)
        convolutions = (self.local_dwc, self.global_dwc_s, self.global_dwc_m, self.global_dwc_l)
        return torch.cat([conv(groups[i]) for i, conv in enumerate(convolutions)], 1)

    def spatial_gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gate of the rows, (B, C, H, 1), and of the columns, (B, C, 1, W)."""
        rows = self.norm_h(self._scales(mean_over(x, 3).squeeze(3)))  # (B, C, H)
        columns = self.norm_w(self._scales(mean_over(x, 2).squeeze(2)))  # (B, C, W)
        return rows.sigmoid().unsqueeze(3), columns.sigmoid().unsqueeze(2)

    def channel_gate(self, x: Tensor) -> Tensor:
        """Return the gate of the channels, (B, C, 1, 1)."""
        windows = self.norm(window_means(x, self.window))
        queries, keys, values = (
            factor(windows).flatten(2).unflatten(1, (self.heads, -1))  # (B, heads, C / heads, N)
            for factor in (self.q, self.k, self.v)
        )
        weights = (queries @ keys.transpose(2, 3) * self.scale).softmax(3)
        means = weights @ values.mean(3, keepdim=True)  # (B, heads, C / heads, 1)
        return means.sigmoid().flatten(1, 2).unsqueeze(3)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.spatial_gates(x)
        x = crossed_gates(x, rows, columns)
        return gated_product(x, [self.channel_gate(x)])
