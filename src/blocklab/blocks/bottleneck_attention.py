"""BAM. Park, Woo, Lee and Kweon, BMVC 2018, arXiv:1807.06514, section 3."""

from collections import OrderedDict
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from blocklab.blocks.folding import fold, is_norm
from blocklab.blocks.option_types import LARGEST_KERNEL
from blocklab.blocks.registry import register_block
from blocklab.kernels.gates import added_gate
from blocklab.kernels.pooling import mean_over
from blocklab.kernels.small_map import SmallMapConv2d

Norms = Literal["last", "inner"]
Dilation = Annotated[PositiveInt, Field(le=LARGEST_KERNEL)]


class _Chain(nn.Sequential):
    """Convolutions, each with its norm's and its ReLU's name; the last one has no ReLU.

    ``norms`` says which have a norm: the last one, or all others.
    """

    def __init__(self, norms: Norms, *layers: tuple[str, nn.Conv2d, str, str | None]) -> None:
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        for name, convolution, norm, activation in layers:
            parts[name] = convolution
            if (activation is None) == (norms == "last"):
                parts[norm] = nn.BatchNorm2d(convolution.out_channels)
            if activation is not None:
                parts[activation] = nn.ReLU(inplace=True)
        super().__init__(parts)

    def fold_norms(self) -> None:
        """Fold each BatchNorm into the convolution before it; for evaluation alone."""
        for before, name in pairwise(list(self._modules)):
            if is_norm(self.get_submodule(name)):
                fold(self, before, name)


class _ChannelGate(nn.Module):
    """The scores of the channels: (B, C, H, W) -> (B, C, 1, 1)."""

    def __init__(self, channels: int, hidden: int, norms: Norms) -> None:
        super().__init__()
        self.gate_c = _Chain(
            norms,
            ("gate_c_fc_0", SmallMapConv2d(channels, hidden, 1), "gate_c_bn_1", "gate_c_relu_1"),
            ("gate_c_fc_final", SmallMapConv2d(hidden, channels, 1), "gate_c_bn_final", None),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.gate_c(mean_over(x, 2, 3))


class _SpatialGate(nn.Module):
    """The scores of the positions: (B, C, H, W) -> (B, 1, H, W)."""

    def __init__(self, channels: int, hidden: int, dilation: int, norms: Norms) -> None:
        super().__init__()
        dilated = [
            (
                f"gate_s_conv_di_{number}",
                SmallMapConv2d(hidden, hidden, 3, padding=dilation, dilation=dilation),
                f"gate_s_bn_di_{number}",
                f"gate_s_relu_di_{number}",
            )
            for number in range(2)
        ]
        reduce = SmallMapConv2d(channels, hidden, 1)
        self.gate_s = _Chain(
            norms,
            ("gate_s_conv_reduce0", reduce, "gate_s_bn_reduce0", "gate_s_relu_reduce0"),
            *dilated,
            ("gate_s_conv_final", SmallMapConv2d(hidden, 1, 1), "gate_s_bn_final", None),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.gate_s(x)


@register_block("bam")
class BottleneckAttention(nn.Module):
    """Add to each value a gate's part of it: (B, C, H, W) -> same.

    y = x + x * sigmoid(c + s); c = BN(W1 relu(W0 mean_{hw}(x))), (B, C, 1, 1);
    s = BN(conv1x1(relu(conv3x3(relu(conv3x3(relu(conv1x1(x)))))))), (B, 1, H, W), the 3x3
    convolutions dilated; both through max(1, C // reduction) channels, every layer with a bias.
    Parameters are named as the authors' (``channel_att.gate_c.gate_c_fc_0``,
    ``spatial_att.gate_s.gate_s_conv_di_0``; norms that they have not, ``..._bn_final``); their
    fully connected layers are 1x1 convolutions here. The backbone initialises it.

    The paper puts it at the end of a stage, before the maps shrink; as an attention it stands in
    each block, within its shortcut, of the stages that ``stages`` names.

    Differs from the paper: ReLU between the layers, which its equations leave out and the authors'
    code has. That code multiplies the scores, and norms all layers but the last:
    ``combine="product", norms="inner"``. The maximum, ``combine="max"``, is of the paper's table 1.

    Args:
        reduction: both gates work on C // reduction channels.
        dilation: of the two 3x3 convolutions of the gate of positions.
        combine: how the two gates' scores become one: their sum, product or maximum.
        norms: which layers of a gate have BatchNorm: the last alone, or all others.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: PositiveInt = 16,
        dilation: Dilation = 4,
        combine: Literal["sum", "product", "max"] = "sum",
        norms: Norms = "last",
    ) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.combine = combine
        self.channel_att = _ChannelGate(channels, hidden, norms)
        self.spatial_att = _SpatialGate(channels, hidden, dilation, norms)

    def forward(self, x: Tensor) -> Tensor:
        channel, spatial = self.channel_att(x), self.spatial_att(x)
        if self.combine == "sum":
            scores = channel + spatial  # (B, C, H, W)
        elif self.combine == "product":
            scores = channel * spatial
        else:
            scores = torch.maximum(channel, spatial)
        return added_gate(x, scores.sigmoid())
