"""Large Kernel Attention. Guo, Lu, Liu, Cheng and Hu, CVMJ 2023, arXiv:2202.09741, section 3.1."""

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from blocklab.blocks.activation import create_activation
from blocklab.blocks.authors_start import AuthorsStart, start_by_fan_out_of_group
from blocklab.blocks.folding import fold
from blocklab.blocks.option_types import Activation, OddInt
from blocklab.blocks.registry import register_block
from blocklab.errors import InputError
from blocklab.kernels.depthwise import DepthwiseConv2d
from blocklab.kernels.small_map import SmallMapConv2d


@register_block("large_kernel_attention")
class LargeKernelAttention(nn.Module):
    """Gate each value by a large, decomposed convolution: (B, C, H, W) -> same.

    y = x * conv1x1(depth-wise dilated(depth-wise(x))). The paper's 21x21 kernel is a 5x5 and a 7x7
    dilated by 3. Parameters are named as the authors' (``conv0``, ``conv_spatial``, ``conv1``).
    Options beyond the paper: the kernels, ``norm`` (BatchNorm after each of the three
    convolutions) and ``inner_activation`` (after the first two).

    In a ResNet, whose scheme takes the fan-out of a depth-wise kernel for that of all channels, and
    without norms, the two depth-wise convolutions start so small that the gate is hardly more than
    a bias. ``authors_start=True`` starts the three as VAN's authors do, over the fan-out of a
    group, without biases; in a VAN they start so anyway.

    Args:
        local_kernel: side of the first depth-wise convolution, odd.
        kernel: side of the dilated one, odd, counted in its taps.
        dilation: of that one.
        norm: BatchNorm after each of the three convolutions.
        inner_activation: an activation after the first two; none has none.
        authors_start: start as the authors' code does, not by the backbone's scheme.
    """

    def __init__(
        self,
        channels: int,
        *,
        local_kernel: OddInt = 5,
        kernel: OddInt = 7,
        dilation: PositiveInt = 3,
        norm: bool = False,
        inner_activation: Activation | None = None,
        authors_start: AuthorsStart = False,
    ) -> None:
        super().__init__()
        self.authors_start = authors_start
        self.conv0 = DepthwiseConv2d(channels, local_kernel)
        self.conv_spatial = DepthwiseConv2d(channels, kernel, dilation)
        self.conv1 = SmallMapConv2d(channels, channels, 1)
        self.bn0 = nn.BatchNorm2d(channels) if norm else nn.Identity()
        self.bn_spatial = nn.BatchNorm2d(channels) if norm else nn.Identity()
        self.bn1 = nn.BatchNorm2d(channels) if norm else nn.Identity()
        self.act = create_activation(inner_activation) if inner_activation else nn.Identity()

    def init_weights(self) -> None:
        """Start as the authors' code does, where asked."""
        if self.authors_start:
            for convolution in (self.conv0, self.conv_spatial, self.conv1):
                start_by_fan_out_of_group(convolution)

    def fold_norms(self) -> None:
        """Fold each BatchNorm into the convolution before it; for evaluation alone."""
        for convolution, norm in (
            ("conv0", "bn0"),
            ("conv_spatial", "bn_spatial"),
            ("conv1", "bn1"),
        ):
            fold(self, convolution, norm)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.act(self.bn0(self.conv0(x)))
        gate = self.act(self.bn_spatial(self.conv_spatial(gate)))
        return x * self.bn1(self.conv1(gate))


@register_block("multi_scale_lka", kind="token_mixer")
class MultiScaleLKA(nn.Module):
    """Large Kernel Attentions side by side, concatenated: (B, C, H, W) -> (B, nC, H, W).

    Each gates its own copy of x; they differ in the size of the dilated kernel. Not of a paper: a
    change to VAN, whose next 1x1 convolution takes the n * C channels.

    Args:
        kernels: sides of the dilated convolutions, odd, one an attention.
        local_kernel: side of the convolution before each, odd.
        dilation: of the dilated ones.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernels: tuple[OddInt, ...] = (5, 7, 9),
        local_kernel: OddInt = 5,
        dilation: PositiveInt = 3,
    ) -> None:
        super().__init__()
        if not kernels:
            raise InputError("multi_scale_lka needs at least one kernel, such as kernels: [5, 7]")
        self.branches = nn.ModuleList(
            LargeKernelAttention(
                channels, local_kernel=local_kernel, kernel=kernel, dilation=dilation
            )
            for kernel in kernels
        )
        self.out_channels = channels * len(kernels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)
