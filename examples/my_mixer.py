"""A mixer of one's own: two 3x3 convolutions at once, one of them with holes.

blocklab check examples/my_mixer.py
"""

from typing import Literal

from torch import Tensor, nn

from blocklab import register_block


@register_block("near_and_far", kind="mixer")
class NearAndFar(nn.Module):
    """y = W1 x + W2 x: W1 sees each neighbour, W2 each second or third one."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, *, dilation: Literal[2, 3] = 2
    ) -> None:
        super().__init__()
        self.near = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.far = nn.Conv2d(
            in_channels, out_channels, 3, stride, dilation, dilation=dilation, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.near(x) + self.far(x)
