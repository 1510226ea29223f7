"""Context Anchor Attention. Cai, Lai, Wang, Wang, Sun and Liao, CVPR 2024, arXiv:2403.06258."""

from torch import Tensor, nn
from torch.nn import functional as F

from blocklab.blocks.authors_start import AuthorsStart, start_by_default
from blocklab.blocks.folding import fold
from blocklab.blocks.option_types import OddInt
from blocklab.blocks.registry import register_block
from blocklab.kernels.depthwise import DepthwiseConv2d
from blocklab.kernels.gates import gated_product
from blocklab.kernels.small_map import SmallMapConv2d


class _ConvNormAct(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = SmallMapConv2d(channels, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=1e-3, momentum=0.03)

    def fold_norms(self) -> None:
        """Fold the BatchNorm into the convolution before it; for evaluation alone."""
        fold(self, "conv", "bn")

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.bn(self.conv(x)))


class _Strip(nn.Module):
    def __init__(self, channels: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        self.conv = DepthwiseConv2d(channels, kernel)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


@register_block("caa")
class ContextAnchorAttention(nn.Module):
    """Gate each value by strips through its neighbourhood: (B, C, H, W) -> same.

    y = x * sigmoid(conv1x1(column(row(conv1x1(mean_{7x7}(x)))))), where both 1x1 convolutions have
    BatchNorm and SiLU, and row and column are depth-wise 1 x k and k x 1 (section 3.3). Parameters
    are named as the authors' (``conv1``, ``h_conv``, ``v_conv``, ``conv2``, each with ``conv`` and,
    where normed, ``bn``, of their eps and momentum). Differs from the paper: k is ``kernel``
    everywhere (the authors' code's 11), where the paper's grows with the block's number in its
    stage, 11 + 2 l.

    In a ResNet, whose scheme takes the fan-out of a depth-wise strip for that of all channels, the
    strips start so small that the last norm's eps outweighs them and the gate is about a half
    everywhere. ``authors_start=True`` starts the four convolutions as PyTorch does, without biases,
    as the authors' code.

    Args:
        kernel: length of the two strips, odd.
        pool: side of the window that is averaged first, odd.
        authors_start: start as the authors' code does, not by the backbone's scheme.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel: OddInt = 11,
        pool: OddInt = 7,
        authors_start: AuthorsStart = False,
    ) -> None:
        super().__init__()
        self.authors_start = authors_start
        self.avg_pool = nn.AvgPool2d(pool, 1, pool // 2)
        self.conv1 = _ConvNormAct(channels)
        self.h_conv = _Strip(channels, (1, kernel))
        self.v_conv = _Strip(channels, (kernel, 1))
        self.conv2 = _ConvNormAct(channels)

    def init_weights(self) -> None:
        """Start as the authors' code does, where asked."""
        if self.authors_start:
            for part in (self.conv1, self.h_conv, self.v_conv, self.conv2):
                start_by_default(part.conv)

    def forward(self, x: Tensor) -> Tensor:
        context = self.v_conv(self.h_conv(self.conv1(self.avg_pool(x))))
        return gated_product(x, [self.conv2(context).sigmoid()])
