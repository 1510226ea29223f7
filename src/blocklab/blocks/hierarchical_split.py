"""Hierarchical split. Gao, Cheng, Zhao, Zhang, Yang and Torr, TPAMI 2021, arXiv:1904.01169."""

from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from blocklab.blocks.activation import create_activation
from blocklab.blocks.folding import fold
from blocklab.blocks.option_types import Activation, Scale
from blocklab.blocks.registry import (
    AttentionChain,
    create_chain,
    parse_chain,
    register_block,
)
from blocklab.errors import InputError
from blocklab.kernels.small_map import SmallMapConv2d


def split_width(planes: int, base_width: int) -> int:
    """Channels of one group: base_width for 64 planes, in proportion for others, at least 1."""
    return max(1, planes * base_width // 64)


@register_block("hierarchical_split", kind="mixer")
class HierarchicalSplit(nn.Module):
    """Res2Net's module: (B, C_in, H, W) -> (B, scale * width, H/s, W/s).

    Channels are split into ``scale`` groups. y_1 = K_1(x_1), y_i = K_i(x_i + y_{i-1}), the last
    group passes; K_i is a 3x3 convolution, BatchNorm, activation. In a stage's first block the
    groups are not chained and the last one is averaged 3x3 at the stage's stride (section 3.1 and
    the authors' code). Parameters are named as the authors' (``convs``, ``bns``).

    Differs from the paper: an ``attention`` (shared by the groups) may follow each K_i, and
    ``inner_activation`` may replace the block's activation. In a basic block, where no 1x1
    convolution comes first, one is put in (``project``) if the input is of another width. Channels
    that do not divide by ``scale`` are refused; in a ResNet they do.

    Args:
        scale: groups of channels.
        base_width: channels of a group in a block of 64 planes, in proportion for others.
        attention: attentions after each group's convolution.
        inner_activation: after each group's convolution; none takes the block's.
    """

    has_norm_and_activation = True
    width_options: ClassVar[tuple[str, ...]] = ("base_width",)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        first_in_stage: bool,
        activation: str,
        *,
        scale: Scale = 4,
        base_width: PositiveInt = 26,
        attention: AttentionChain = [],  # noqa: B006 - read only
        inner_activation: Activation | None = None,
    ) -> None:
        super().__init__()
        if out_channels % scale:
            raise InputError(
                f"hierarchical_split's scale of {scale} does not divide {out_channels} channels; "
                "choose one that does"
            )
        self.width = out_channels // scale
        self.first_in_stage = first_in_stage
        inner = inner_activation or activation
        self.project: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.project = nn.Sequential(
                SmallMapConv2d(in_channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
                create_activation(inner, inplace=True),
            )
        self.convs = nn.ModuleList(
            SmallMapConv2d(self.width, self.width, 3, stride, 1, bias=False)
            for _ in range(scale - 1)
        )
        self.bns = nn.ModuleList(nn.BatchNorm2d(self.width) for _ in range(scale - 1))
        self.act = create_activation(inner)
        self.attention = create_chain(parse_chain(attention), self.width)
        pooled = first_in_stage or stride > 1
        self.pool = nn.AvgPool2d(3, stride, padding=1) if pooled else nn.Identity()

    @staticmethod
    def inner_width(planes: int, scale: int, base_width: int, **_: object) -> int:
        """Width of the block's inside: 26w x 4s is 104 channels for 64 planes."""
        return split_width(planes, base_width) * scale

    def fold_norms(self) -> None:
        """Fold each BatchNorm into the convolution before it; for evaluation alone."""
        for number in range(len(self.convs)):
            fold(self, f"convs.{number}", f"bns.{number}")
        if isinstance(self.project, nn.Sequential):
            fold(self, "project.0", "project.1")

    def forward(self, x: Tensor) -> Tensor:
        # A symbolic trace (torch.fx) does not know how many groups there are: they are numbered.
        groups = self.project(x).split(self.width, 1)
        outputs: list[Tensor] = []
        for number, (conv, bn) in enumerate(zip(self.convs, self.bns, strict=True)):
            group = groups[number]
            if outputs and not self.first_in_stage:
                group = group + outputs[-1]
            outputs.append(self.attention(self.act(bn(conv(group)))))
        return torch.cat([*outputs, self.pool(groups[len(outputs)])], 1)


@register_block("hierarchical_split", kind="ffn_mixer")
class HierarchicalSplitBottleneck(nn.Module):
    """A whole Res2Net bottleneck inside VAN's FFN: (B, C, H, W) -> (B, 4C, H, W).

    1x1 to scale * width channels, the hierarchical split, 1x1 to ``expansion`` * C, and a
    projection shortcut. Its groups are chained, y_i = K_i(x_i + y_{i-1}), and the last one passes:
    no block of a VAN shrinks its map, so none is a stage's first in Res2Net's sense; it takes that
    form where ``chained`` is false. Not of a paper: a change to VAN's FFN, whose depth-wise 3x3
    convolution it replaces.

    Args:
        scale: groups of channels.
        base_width: channels of a group where 64 enter, in proportion for others.
        expansion: how many times wider the map leaves.
        inner_activation: after each group's convolution and around it.
        chained: whether a group gets the output of the one before it.
    """

    def __init__(
        self,
        channels: int,
        *,
        scale: Scale = 4,
        base_width: PositiveInt = 16,
        expansion: PositiveInt = 4,
        inner_activation: Activation = "celu",
        chained: bool = True,
    ) -> None:
        super().__init__()
        width = split_width(channels, base_width) * scale
        self.out_channels = channels * expansion
        self.conv1 = SmallMapConv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.act = create_activation(inner_activation)
        self.conv2 = HierarchicalSplit(
            width, width, 1, not chained, inner_activation, scale=scale, base_width=base_width
        )
        self.conv3 = SmallMapConv2d(width, self.out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(self.out_channels)
        self.downsample = nn.Sequential(
            SmallMapConv2d(channels, self.out_channels, 1, bias=False),
            nn.BatchNorm2d(self.out_channels),
        )

    def fold_norms(self) -> None:
        """Fold each BatchNorm into the convolution before it; for evaluation alone."""
        fold(self, "conv1", "bn1")
        fold(self, "conv3", "bn3")
        fold(self, "downsample.0", "downsample.1")

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.act(self.bn1(self.conv1(x))))
        return self.act(self.bn3(self.conv3(out)) + self.downsample(x))
