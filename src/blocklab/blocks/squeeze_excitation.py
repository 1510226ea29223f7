"""Squeeze-and-excitation. Hu, Shen and Sun, CVPR 2018, arXiv:1709.01507, section 3."""

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from blocklab.blocks.gate_bias import GateBias, open_gates
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

    Gates begin at about a half. ``gate_bias`` sets ``fc2``'s biases to begin with: at 4 gates begin
    at 0.98. It is none of the paper's.

    Args:
        reduction: the gate's small network has C // reduction channels.
        gate_bias: the gate's bias to begin with; none leaves the backbone's start.
    """

    def __init__(
        self, channels: int, *, reduction: PositiveInt = 16, gate_bias: GateBias = None
    ) -> None:
        super().__init__()
        self.gate_bias = gate_bias
        hidden = max(1, channels // reduction)
        self.fc1 = SmallMapConv2d(channels, hidden, 1)
        self.fc2 = SmallMapConv2d(hidden, channels, 1)
        self.init_weights()

    def init_weights(self) -> None:
        """Open the gates where asked."""
        open_gates(self.gate_bias, self.fc2)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = mean_over(x, 2, 3)  # (B, C, 1, 1)
        gate = self.fc2(F.relu(self.fc1(squeezed))).sigmoid()
        return gated_product(x, [gate])
