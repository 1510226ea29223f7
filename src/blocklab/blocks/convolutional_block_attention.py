"""CBAM. Woo, Park, Lee and Kweon, ECCV 2018, arXiv:1807.06521, section 3."""

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from blocklab.blocks.authors_start import AuthorsStart, start_at_zero, start_by_default
from blocklab.blocks.folding import fold
from blocklab.blocks.option_types import OddInt
from blocklab.blocks.registry import register_block
from blocklab.kernels.gates import gated_product
from blocklab.kernels.plane_convolution import PlaneConv2d
from blocklab.kernels.pooling import axis_pool, max_over, mean_over
from blocklab.kernels.small_map import SmallMapConv2d


class _ChannelGate(nn.Module):
    """x * sigmoid(mlp(mean) + mlp(max)), with one MLP for both: (B, C, H, W) -> same."""

    def __init__(self, channels: int, hidden: int, bias: bool) -> None:
        super().__init__()
        self.fc1 = SmallMapConv2d(channels, hidden, 1, bias=bias)
        self.fc2 = SmallMapConv2d(hidden, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        mean, largest = F.relu(self.fc1(mean_over(x, 2, 3))), F.relu(self.fc1(max_over(x)))
        return gated_product(x, [(self.fc2(mean) + self.fc2(largest)).sigmoid()])


class _PlaneNorm(nn.Module):
    """k x k convolution of a plane of two statistics to one channel, BatchNorm."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.conv = PlaneConv2d(2, kernel)
        self.bn = nn.BatchNorm2d(1, momentum=0.01)

    def fold_norms(self) -> None:
        """Fold BatchNorm into the convolution before it; for evaluation alone."""
        fold(self, "conv", "bn")

    def forward(self, plane: Tensor) -> Tensor:
        return self.bn(self.conv(plane))


class _SpatialGate(nn.Module):
    """x * sigmoid(BN(conv([mean over C; max over C]))): (B, C, H, W) -> same."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.conv = _PlaneNorm(kernel)

    def forward(self, x: Tensor) -> Tensor:
        x, (plane,) = axis_pool(x, (1,), ("avg", "max"))  # (B, 2, H, W)
        return gated_product(x, [self.conv(plane).sigmoid()])


@register_block("cbam")
class ConvolutionalBlockAttention(nn.Module):
    """Gate the channels, then the positions of what comes of it: (B, C, H, W) -> same.

    x' = x * sigmoid(W1 relu(W0 mean_{hw}(x)) + W1 relu(W0 max_{hw}(x))), W0 to
    max(1, C // reduction) channels; y = x' * sigmoid(BN(conv_{kxk}([mean_c(x'); max_c(x')]))).
    Parameters are named as timm's (``channel.fc1``, ``channel.fc2``, ``spatial.conv.conv``,
    ``spatial.conv.bn``); the authors' ``ChannelGate.mlp.1`` and ``.3`` are linear layers, and their
    kernel takes the maximum first. BatchNorm, which the equations leave out, and its momentum of
    0.01 are the authors' code's. Differs from the paper: nothing; ``mlp_bias=True`` gives W0 and W1
    the biases that the authors' code has.

    That BatchNorm starts at 1 and 0 here, as norms do; the authors' ResNet starts it at 0 and 0, so
    that every position's gate is a half to begin with, and W0 and W1 as linear layers, without
    biases: ``authors_start=True``.

    Args:
        reduction: the gate of channels works on C // reduction channels.
        kernel: side of the convolution of the gate of positions, odd.
        mlp_bias: whether the gate of channels has biases.
        authors_start: start as the authors' code does, not by the backbone's scheme.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: PositiveInt = 16,
        kernel: OddInt = 7,
        mlp_bias: bool = False,
        authors_start: AuthorsStart = False,
    ) -> None:
        super().__init__()
        self.authors_start = authors_start
        self.channel = _ChannelGate(channels, max(1, channels // reduction), mlp_bias)
        self.spatial = _SpatialGate(kernel)

    def init_weights(self) -> None:
        """Start as the authors' code does, where asked."""
        if self.authors_start:
            start_by_default(self.channel.fc1)
            start_by_default(self.channel.fc2)
            start_at_zero(self.spatial.conv.bn)

    def forward(self, x: Tensor) -> Tensor:
        return self.spatial(self.channel(x))
