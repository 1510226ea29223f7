"""Group normalisation that takes a group of one value too, and that of single channels."""

from typing import Any

import torch
from torch import Tensor, nn

from blocklab.kernels.recording import is_recorded


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm`, with its arguments; it gives a group of one value its bias.

    Such is a map of one position whose channels are normed by themselves; PyTorch's own refuses it
    where the batch is one such group.
    """

    def forward(self, input: Tensor) -> Tensor:
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


def channel_normal(x: Tensor, eps: float, weight: Tensor | None = None) -> Tensor:
    """(x - mean) / sqrt(variance + eps) of each channel's map, times its weight: same shape.

    In x's precision also where autocast would widen a norm: its sums are float32 in any case.
    """
    weight = None if weight is None else weight.type_as(x)
    if is_recorded(x):
        return torch.group_norm(x, x.shape[1], weight, eps=eps).type_as(x)
    with torch.autocast(x.device.type, enabled=False):
        return torch.group_norm(x, x.shape[1], weight, eps=eps)


def squared_deviation(x: Tensor, eps: float, factor: float, offset: float) -> Tensor:
    """factor * (x - mean)^2 / (variance + eps) + offset, of each channel's map: same shape.

    The variance is the sample's, sum (x - mean)^2 / (n - 1) over n positions, and 0 of one. What is
    squared has no unit: squares of x are beyond float16 where x is near 300.
    """
    positions = x.shape[2] * x.shape[3]
    if is_recorded(x):  # whose size may be free
        free: Any = torch.sym_max(positions - 1, 1)
        deviation = torch.std(x, (2, 3), correction=0, keepdim=True).float()
        scale = (deviation.square() * (positions / free) + eps).rsqrt()
        normal = (x - x.mean((2, 3), keepdim=True)) * scale.type_as(x)
        return normal.square() * factor + offset
    # The same: GroupNorm divides by the root of the variance over n, and is one operation.
    part = (positions - 1) / positions
    normal = channel_normal(x, eps * (part or 1))
    start = torch.full((), offset, dtype=x.dtype, device=x.device)
    return torch.addcmul(start, normal, normal, value=factor * part)
