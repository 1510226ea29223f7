"""Global Response Normalisation. Woo et al., ConvNeXt V2, CVPR 2023, arXiv:2301.00808."""

import torch
from torch import Tensor, nn


class GlobalResponseNorm(nn.Module):
    """Let channels compete by the size of their responses: (B, C, H, W) -> same.

    Section 4: g_c = ||x_c||_2 over all positions, n_c = g_c / (mean_c g_c + eps),
    y = x + weight * (x * n) + bias. Both parameters start at zero, where it is the identity. Norms
    of half precision are float32: sums of squares are beyond float16. Parameters are named as
    timm's (the authors: ``gamma``, ``beta``).
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        size = _norm(x)  # (B, C, 1, 1)
        share = size / (size.mean(1, keepdim=True) + self.eps)
        gate = 1 + share * self.weight[:, None, None]
        return x * _as(gate, x) + _as(self.bias[:, None, None], x)


def _norm(x: Tensor) -> Tensor:
    wide = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    return torch.linalg.vector_norm(x, 2, (2, 3), keepdim=True, dtype=wide)


def _as(value: Tensor, x: Tensor) -> Tensor:
    return value.to(x.dtype)


# A symbolic trace does not know the map's type.
torch.fx.wrap("_norm")
torch.fx.wrap("_as")
