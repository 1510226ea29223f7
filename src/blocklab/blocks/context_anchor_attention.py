"""Context Anchor Attention. Cai, Lai, Wang, Wang, Sun and Liao, CVPR 2024, arXiv:2403.06258."""

from torch import Tensor, nn

from blocklab.blocks.authors_start import AuthorsStart, start_by_default
from blocklab.blocks.folding import fold, is_norm
from blocklab.blocks.option_types import OddInt
from blocklab.blocks.registry import register_block
from blocklab.kernels.depthwise import DepthwiseConv2d
from blocklab.kernels.gates import gated_product
from blocklab.kernels.small_map import SmallMapConv2d


class _Pointwise(nn.Module):
    def __init__(self, channels: int, norms: bool) -> None:
        super().__init__()
        self.conv = SmallMapConv2d(channels, channels, 1, bias=not norms)
        self.bn = nn.BatchNorm2d(channels, eps=1e-3, momentum=0.03) if norms else nn.Identity()
        self.act = nn.SiLU() if norms else nn.Identity()

    def fold_norms(self) -> None:
        """Fold the BatchNorm into the convolution before it; for evaluation alone."""
        if is_norm(self.bn):
            fold(self, "conv", "bn")

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class _Strip(nn.Module):
    def __init__(self, channels: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        self.conv = DepthwiseConv2d(channels, kernel)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


@register_block("caa")
class ContextAnchorAttention(nn.Module):
    """Gate each value by strips through its neighbourhood: (B, C, H, W) -> same.

    y = x * sigmoid(conv1x1(column(row(conv1x1(mean_{7x7}(x)))))), where row and column are
    depth-wise 1 x k and k x 1 and each convolution has a bias (section 3.3; so PKINet builds it).
    The authors' class has BatchNorm and SiLU behind both 1x1 convolutions where it is not told
    otherwise, and implementations elsewhere have them: ``norms=True``. Its gate cannot close:
    sigmoid(SiLU(z)) is never below 0.43. Parameters are named as the authors' (``conv1``,
    ``h_conv``, ``v_conv``, ``conv2``, each with ``conv`` and, where normed, ``bn``, of their eps
    and momentum). Differs from the paper: k is ``kernel`` everywhere, where the authors' grows with
    the block's number in its stage, 11 + 2 l; and it gates the map that it reads, where PKINet
    gates what its kernels made of that map, and adds the two.

    In a ResNet, whose scheme takes the fan-out of a depth-wise strip for that of all channels, the
    strips start so small that the gate is about a half everywhere. ``authors_start=True`` starts
    the four convolutions as PyTorch does, without biases, as the authors' code.

    Args:
        kernel: length of the two strips, odd.
        pool: side of the window that is averaged first, odd.
        norms: BatchNorm and SiLU behind both 1x1 convolutions, which then have no bias.
        authors_start: start as the authors' code does, not by the backbone's scheme.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel: OddInt = 11,
        pool: OddInt = 7,
        norms: bool = False,
        authors_start: AuthorsStart = False,
    ) -> None:
        super().__init__()
        self.authors_start = authors_start
        self.avg_pool = nn.AvgPool2d(pool, 1, pool // 2)
        self.conv1 = _Pointwise(channels, norms)
        self.h_conv = _Strip(channels, (1, kernel))
        self.v_conv = _Strip(channels, (kernel, 1))
        self.conv2 = _Pointwise(channels, norms)

    def init_weights(self) -> None:
        """Start as the authors' code does, where asked."""
        if self.authors_start:
            for part in (self.conv1, self.h_conv, self.v_conv, self.conv2):
                start_by_default(part.conv)

    def forward(self, x: Tensor) -> Tensor:
        context = self.v_conv(self.h_conv(self.conv1(self.avg_pool(x))))
        return gated_product(x, [self.conv2(context).sigmoid()])
