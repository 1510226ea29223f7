"""Involution. Li, Hu, Wang, Li, She, Zhu, Zhang and Chen, CVPR 2021, arXiv:2103.06255."""

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from blocklab.blocks.folding import fold
from blocklab.blocks.option_types import OddInt
from blocklab.blocks.registry import register_block
from blocklab.kernels.local_product import local_product
from blocklab.kernels.small_map import SmallMapConv2d


class _ConvNormAct(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv = SmallMapConv2d(channels, hidden, 1, bias=False)
        self.bn = nn.BatchNorm2d(hidden)

    def fold_norms(self) -> None:
        """Fold the BatchNorm into the convolution before it; for evaluation alone."""
        fold(self, "conv", "bn")

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Conv(nn.Module):
    def __init__(self, channels: int, kernels: int) -> None:
        super().__init__()
        self.conv = SmallMapConv2d(channels, kernels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


@register_block("involution", kind="mixer")
class Involution(nn.Module):
    """A kernel for each position, made from its pixel: (B, C_in, H, W) -> (B, C, H/s, W/s).

    y[c, i, j] = sum_{u, v} K[g, u, v, i, j] * x[c, i + u - k // 2, j + v - k // 2], where g is c's
    group of ``group_channels`` channels and K = W1 relu(BN(W0 x)), W0 to max(1, C // reduction)
    channels; at a stride s, of x averaged s x s (section 3.2). BatchNorm and activation behind it
    are the block's, as in RedNet. Parameters are named as the authors' (``conv1.conv``,
    ``conv1.bn``, ``conv2.conv``). Differs from the paper: nothing; a last odd row or column is
    averaged by itself, the channels of a group are cut to the largest count that divides C, and
    where C_in is not C, as in a basic block, a 1x1 convolution (``project``) comes first.

    y is of second degree in x, so that a chain of them grows without bound where BatchNorm's
    running statistics do not fit: a network that has trained for a few steps may give no finite
    number in evaluation.

    Args:
        kernel: side of each position's kernel, odd.
        reduction: kernels are made from C // reduction channels.
        group_channels: channels that share a kernel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        kernel: OddInt = 7,
        reduction: PositiveInt = 4,
        group_channels: PositiveInt = 16,
    ) -> None:
        super().__init__()
        width = max(
            count
            for count in range(1, min(group_channels, out_channels) + 1)
            if out_channels % count == 0
        )
        hidden = max(1, out_channels // reduction)
        self.kernel, self.stride = kernel, stride
        self.project: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.project = SmallMapConv2d(in_channels, out_channels, 1, bias=False)
        self.avgpool: nn.Module = nn.Identity()
        if stride > 1:
            self.avgpool = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False)
        self.conv1 = _ConvNormAct(out_channels, hidden)
        self.conv2 = _Conv(hidden, out_channels // width * kernel**2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)
        kernels = self.conv2(self.conv1(self.avgpool(x)))  # (B, G * k * k, H/s, W/s)
        return local_product(x, kernels, self.kernel, self.stride)
