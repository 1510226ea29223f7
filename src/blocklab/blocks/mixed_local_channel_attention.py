"""Mixed Local Channel Attention. Wan et al., Engineering Applications of AI 123, 2023, 106442."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from blocklab.blocks.registry import register_block
from blocklab.kernels.gates import gated_product


@register_block("mlca")
class MixedLocalChannelAttention(nn.Module):
    """Gate each channel by its neighbours, in cells of the map and as a whole: same shape.

    L are the means of x in ``local_size`` x ``local_size`` cells, G the mean of those. Both pass a
    1-D convolution over channels, the cells' channels end to end, and a sigmoid; their mixture,
    w * sigmoid(L) + (1 - w) * sigmoid(G) with w = ``local_weight``, is brought back to the map's
    size as pooling would, and gates x (section 3.1). The kernel is ECA's: the odd number at or
    above floor((log2(C) + 1) / 2). Parameters are named as the authors' (``conv``, ``conv_local``).
    Differs from the paper: nothing; of a map smaller than the cells a pixel stands in several.

    Args:
        local_size: cells a side.
        local_weight: share of the whole map's gate, the paper's w; the cells' has the rest.
    """

    def __init__(
        self,
        channels: int,
        *,
        local_size: Annotated[int, Field(ge=1, le=64)] = 5,
        local_weight: Annotated[float, Field(gt=0, lt=1)] = 0.5,
    ) -> None:
        super().__init__()
        kernel = int((math.log2(channels) + 1) / 2) // 2 * 2 + 1
        self.local_size, self.local_weight = local_size, local_weight
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)
        self.conv_local = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        size = self.local_size
        cells = F.adaptive_avg_pool2d(x, size)  # (B, C, S, S)
        line = cells.flatten(2).transpose(1, 2).flatten(1).unsqueeze(1)  # (B, 1, S * S * C)
        local = self.conv_local(line).squeeze(1).unflatten(1, (size, size, -1)).sigmoid()
        whole = self.conv(cells.mean((2, 3)).unsqueeze(1)).sigmoid().unsqueeze(2)  # (B, 1, 1, C)
        gate = torch.lerp(whole, local, self.local_weight).permute(0, 3, 1, 2)
        return gated_product(x, [F.adaptive_avg_pool2d(gate, (x.shape[2], x.shape[3]))])
