"""The plain convolutions that other mixers replace."""

from torch import Tensor, nn

from blocklab.blocks.option_types import OddInt
from blocklab.blocks.registry import register_block
from blocklab.kernels.depthwise import DepthwiseConv2d
from blocklab.kernels.small_map import SmallMapConv2d


@register_block("conv3x3", kind="mixer")
class Conv3x3(SmallMapConv2d):
    """ResNet's 3x3 convolution (arXiv:1512.03385): (B, C_in, H, W) -> (B, C, H/s, W/s).

    BatchNorm and activation are the block's. It is itself the convolution, so that its weight
    keeps torchvision's name.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, 3, stride, padding=1, bias=False)


@register_block("depthwise", kind="token_mixer")
class Depthwise(DepthwiseConv2d):
    """ConvNeXt's depth-wise convolution (arXiv:2201.03545): (B, C, H, W) -> same.

    It is itself the convolution, so that its weight keeps the names of others' releases.

    Args:
        kernel: side of the convolution, odd.
    """

    def __init__(self, channels: int, *, kernel: OddInt = 7) -> None:
        super().__init__(channels, kernel)


@register_block("depthwise3x3", kind="ffn_mixer")
class Depthwise3x3(nn.Module):
    """VAN's 3x3 depth-wise convolution inside the FFN (arXiv:2202.09741): same shape.

    Args:
        kernel: side of the convolution, odd.
    """

    def __init__(self, channels: int, *, kernel: OddInt = 3) -> None:
        super().__init__()
        self.dwconv = DepthwiseConv2d(channels, kernel)
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return self.dwconv(x)
