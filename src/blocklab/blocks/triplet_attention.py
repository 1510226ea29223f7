"""Triplet Attention. Misra, Nalamada, Arasanipalai and Hou, WACV 2021, arXiv:2010.03045."""

from typing import Annotated, Literal

import torch
from pydantic import AfterValidator
from torch import Tensor, nn

from blocklab.blocks.activation import check_activation, create_activation
from blocklab.blocks.authors_start import AuthorsStart, start_at_zero
from blocklab.blocks.coordinate_attention import CoordinateAttention
from blocklab.blocks.folding import fold, part_obstacle
from blocklab.blocks.large_kernel_attention import LargeKernelAttention
from blocklab.blocks.obstacles import keep
from blocklab.blocks.option_types import OddInt
from blocklab.blocks.registry import register_block
from blocklab.errors import InputError
from blocklab.kernels.depthwise import DepthwiseConv2d
from blocklab.kernels.gates import gated_product
from blocklab.kernels.plane_convolution import PlaneConv2d
from blocklab.kernels.pooling import Statistic, axis_pool, unpooled


def _check_statistics(statistics: tuple[Statistic, ...]) -> tuple[Statistic, ...]:
    if not statistics or len(set(statistics)) != len(statistics):
        raise InputError(
            "statistics must be one or more different ones of max, avg, median, l1, l2"
        )
    return statistics


Statistics = Annotated[tuple[Statistic, ...], AfterValidator(_check_statistics)]

AFTER_NORM = "_after_norm"


def _check_inner_activation(name: str) -> str:
    check_activation(name.removesuffix(AFTER_NORM))
    return name


# An activation's name; with the ending it follows BatchNorm instead of the convolution.
InnerActivation = Annotated[str, AfterValidator(_check_inner_activation)]


def check_batch(x: Tensor) -> None:
    """Refuse a batch of one, whose softmax over the batch is 1 everywhere.

    Raises:
        InputError: if it is one.
    """
    if x.shape[0] == 1:
        raise InputError(
            "a softmax over the batch makes every gate of a batch of one 1; give two images or "
            "more, with a batch size that leaves no single last image"
        )


torch.fx.wrap("check_batch")  # a symbolic trace calls it and does not look inside


class _Convolution(nn.Module):
    """k x k convolution of a plane to one channel, perhaps an activation, BatchNorm."""

    def __init__(
        self, statistics: int, kernel: int, inner_activation: str | None, swapped: bool
    ) -> None:
        super().__init__()
        self.conv = PlaneConv2d(statistics, kernel, swapped)
        self.act = create_activation(inner_activation) if inner_activation else nn.Identity()
        self.bn = nn.BatchNorm2d(1, momentum=0.01)

    def fold_norms(self) -> None:
        """Fold BatchNorm into the convolution, unless an activation stands between them."""
        if why := part_obstacle(self, "act", nn.Identity):
            keep(self.bn, why)
        else:
            fold(self, "conv", "bn")

    def forward(self, plane: Tensor) -> Tensor:
        return self.bn(self.act(self.conv(plane)))


class _PoolBranch(nn.Module):
    """The scores of a pooled plane, which the parent makes gates: (B, S, P, Q) -> (B, 1, P, Q).

    A plane may come with its axes `swapped` against the authors' kernel.
    """

    def __init__(
        self, statistics: int, kernel: int, inner_activation: str | None, swapped: bool = False
    ) -> None:
        super().__init__()
        before, after = inner_activation, "identity"
        if before is not None and before.endswith(AFTER_NORM):
            before, after = None, before.removesuffix(AFTER_NORM)
        self.conv = _Convolution(statistics, kernel, before, swapped)
        self.act = create_activation(after)

    def forward(self, plane: Tensor) -> Tensor:
        return self.act(self.conv(plane))


class _LargeKernelBranch(nn.Module):
    """1x1 to one channel, 5x5 and 7x7 dilated by 3, BatchNorm: the scores of TripletLKN."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, 1, 1)
        self.conv0 = DepthwiseConv2d(1, 5)
        self.conv_spatial = DepthwiseConv2d(1, 7, dilation=3)
        self.bn = nn.BatchNorm2d(1, momentum=0.01)

    def fold_norms(self) -> None:
        """Fold each BatchNorm into the convolution before it; for evaluation alone."""
        fold(self, "conv_spatial", "bn")

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv_spatial(self.conv0(self.reduce(x))))


@register_block("triplet")
class TripletAttention(nn.Module):
    """Gate each value by three planes that cross at it: (B, C, H, W) -> same.

    One axis at a time is pooled to its statistics (Z-pool), a 7x7 convolution and BatchNorm make
    a score of each point of the remaining plane, and a gate function a gate; y = x * (the mean of
    the three gates). Branches: ``cw`` (pooled over H), ``hc`` (over W), ``hw`` (over C); names and
    orientation of the kernels are the authors'. No permuted copy of x is made: the gate of a plane
    is broadcast along the axis that was pooled. BatchNorm's momentum is the authors' 0.01. It
    starts at 1 and 0, as norms do; the authors' ResNet starts that of ``hw`` at 0 and 0, so that
    its gate is a half to begin with: ``authors_start=True``.

    Options beyond the paper: the ``statistics``; ``inner_activation`` between convolution and
    BatchNorm, or after BatchNorm where its name ends so (``celu_after_norm``); the ``gate``
    function (softmax runs over all points of the plane, whose gates then sum to 1); and
    ``spatial``, what stands in the H x W branch: ``zpool`` (the paper's), ``coordinate``
    (Coordinate Attention with reduction 16), ``large_kernel`` (1x1 to one channel, 5x5, 7x7 dilated
    by 3, BatchNorm, gate) or ``full_large_kernel`` (Large Kernel Attention of all channels, which
    gates without BatchNorm or gate function).

    The gate ``softmax_over_batch`` is a softmax at each point of the plane over the images of the
    batch: what one image gets depends on the others, in evaluation too, and a batch of one is
    refused, as its gates would all be 1.

    Args:
        statistics: what each axis is pooled to, one plane a statistic.
        kernel: side of each branch's convolution, odd.
        inner_activation: within a branch; none has none.
        gate: what makes a score a gate.
        spatial: what stands in the branch of height and width.
        authors_start: start as the authors' code does, not by the backbone's scheme; of a branch
            of height and width that is the paper's.
    """

    def __init__(
        self,
        channels: int,
        *,
        statistics: Statistics = ("max", "avg"),
        kernel: OddInt = 7,
        inner_activation: InnerActivation | None = None,
        gate: Literal["sigmoid", "tanh", "softmax", "softmax_over_batch"] = "sigmoid",
        spatial: Literal["zpool", "coordinate", "large_kernel", "full_large_kernel"] = "zpool",
        authors_start: AuthorsStart = False,
    ) -> None:
        super().__init__()
        if authors_start and spatial != "zpool":
            raise InputError(
                f"authors_start is of the paper's branches, and spatial is {spatial}; leave one out"
            )
        self.authors_start = authors_start
        self.statistics = tuple(statistics)
        self.gate = gate
        self.mixes_samples = "softmax over the batch" if gate == "softmax_over_batch" else ""
        self.spatial = spatial
        count = len(self.statistics)
        self.cw = _PoolBranch(count, kernel, inner_activation, swapped=True)
        self.hc = _PoolBranch(count, kernel, inner_activation)
        if spatial == "zpool":
            self.hw: nn.Module = _PoolBranch(count, kernel, inner_activation)
        elif spatial == "coordinate":
            self.hw = CoordinateAttention(channels, reduction=16)
        elif spatial == "large_kernel":
            self.hw = _LargeKernelBranch(channels)
        else:
            self.hw = LargeKernelAttention(channels)

    def init_weights(self) -> None:
        """Start as the authors' code does, where asked."""
        if self.authors_start and isinstance(self.hw, _PoolBranch):
            start_at_zero(self.hw.conv.bn)

    def _gate(self, scores: Tensor) -> Tensor:
        if self.gate == "sigmoid":
            return scores.sigmoid()
        if self.gate == "tanh":
            return scores.tanh()
        if self.gate == "softmax_over_batch":
            return scores.softmax(0)
        return scores.flatten(1).softmax(1).view_as(scores)

    def forward(self, x: Tensor) -> Tensor:
        if self.mixes_samples:
            check_batch(x)
        axes = (2, 3, 1) if self.spatial == "zpool" else (2, 3)
        x, (cw, hc, *hw) = axis_pool(x, axes, self.statistics)
        gates = [
            unpooled(self._gate(self.cw(cw)), 2),  # (B, C, 1, W)
            unpooled(self._gate(self.hc(hc)), 3),  # (B, C, H, 1)
        ]
        if isinstance(self.hw, CoordinateAttention):
            row_gate, column_gate = self.hw.gates(x)
            gates.append(row_gate * column_gate)  # (B, C, H, W)
        elif self.spatial != "full_large_kernel":
            gates.append(self._gate(self.hw(hw[0] if hw else x)))  # (B, 1, H, W)
        # Three branches, also where two of them gate; gates of norms of float16 maps are float32.
        y = gated_product(x, gates, divisor=3).type_as(x)
        return y + self.hw(x) / 3 if self.spatial == "full_large_kernel" else y
