"""Pooling as a token mixer. Yu et al., MetaFormer Is Actually What You Need, CVPR 2022.

arXiv:2111.11418, section 3.2 and algorithm 1.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from blocklab.blocks.option_types import OddInt
from blocklab.blocks.registry import register_block


@register_block("pooling", kind="token_mixer")
class Pooling(nn.Module):
    """The mean of the k x k neighbours, less the pixel itself: (B, C, H, W) -> same.

    y = avgpool_k(x) - x, stride 1; at the border the mean is of the pixels that there are. No
    parameters. Differs from the paper: nothing.

    Args:
        kernel: side of the window, odd.
    """

    def __init__(self, channels: int, *, kernel: OddInt = 3) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        half = self.kernel // 2
        return F.avg_pool2d(x, self.kernel, 1, half, count_include_pad=False) - x
