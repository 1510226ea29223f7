"""Triplet Attention. Misra, Nalamada, Arasanipalai and Hou, WACV 2021, arXiv:2010.03045."""

from typing import Annotated, Literal

import torch
from pydantic import AfterValidator
from torch import Tensor, nn

from blocklab.blocks.activation import Activation, create_activation
from blocklab.blocks.coordinate_attention import CoordinateAttention
from blocklab.blocks.large_kernel_attention import LargeKernelAttention, OddInt, depthwise
from blocklab.blocks.registry import register_block
from blocklab.errors import InputError

Statistic = Literal["max", "avg", "median", "l1", "l2"]


def _check_statistics(statistics: tuple[Statistic, ...]) -> tuple[Statistic, ...]:
    if not statistics or len(set(statistics)) != len(statistics):
        raise InputError(
            "statistics must be one or more different ones of max, avg, median, l1, l2"
        )
    return statistics


Statistics = Annotated[tuple[Statistic, ...], AfterValidator(_check_statistics)]


def pool(x: Tensor, dim: int, statistics: tuple[Statistic, ...]) -> Tensor:
    """Z-pool: reduce one axis to its statistics, stacked as channels.

    (B, C, H, W) and ``dim`` 1, 2 or 3 -> (B, statistics, the two other axes in their order). The
    order of ``median`` is PyTorch's: the lower of the two middle values.
    """
    pooled = []
    for statistic in statistics:
        if statistic == "max":
            pooled.append(x.max(dim).values)  # amax's backward pass is several times slower
        elif statistic == "avg":
            pooled.append(x.mean(dim))
        elif statistic == "median":
            pooled.append(x.median(dim).values)
        else:
            pooled.append(torch.linalg.vector_norm(x, 1 if statistic == "l1" else 2, dim))
    return torch.stack(pooled, 1)


class _Convolution(nn.Module):
    """k x k convolution to one channel, perhaps an activation, BatchNorm."""

    def __init__(self, statistics: int, kernel: int, inner_activation: str | None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(statistics, 1, kernel, padding=kernel // 2, bias=False)
        self.act = create_activation(inner_activation) if inner_activation else nn.Identity()
        self.bn = nn.BatchNorm2d(1, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.act(self.conv(x)))


class _PoolBranch(nn.Module):
    """The scores of one pooled plane; the parent makes gates of them."""

    def __init__(self, statistics: int, kernel: int, inner_activation: str | None) -> None:
        super().__init__()
        self.conv = _Convolution(statistics, kernel, inner_activation)

    def forward(self, pooled: Tensor) -> Tensor:
        return self.conv(pooled)


class _LargeKernelBranch(nn.Module):
    """1x1 to one channel, 5x5 and 7x7 dilated by 3, BatchNorm: the scores of TripletLKN."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, 1, 1)
        self.conv0 = depthwise(1, 5)
        self.conv_spatial = depthwise(1, 7, dilation=3)
        self.bn = nn.BatchNorm2d(1, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv_spatial(self.conv0(self.reduce(x))))


@register_block("triplet")
class TripletAttention(nn.Module):
    """Gate each value by three planes that cross at it: (B, C, H, W) -> same.

    One axis at a time is pooled to its statistics (Z-pool), a 7x7 convolution and BatchNorm make
    a score of each point of the remaining plane, and a gate function a gate; y = x * (the mean of
    the three gates). Branches: ``cw`` (pooled over H), ``hc`` (over W), ``hw`` (over C); names and
    orientation of the kernels are the authors'. No permuted copy of x is made: the gate of a plane
    is broadcast along the axis that was pooled. BatchNorm's momentum is the authors' 0.01.

    Options beyond the paper: the ``statistics``; ``inner_activation`` between convolution and
    BatchNorm; the ``gate`` function (softmax runs over all points of the plane, whose gates then
    sum to 1); and ``spatial``, what stands in the H x W branch: ``zpool`` (the paper's),
    ``coordinate`` (Coordinate Attention with reduction 16), ``large_kernel`` (1x1 to one channel,
    5x5, 7x7 dilated by 3, BatchNorm, gate) or ``full_large_kernel`` (Large Kernel Attention of all
    channels, which gates without BatchNorm or gate function).
    """

    def __init__(
        self,
        channels: int,
        *,
        statistics: Statistics = ("max", "avg"),
        kernel: OddInt = 7,
        inner_activation: Activation | None = None,
        gate: Literal["sigmoid", "tanh", "softmax"] = "sigmoid",
        spatial: Literal["zpool", "coordinate", "large_kernel", "full_large_kernel"] = "zpool",
    ) -> None:
        super().__init__()
        self.statistics = tuple(statistics)
        self.gate = gate
        self.spatial = spatial
        count = len(self.statistics)
        self.cw = _PoolBranch(count, kernel, inner_activation)
        self.hc = _PoolBranch(count, kernel, inner_activation)
        if spatial == "zpool":
            self.hw: nn.Module = _PoolBranch(count, kernel, inner_activation)
        elif spatial == "coordinate":
            self.hw = CoordinateAttention(channels, reduction=16)
        elif spatial == "large_kernel":
            self.hw = _LargeKernelBranch(channels)
        else:
            self.hw = LargeKernelAttention(channels)

    def _gate(self, scores: Tensor) -> Tensor:
        if self.gate == "sigmoid":
            return scores.sigmoid()
        if self.gate == "tanh":
            return scores.tanh()
        return scores.flatten(1).softmax(1).view_as(scores)

    def forward(self, x: Tensor) -> Tensor:
        over_height = pool(x, 2, self.statistics)  # (B, S, C, W)
        over_width = pool(x, 3, self.statistics).transpose(2, 3)  # (B, S, H, C)
        cw = self._gate(self.cw(over_height)).transpose(1, 2)  # (B, C, 1, W)
        hc = self._gate(self.hc(over_width)).permute(0, 3, 2, 1)  # (B, C, H, 1)
        if self.spatial == "full_large_kernel":
            return (x * (cw + hc) + self.hw(x)) / 3
        if isinstance(self.hw, CoordinateAttention):
            row_gate, column_gate = self.hw.gates(x)
            hw = row_gate * column_gate  # (B, C, H, W)
        else:
            scores = self.hw(pool(x, 1, self.statistics) if self.spatial == "zpool" else x)
            hw = self._gate(scores)  # (B, 1, H, W)
        return x * ((cw + hc + hw) / 3)
