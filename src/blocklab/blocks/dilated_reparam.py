"""Dilated re-parameterised kernels. Ding et al., UniRepLKNet, CVPR 2024, arXiv:2311.15599."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocklab.blocks.folding import convolution_obstacle, norm_obstacle, set_convolution
from blocklab.blocks.obstacles import keep
from blocklab.blocks.option_types import OddInt
from blocklab.blocks.registry import register_block
from blocklab.blocks.reparam_large_kernel import folded_norm
from blocklab.kernels.depthwise import DepthwiseConv2d

# Kernel -> the (taps a side, dilation) of its branches; a kernel above 17 has those of 17.
_BRANCHES: dict[int, tuple[tuple[int, int], ...]] = {
    3: (),
    5: ((3, 1), (3, 2)),
    7: ((5, 1), (3, 2), (3, 3)),
    9: ((5, 1), (5, 2), (3, 3), (3, 4)),
    11: ((5, 1), (5, 2), (3, 3), (3, 4), (3, 5)),
    13: ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5)),
    15: ((5, 1), (7, 2), (3, 3), (3, 5), (3, 7)),
    17: ((5, 1), (9, 2), (3, 4), (3, 5), (3, 7)),
}


@register_block("dilated_reparam", kind="token_mixer")
class DilatedReparam(nn.Module):
    """A depth-wise large kernel with small dilated ones beside it: (B, C, H, W) -> same.

    Section 3.1, equation 1: y = BN(conv_k(x)) + sum_i BN(conv_{k_i, dilated by r_i}(x)), with
    r_i (k_i - 1) + 1 <= k. A dilated kernel is a sparse large one, so `merge` makes one convolution
    of all. Kernels of 3 and less have no branches and no norm: they are a plain convolution without
    bias. Parameters are named as the authors' (``lk_origin``, ``origin_bn``, ``dil_conv_k5_1``,
    ``dil_bn_k5_1``). Differs from the paper: a kernel above 17, which its authors do not define,
    takes the branches of 17.

    Args:
        kernel: side of the large convolution, odd.
    """

    def __init__(self, channels: int, *, kernel: OddInt = 13) -> None:
        super().__init__()
        self.lk_origin = DepthwiseConv2d(channels, kernel, bias=False)
        self.branches = _BRANCHES[min(kernel, 17)] if kernel > 1 else ()
        self.origin_bn = nn.BatchNorm2d(channels) if self.branches else None
        for taps, dilation in self.branches:
            conv = DepthwiseConv2d(channels, taps, dilation, bias=False)
            setattr(self, f"dil_conv_k{taps}_{dilation}", conv)
            setattr(self, f"dil_bn_k{taps}_{dilation}", nn.BatchNorm2d(channels))

    @property
    def is_merged(self) -> bool:
        """Whether ``lk_origin`` is all that there is."""
        return self.origin_bn is None

    def forward(self, x: Tensor) -> Tensor:
        out = self.lk_origin(x)
        if self.origin_bn is None:
            return out
        out = self.origin_bn(out)
        for conv, norm in self._pairs()[1:]:
            out = out + self.get_submodule(norm)(self.get_submodule(conv)(x))
        return out

    @torch.no_grad()
    def merge(self) -> None:
        """Replace all branches by one convolution with the same outputs in evaluation mode.

        Where a branch is seen by others, all stay.
        """
        if self.origin_bn is None:
            return
        for conv, norm in self._pairs():
            why = convolution_obstacle(self, conv) or norm_obstacle(self, norm, evaluating=False)
            if why:
                return keep(self, why)
        size, old = self.lk_origin.kernel_size[0], self.lk_origin.weight
        kernel = bias = None
        for conv_name, norm_name in self._pairs():
            conv, norm = self.get_submodule(conv_name), self.get_submodule(norm_name)
            assert isinstance(conv, nn.Conv2d)
            part, shift = folded_norm(conv, norm)
            part = _spread(part, conv.dilation[0])
            part = F.pad(part, [(size - part.shape[2]) // 2] * 4)
            kernel = part if kernel is None else kernel + part
            bias = shift if bias is None else bias + shift
            if conv is not self.lk_origin:
                delattr(self, conv_name)
                delattr(self, norm_name)
        assert kernel is not None and bias is not None
        merged = DepthwiseConv2d(len(kernel), size).to(old)
        set_convolution(merged, kernel, bias)
        self.lk_origin, self.origin_bn, self.branches = merged, None, ()

    def _pairs(self) -> list[tuple[str, str]]:
        """The convolutions, the large one first, each with its norm."""
        small = ((f"dil_conv_k{k}_{r}", f"dil_bn_k{k}_{r}") for k, r in self.branches)
        return [("lk_origin", "origin_bn"), *small]


def _spread(kernel: Tensor, dilation: int) -> Tensor:
    """(C, 1, k, k) -> (C, 1, r (k - 1) + 1, ...): with zeros between the taps."""
    side = dilation * (kernel.shape[2] - 1) + 1
    spread = kernel.new_zeros(*kernel.shape[:2], side, side)
    spread[:, :, ::dilation, ::dilation] = kernel
    return spread
