"""Omni-dimensional dynamic convolution. Li, Zhou and Yao, ICLR 2022, arXiv:2209.07947."""

from typing import Annotated

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from blocklab.blocks.folding import fold
from blocklab.blocks.registry import register_block
from blocklab.kernels.channel_groups import ungrouped
from blocklab.kernels.gates import gated_product
from blocklab.kernels.pooling import mean_over
from blocklab.kernels.small_map import SmallMapConv2d
from blocklab.kernels.strided import widened

_SIZE = 3  # of a kernel
_TAPS = _SIZE * _SIZE


class _Attention(nn.Module):
    """What each image makes of a convolution's four dimensions, from its channels' means."""

    def __init__(
        self, in_channels: int, out_channels: int, hidden: int, kernels: int, temperature: float
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.fc = SmallMapConv2d(in_channels, hidden, 1, bias=False)
        self.bn = nn.BatchNorm2d(hidden)
        self.channel_fc = SmallMapConv2d(hidden, in_channels, 1)
        self.filter_fc = SmallMapConv2d(hidden, out_channels, 1)
        self.spatial_fc = SmallMapConv2d(hidden, _TAPS, 1)
        self.kernel_fc = SmallMapConv2d(hidden, kernels, 1) if kernels > 1 else None

    def init_weights(self) -> None:
        """Zero the biases, as the authors do."""
        for layer in (self.channel_fc, self.filter_fc, self.spatial_fc, self.kernel_fc):
            if layer is not None and layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def fold_norms(self) -> None:
        """Fold the BatchNorm into the convolution before it; for evaluation alone."""
        fold(self, "fc", "bn")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return gates (B, C_in, 1, 1), (B, C, 1, 1), (B, 1, k * k), and shares (B, kernels)."""
        seen = F.relu(self.bn(self.fc(mean_over(x, 2, 3))))
        channels, filters, taps = (
            (layer(seen) / self.temperature).sigmoid()
            for layer in (self.channel_fc, self.filter_fc, self.spatial_fc)
        )
        shares = None
        if self.kernel_fc is not None:
            shares = (self.kernel_fc(seen).flatten(1) / self.temperature).softmax(1)
        return channels, filters, taps.flatten(1).unsqueeze(1), shares


@register_block("odconv", kind="mixer")
class OmniDimensionalDynamicConv(nn.Module):
    """A 3x3 convolution that each image makes for itself: (B, C_in, H, W) -> (B, C, H/s, W/s).

    y = a_f * sum_n a_n (a_s * W_n) conv (a_c * x), with gates of the input channels a_c, the output
    channels (filters) a_f and the taps a_s by sigmoids, and shares of the kernels a_n by a softmax,
    all of relu(BN(W mean_{hw}(x))) of max(min_hidden, C_in * reduction) channels (section 3.2).
    Parameters are named as the authors' (``weight``, ``attention.fc``, ``attention.bn``,
    ``attention.channel_fc``, ``filter_fc``, ``spatial_fc``, ``kernel_fc``). BatchNorm and
    activation behind it are the block's. Kernels start by Kaiming normal over the fan-out of each,
    the attention's biases at zero, as the authors'. Differs from the paper: the temperature, which
    the authors bring from 30 to 1 over the first epochs, stays as it is given; and as a ResNet's
    mixer it is one convolution of a block, where theirs makes all of them so. ``weight`` is the
    authors' with C_in, k and k as one axis, as PyTorch lays only maps out channels_last.

    Args:
        kernels: of which an image's is mixed.
        reduction: gates are made from this part of the channels that enter.
        min_hidden: and from so many channels at least.
        temperature: divides all scores; a larger one makes gates and shares more alike.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        kernels: Annotated[int, Field(ge=1, le=64)] = 4,
        reduction: Annotated[float, Field(gt=0, le=1)] = 1 / 16,
        min_hidden: PositiveInt = 16,
        temperature: PositiveFloat = 1.0,
    ) -> None:
        super().__init__()
        self.stride = stride
        hidden = max(min_hidden, int(in_channels * reduction))
        self.attention = _Attention(in_channels, out_channels, hidden, kernels, temperature)
        self.weight = nn.Parameter(torch.empty(kernels, out_channels, in_channels * _TAPS))
        self.init_weights()

    def init_weights(self) -> None:
        """Kaiming normal over the fan-out of each kernel."""
        with torch.no_grad():
            for kernel in self.weight.unflatten(2, (-1, _SIZE, _SIZE)):
                nn.init.kaiming_normal_(kernel, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        channels, filters, taps, shares = self.attention(x)
        out_channels = self.weight.shape[1]
        # The sum over kernels, of each tap: nothing of the size of all images' kernels is kept but
        # their kernels.
        parts = taps if shares is None else shares.unsqueeze(2) * taps  # (B, N, k * k)
        kernels = self.weight.flatten(1).unflatten(1, (-1, _TAPS))  # (N, C * C_in, k * k)
        own = torch.einsum("bnt,nft->bft", parts, kernels).contiguous()
        own = own.view(-1, self.weight.shape[2] // _TAPS, _SIZE, _SIZE)  # (B * C, C_in, k, k)
        images = gated_product(x, [channels]).flatten(0, 1).unsqueeze(0)  # (1, B * C_in, H, W)
        images = widened(images, own, self.stride, 1)
        out = F.conv2d(images, own, None, self.stride, 1, 1, x.shape[0])
        out = ungrouped(out.squeeze(0).unsqueeze(1), out_channels, like=x)
        return gated_product(out, [filters])
