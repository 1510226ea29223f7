"""ECA. Wang, Wu, Zhu, Li, Zuo and Hu, CVPR 2020, arXiv:1910.03151, section 3."""

import math

from pydantic import PositiveFloat
from torch import Tensor, nn

from blocklab.blocks.option_types import LARGEST_KERNEL, OddInt
from blocklab.blocks.registry import register_block
from blocklab.errors import InputError
from blocklab.kernels.gates import gated_product
from blocklab.kernels.pooling import mean_over

_GAMMA, _BETA = 2.0, 1.0


def kernel_size(channels: int, gamma: float, beta: float) -> int:
    """Return the odd kernel near abs((log2(channels) + beta) / gamma), equation 12.

    As the authors' code has it: rounded down, and one more where that is even.

    Raises:
        InputError: if it is larger than any kernel may be.
    """
    size = abs((math.log2(channels) + beta) / gamma)
    if size > LARGEST_KERNEL:
        raise InputError(
            f"gamma {gamma:g} and beta {beta:g} give a kernel of {size:.3g} for {channels} "
            f"channels; take a larger gamma (kernels go to {LARGEST_KERNEL})"
        )
    return int(size) + 1 - int(size) % 2


@register_block("eca")
class EfficientChannelAttention(nn.Module):
    """Gate each channel by the means of the channels beside it: (B, C, H, W) -> same.

    y = x * sigmoid(conv_k(mean_{hw}(x))), a 1-d convolution along the channels, zero-padded, of one
    kernel without bias. Its size is ``kernel``, or where that is none
    k = |log2(C) / gamma + beta / gamma|, to the odd (3 for 64 channels, 5 for 256 and 512). The
    parameter is named as the authors' and timm's (``conv``) and starts as theirs, as PyTorch starts
    a `nn.Conv1d`. Differs from the paper: nothing; timm's least kernel is 3, the formula's 1, which
    is that of fewer than 8 channels.

    Args:
        kernel: how many channels one gate looks at, odd; none takes the formula's.
        gamma: of the formula; a larger one makes the kernel smaller.
        beta: of the formula; a larger one makes the kernel larger.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel: OddInt | None = None,
        gamma: PositiveFloat = _GAMMA,
        beta: float = _BETA,
    ) -> None:
        super().__init__()
        if kernel is not None and (gamma, beta) != (_GAMMA, _BETA):
            raise InputError(
                "eca's gamma and beta are of the formula for its kernel; give them without kernel"
            )
        size = kernel_size(channels, gamma, beta) if kernel is None else kernel
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        means = mean_over(x, 2, 3).squeeze(3).transpose(1, 2)  # (B, 1, C)
        gate = self.conv(means).sigmoid().transpose(1, 2).unsqueeze(3)  # (B, C, 1, 1)
        return gated_product(x, [gate])
