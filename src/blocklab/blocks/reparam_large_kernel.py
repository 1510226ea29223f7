"""Re-parameterised large kernels. Ding, Zhang, Han and Ding, CVPR 2022, arXiv:2203.06717."""

from typing import Annotated, Any

import torch
from pydantic import Field, PositiveFloat
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from blocklab.blocks.activation import create_activation
from blocklab.blocks.folding import (
    convolution_obstacle,
    exact,
    fold,
    fold_before,
    norm_obstacle,
    part_obstacle,
    scale_and_shift,
    set_convolution,
)
from blocklab.blocks.obstacles import keep
from blocklab.blocks.option_types import OddInt
from blocklab.blocks.registry import register_block
from blocklab.errors import InputError
from blocklab.kernels.depthwise import DepthwiseConv2d
from blocklab.kernels.small_map import SmallMapConv2d


def folded_norm(conv: nn.Conv2d, norm: Any) -> tuple[Tensor, Tensor]:
    """Return the kernel and bias of the one convolution that both are in evaluation mode.

    Both are in float64, so that what is made of several is rounded once.
    """
    scale, shift = scale_and_shift(norm)
    return exact(conv.weight) * scale[:, None, None, None], shift


class ConvNorm(nn.Module):
    """A convolution and its BatchNorm, named as RepLKNet's authors'."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.bn = nn.BatchNorm2d(conv.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))

    def fold_norms(self) -> None:
        """Fold each BatchNorm into the convolution before it; for evaluation alone."""
        fold(self, "conv", "bn")

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return the kernel and bias of the one convolution that both are in evaluation mode."""
        return folded_norm(self.conv, self.bn)


def _fold_into_next(block: nn.Module, norm: str) -> None:
    """Fold a block's first norm into its ``pw1``, where that is a convolution and a norm."""
    if why := part_obstacle(block, "pw1", ConvNorm):
        keep(block.get_submodule(norm), why)
    else:
        fold_before(block, norm, "pw1.conv")


class ReparamLargeKernelConv(nn.Module):
    """A depth-wise large kernel with a small one beside it: (B, C, H, W) -> same.

    y = BN(conv_kxk(x)) + BN(conv_small(x)) in training; `merge` makes one convolution of both
    (section 3, guideline 3). Parameters are named as the authors' (``lkb_origin``, ``small_conv``,
    merged ``lkb_reparam``).
    """

    def __init__(self, channels: int, kernel: int, small_kernel: int | None) -> None:
        super().__init__()
        if small_kernel is not None and small_kernel > kernel:
            raise InputError(
                f"small_kernel {small_kernel} is larger than the kernel {kernel}; "
                "choose a smaller one or none"
            )
        self.lkb_origin: ConvNorm | None = ConvNorm(DepthwiseConv2d(channels, kernel, bias=False))
        self.small_conv: ConvNorm | None = None
        if small_kernel is not None:
            self.small_conv = ConvNorm(DepthwiseConv2d(channels, small_kernel, bias=False))
        self.lkb_reparam: nn.Conv2d | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.lkb_reparam is not None:
            return self.lkb_reparam(x)
        assert self.lkb_origin is not None
        out = self.lkb_origin(x)
        return out if self.small_conv is None else out + self.small_conv(x)

    @torch.no_grad()
    def merge(self) -> None:
        """Replace both branches by one convolution with the same outputs in evaluation mode.

        Where a branch is seen by others, both stay.
        """
        if self.lkb_origin is None:
            return
        if why := self._obstacle():
            return keep(self, why)
        origin = self.lkb_origin.conv
        kernel, bias = self.lkb_origin.folded()
        if self.small_conv is not None:
            small, small_bias = self.small_conv.folded()
            margin = (kernel.shape[2] - small.shape[2]) // 2
            kernel, bias = kernel + F.pad(small, [margin] * 4), bias + small_bias
        merged = DepthwiseConv2d(origin.out_channels, origin.kernel_size[0]).to(origin.weight)
        set_convolution(merged, kernel, bias)
        self.lkb_reparam, self.lkb_origin, self.small_conv = merged, None, None

    def _obstacle(self) -> str:
        for branch in ("lkb_origin", "small_conv")[: 1 if self.small_conv is None else 2]:
            why = (
                part_obstacle(self, branch, ConvNorm)
                or convolution_obstacle(self, f"{branch}.conv")
                or norm_obstacle(self, f"{branch}.bn", evaluating=False)
            )
            if why:
                return why
        return ""


@register_block("reparam_large_kernel", kind="token_mixer")
class RepLKBlock(nn.Module):
    """RepLKNet's block: (B, C, H, W) -> same.

    x + drop_path(BN(conv1x1(relu(large kernel(relu(BN(conv1x1(BN(x))))))))). Names are the authors'
    (``prelkb_bn``, ``pw1``, ``large_kernel``, ``pw2``). ``width`` is the inner width as a multiple
    of C (authors' ``dw_ratio``). ``drop_path=None`` takes the rate that the slot tells. A RepLKNet
    of another activation than its own puts that in the place of ReLU.

    Args:
        kernel: side of the large kernel, odd.
        small_kernel: side of the one beside it in training, odd; none has none.
        width: of the inside, as a multiple of C.
        drop_path_rate: of its shortcut; none takes what the slot tells.
    """

    def __init__(
        self,
        channels: int,
        drop_path: float,
        *,
        kernel: OddInt = 31,
        small_kernel: OddInt | None = 5,
        width: PositiveFloat = 1.0,
        drop_path_rate: Annotated[float, Field(ge=0, lt=1)] | None = None,
    ) -> None:
        super().__init__()
        inner = max(1, int(channels * width))
        self.prelkb_bn = nn.BatchNorm2d(channels)
        self.pw1 = ConvNorm(SmallMapConv2d(channels, inner, 1, bias=False))
        self.large_kernel = ReparamLargeKernelConv(inner, kernel, small_kernel)
        self.pw2 = ConvNorm(SmallMapConv2d(inner, channels, 1, bias=False))
        self.act1: nn.Module = nn.ReLU()
        self.act2: nn.Module = nn.ReLU()
        self.drop_path = DropPath(drop_path if drop_path_rate is None else drop_path_rate)
        self.out_channels = channels

    def set_activation(self, name: str) -> None:
        """Put another activation in the place of both ReLUs."""
        self.act1, self.act2 = create_activation(name), create_activation(name)

    def forward(self, x: Tensor) -> Tensor:
        out = self.act1(self.pw1(self.prelkb_bn(x)))
        return x + self.drop_path(self.pw2(self.act2(self.large_kernel(out))))

    def fold_norms(self) -> None:
        """Fold the first BatchNorm into the 1x1 convolution after it; for evaluation alone."""
        _fold_into_next(self, "prelkb_bn")


@register_block("plain_large_kernel", kind="token_mixer")
class PlainLargeKernelBlock(RepLKBlock):
    """`RepLKBlock` with one large kernel with bias from the start: (B, C, H, W) -> same.

    x + drop_path(BN(conv1x1(relu(conv_kxk(relu(BN(conv1x1(BN(x))))))))): no small kernel and no
    BatchNorm on the large one, which is what `RepLKBlock` becomes when it is merged; the names are
    those too. Not of the paper, which trains the re-parameterised form.

    Args:
        kernel: side of the large kernel, odd.
        width: of the inside, as a multiple of C.
        drop_path_rate: of its shortcut; none takes what the slot tells.
    """

    def __init__(
        self,
        channels: int,
        drop_path: float,
        *,
        kernel: OddInt = 31,
        width: PositiveFloat = 1.0,
        drop_path_rate: Annotated[float, Field(ge=0, lt=1)] | None = None,
    ) -> None:
        super().__init__(
            channels,
            drop_path,
            kernel=kernel,
            small_kernel=None,
            width=width,
            drop_path_rate=drop_path_rate,
        )
        self.large_kernel.merge()


class ConvFFN(nn.Module):
    """RepLKNet's feed-forward block: x + drop_path(BN(1x1(gelu(BN(1x1(BN(x))))))), same shape."""

    def __init__(self, channels: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.preffn_bn = nn.BatchNorm2d(channels)
        self.pw1 = ConvNorm(SmallMapConv2d(channels, hidden, 1, bias=False))
        self.pw2 = ConvNorm(SmallMapConv2d(hidden, channels, 1, bias=False))
        self.act: nn.Module = nn.GELU()
        self.drop_path = DropPath(drop_path)

    def fold_norms(self) -> None:
        """Fold the first BatchNorm into the 1x1 convolution after it; for evaluation alone."""
        _fold_into_next(self, "preffn_bn")

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.pw2(self.act(self.pw1(self.preffn_bn(x)))))
