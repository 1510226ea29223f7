"""Squeeze-and-excitation. Hu, Shen and Sun, CVPR 2018, arXiv:1709.01507, section 3."""

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from blocklab.blocks.registry import register_block
from blocklab.kernels.gates import gated_product
from blocklab.kernels.pooling import mean_over
from blocklab.kernels.small_map import SmallMapConv2d


@register_block("se")
class SqueezeExcitation(nn.Module):
    """Gate each channel by a small network of all channels' means: (B, C, H, W) -> same.

    s = sigmoid(W2 relu(W1 mean_{hw}(x))), y = x * s, with W1 to max(1, C // reduction) channels.
    Parameters are named as timm's and torchvision's (``fc1``, ``fc2``, 1x1 convolutions with bias).
    Differs from the paper: nothing.
    """

    def __init__(self, channels: int, *, reduction: PositiveInt = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.fc1 = SmallMapConv2d(channels, hidden, 1)
        self.fc2 = SmallMapConv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = mean_over(x, 2, 3)  # (B, C, 1, 1)
        gate = self.fc2(F.relu(self.fc1(squeezed))).sigmoid()
        return gated_product(x, [gate])
