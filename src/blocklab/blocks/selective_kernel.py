"""Selective Kernel. Li, Wang, Hu and Yang, CVPR 2019, arXiv:1903.06586, section 3.1."""

from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from blocklab.blocks.activation import create_activation
from blocklab.blocks.folding import fold
from blocklab.blocks.grouping import fitting_groups
from blocklab.blocks.registry import register_block
from blocklab.errors import InputError
from blocklab.kernels.depthwise import DepthwiseConv2d
from blocklab.kernels.pooling import mean_over
from blocklab.kernels.small_map import SmallMapConv2d
from blocklab.kernels.strided import StridedConv2d


class _ConvNormAct(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, stride: int, dilation: int, groups: int, act: str
    ) -> None:
        super().__init__()
        if stride == 1 and groups == in_channels == out_channels:
            # Not only faster: in bf16 and channels_last, oneDNN gives the weights of 16 dilated
            # depth-wise kernels gradients that are not numbers (seen with PyTorch 2.14).
            self.conv: nn.Conv2d = DepthwiseConv2d(out_channels, 3, dilation, bias=False)
        else:
            self.conv = StridedConv2d(
                in_channels, out_channels, 3, stride, dilation, dilation, groups, bias=False
            )
        self.bn = nn.BatchNorm2d(out_channels)
        self.act = create_activation(act, inplace=True)

    def fold_norms(self) -> None:
        """Fold each BatchNorm into the convolution before it; for evaluation alone."""
        fold(self, "conv", "bn")

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class _Select(nn.Module):
    """Softmax over the branches, a channel at a time: (B, M, C, H, W) -> (B, M, C, 1, 1)."""

    def __init__(self, channels: int, branches: int, hidden: int) -> None:
        super().__init__()
        self.branches = branches
        self.fc_reduce = SmallMapConv2d(channels, hidden, 1, bias=False)
        self.bn = nn.BatchNorm2d(hidden)
        self.act = nn.ReLU(inplace=True)
        self.fc_select = SmallMapConv2d(hidden, channels * branches, 1, bias=False)

    def fold_norms(self) -> None:
        """Fold each BatchNorm into the convolution before it; for evaluation alone."""
        fold(self, "fc_reduce", "bn")

    def forward(self, mean: Tensor) -> Tensor:
        scores = self.fc_select(self.act(self.bn(self.fc_reduce(mean))))  # (B, MC, 1, 1)
        return scores.unflatten(1, (self.branches, -1)).softmax(1)


@register_block("selective_kernel", kind="mixer")
class SelectiveKernel(nn.Module):
    """Two kernel sizes, mixed by what the image says: (B, C_in, H, W) -> (B, C, H/s, W/s).

    A 3x3 branch and a 3x3 branch dilated by 2 (standing for 5x5), each with BatchNorm and
    activation; their sum is averaged over positions, reduced to max(C // reduction, min_hidden),
    and a softmax over the branches weighs each channel. Parameters are named as timm's. Differs
    from the paper: nothing; ``groups`` is the paper's 32, cut to the largest count that divides
    the channels; ``split_input=True`` gives each branch half the input channels, as timm's SKNets
    do. Brings its own BatchNorm and activation.

    Args:
        dilations: of the branches, one a branch.
        groups: of each branch's convolution.
        reduction: weights are made from C // reduction channels.
        min_hidden: and from so many channels at least.
        hidden_divisor: that number of channels is rounded to a multiple of this.
        split_input: give each branch its part of the channels.
    """

    has_norm_and_activation = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        activation: str,
        *,
        dilations: Annotated[tuple[PositiveInt, ...], Field(min_length=2)] = (1, 2),
        groups: PositiveInt = 32,
        reduction: PositiveInt = 16,
        min_hidden: PositiveInt = 32,
        hidden_divisor: PositiveInt = 1,
        split_input: bool = False,
    ) -> None:
        super().__init__()
        branches = len(dilations)
        if split_input and in_channels % branches:
            raise InputError(
                f"split_input needs channels that divide by {branches}, not {in_channels}"
            )
        self.split_input = split_input
        taken = in_channels // branches if split_input else in_channels
        fitting = fitting_groups(groups, taken, out_channels)
        self.paths = nn.ModuleList(
            _ConvNormAct(taken, out_channels, stride, dilation, fitting, activation)
            for dilation in dilations
        )
        hidden = max(
            (out_channels // reduction + hidden_divisor // 2) // hidden_divisor * hidden_divisor,
            min_hidden,
        )
        self.attn = _Select(out_channels, branches, hidden)

    def forward(self, x: Tensor) -> Tensor:
        # A symbolic trace (torch.fx) does not know how many parts there are: they are numbered.
        inputs = x.chunk(len(self.paths), 1) if self.split_input else [x] * len(self.paths)
        outputs = [path(inputs[branch]) for branch, path in enumerate(self.paths)]
        mean = torch.stack([mean_over(out, 2, 3) for out in outputs]).sum(0)
        weights = self.attn(mean)  # (B, M, C, 1, 1)
        mixed = outputs[0] * weights[:, 0]
        for branch, out in enumerate(outputs[1:], 1):
            mixed = mixed + out * weights[:, branch]
        return mixed
