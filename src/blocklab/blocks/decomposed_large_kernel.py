"""Decomposed large kernels. Liu et al., SLaK, ICLR 2023, arXiv:2207.03620."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocklab.blocks.folding import convolution_obstacle, like, norm_obstacle, part_obstacle
from blocklab.blocks.obstacles import keep
from blocklab.blocks.option_types import OddInt
from blocklab.blocks.registry import register_block
from blocklab.blocks.reparam_large_kernel import ConvNorm
from blocklab.kernels.depthwise import DepthwiseConv2d

_BRANCHES = ("Decom1", "Decom2", "small_conv")


@register_block("slak", kind="token_mixer")
class DecomposedLargeKernel(nn.Module):
    """Two crossed bands and a small square, depth-wise: (B, C, H, W) -> same.

    Section 4: y = BN(conv_{k x s}(x)) + BN(conv_{s x k}(x)) + BN(conv_{s x s}(x)), with k = 51 and
    s = 5. `merge` puts the square into the high band and all norms into the convolutions, which
    leaves two (``high``, ``wide``): as one k x k kernel they would cost k / 2s times as much.
    Parameters are named as the authors' (``Decom1``, ``Decom2``, ``small_conv``). Differs from the
    paper: the kernels are dense; its sparsity, which changes while a network trains, is no part of
    the block.

    Args:
        kernel: length of the two bands, odd.
        small_kernel: their width, and the square's side, odd.
    """

    def __init__(self, channels: int, *, kernel: OddInt = 51, small_kernel: OddInt = 5) -> None:
        super().__init__()
        narrow = min(small_kernel, kernel)
        self.Decom1 = ConvNorm(DepthwiseConv2d(channels, (kernel, narrow), bias=False))
        self.Decom2 = ConvNorm(DepthwiseConv2d(channels, (narrow, kernel), bias=False))
        self.small_conv = ConvNorm(DepthwiseConv2d(channels, (narrow, narrow), bias=False))
        self.high: nn.Conv2d | None = None
        self.wide: nn.Conv2d | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.high is not None and self.wide is not None:
            return self.high(x) + self.wide(x)
        return self.Decom1(x) + self.Decom2(x) + self.small_conv(x)

    @torch.no_grad()
    def merge(self) -> None:
        """Replace the three by two convolutions with the same outputs in evaluation mode.

        Where a branch is seen by others, all stay.
        """
        if self.high is not None:
            return
        for name in _BRANCHES:
            why = (
                part_obstacle(self, name, ConvNorm)
                or convolution_obstacle(self, f"{name}.conv")
                or norm_obstacle(self, f"{name}.bn", evaluating=False)
            )
            if why:
                return keep(self, why)
        high, shift = self.Decom1.folded()
        wide, wide_shift = self.Decom2.folded()
        small, small_shift = self.small_conv.folded()
        margin = (high.shape[2] - small.shape[2]) // 2
        high = high + F.pad(small, (0, 0, margin, margin))
        shift = shift + wide_shift + small_shift
        old = self.Decom1.conv.weight
        self.high, self.wide = _convolution(high, old, shift), _convolution(wide, old)
        for name in _BRANCHES:
            delattr(self, name)


def _convolution(kernel: Tensor, old: Tensor, shift: Tensor | None = None) -> DepthwiseConv2d:
    """Make a convolution of these weights, as others are: in their precision, on their device."""
    conv = DepthwiseConv2d(len(kernel), (kernel.shape[2], kernel.shape[3]), bias=False).to(old)
    conv.weight = nn.Parameter(like(kernel, old))
    conv.bias = None if shift is None else nn.Parameter(like(shift, old))
    return conv
