"""A block of one's own: gate each position by how far it stands out of its channel.

blocklab check examples/my_block.py
blocklab study examples/my_study.yaml --plugin examples/my_block.py
"""

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from blocklab import register_block


@register_block("contrast_gate")
class ContrastGate(nn.Module):
    """y = x * (1 + tanh(a * (x - mean) / std + b)), a and b learned a channel each, from 0."""

    def __init__(self, channels: int, *, eps: PositiveFloat = 1e-3) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(channels, 1, 1))
        self.b = nn.Parameter(torch.zeros(channels, 1, 1))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean((2, 3), keepdim=True)
        contrast = centred / (centred.square().mean((2, 3), keepdim=True) + self.eps).sqrt()
        return x * (1 + (self.a * contrast + self.b).tanh())
