"""Gated Channel Transformation. Yang, Zhu, Wu and Yang, CVPR 2020, arXiv:1909.11519, section 3."""

from typing import Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from blocklab.blocks.registry import register_block
from blocklab.kernels.gates import gated_product
from blocklab.kernels.pooling import energy_over, norm_over


@register_block("gct")
class GatedChannelTransformation(nn.Module):
    """Let channels compete by their norms: (B, C, H, W) -> same.

    s_c = alpha_c * sqrt(sum_{hw}(x_c^2) + eps), or with ``norm="l1"`` alpha_c * sum_{hw}|x_c|;
    n_c = s_c / sqrt(mean_c(s^2) + eps), or s_c / (mean_c|s| + eps); y = x * (1 + tanh(gamma_c n_c +
    beta_c)). Parameters are named as the authors' (``alpha``, ``gamma``, ``beta``); alpha starts at
    1, the others at 0, so that the block starts as the identity. Not the Gaussian Context
    Transformer (CVPR 2021), which is abbreviated alike. Differs from the paper: nothing in the
    equation; the authors put it before every convolution. ``beta`` gets no weight decay, as theirs.

    Args:
        norm: of a channel's map: l2 or l1.
        eps: added below roots and to divisors, so that an empty map divides by no zero.
    """

    def __init__(
        self, channels: int, *, norm: Literal["l2", "l1"] = "l2", eps: PositiveFloat = 1e-5
    ) -> None:
        super().__init__()
        self.norm, self.eps = norm, eps
        self.alpha = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def no_weight_decay(self) -> set[str]:
        """Names of parameters to leave out of weight decay: the bias, by the authors' default."""
        return {"beta"}

    def forward(self, x: Tensor) -> Tensor:
        if self.norm == "l2":
            embedding = (energy_over(x) + self.eps).sqrt() * self.alpha
            scale = (embedding.square().mean(1, keepdim=True) + self.eps).rsqrt()
        else:
            embedding = norm_over(x) * self.alpha
            scale = 1 / (embedding.abs().mean(1, keepdim=True) + self.eps)
        gate = 1 + torch.tanh(embedding * scale * self.gamma + self.beta)
        return gated_product(x, [gate.type_as(x)])
