"""Gather-Excite. Hu, Shen, Albanie, Sun and Vedaldi, NeurIPS 2018, arXiv:1810.12348, section 3."""

from collections import OrderedDict
from typing import Literal

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from blocklab.blocks.folding import fold
from blocklab.blocks.registry import register_block
from blocklab.errors import InputError
from blocklab.kernels.gates import gated_product
from blocklab.kernels.pooling import mean_over
from blocklab.kernels.small_map import SmallMapConv2d
from blocklab.kernels.strided import StridedConv2d


class _Gather(nn.Sequential):
    """3x3 depth-wise convolutions with a stride of 2, BatchNorm, and ReLU between them."""

    def __init__(self, channels: int, steps: int) -> None:
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        for step in range(1, steps + 1):
            parts[f"conv{step}"] = StridedConv2d(
                channels, channels, 3, 2, padding=1, groups=channels, bias=False
            )
            parts[f"norm{step}"] = nn.BatchNorm2d(channels)
            if step < steps:
                parts[f"act{step}"] = nn.ReLU(inplace=True)
        super().__init__(parts)
        self.steps = steps

    def fold_norms(self) -> None:
        """Fold each BatchNorm into the convolution before it; for evaluation alone."""
        for step in range(1, self.steps + 1):
            fold(self, f"conv{step}", f"norm{step}")


class _Excite(nn.Module):
    """W2 relu(W1 x), 1x1 convolutions."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = SmallMapConv2d(channels, hidden, 1)
        self.fc2 = SmallMapConv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(x)))


_REDUCTION = 16


@register_block("gather_excite")
class GatherExcite(nn.Module):
    """Gate each value by what is gathered around it: (B, C, H, W) -> same.

    y = x * sigmoid(upsample(g)), to the nearest. GE-theta- (the default) gathers means: of the
    whole map (``extent="global"``), or of windows of 2e - 1 positions at a stride of e, without
    what is beyond the border. GE-theta (``extra_params=True``) gathers by log2(e) depth-wise 3x3
    convolutions with a stride of 2, each with BatchNorm, ReLU between them. GE-theta+
    (``excite=True`` besides) gates by W2 relu(W1 g) instead of g, with W1 to
    max(1, C // reduction) channels. Global means with ``excite`` are squeeze-and-excitation.
    Parameters are named as timm's (``gather.conv1``, ``gather.norm1``, ``mlp.fc1``, ``mlp.fc2``).
    The backbone initialises it. Differs from the paper: learned gathering has no global extent,
    whose kernel would be the map's size, which is not known before an image is seen.

    Args:
        extent: how far one value gathers: the whole map, or so many positions.
        extra_params: gather by learned convolutions instead of means.
        excite: gate by a small network of what was gathered.
        reduction: with excite, that network has C // reduction channels.
    """

    def __init__(
        self,
        channels: int,
        *,
        extent: Literal["global", 2, 4, 8] = "global",
        extra_params: bool = False,
        excite: bool = False,
        reduction: PositiveInt = _REDUCTION,
    ) -> None:
        super().__init__()
        if extra_params and extent == "global":
            raise InputError(
                "gather_excite learns its gathering at a local extent alone, as a global one needs "
                "the map's size; give extent: 2, 4 or 8 beside extra_params"
            )
        if reduction != _REDUCTION and not excite:
            raise InputError(
                "gather_excite's reduction is that of the network which excite adds; "
                "give excite: true beside it"
            )
        self.extent = 0 if extent == "global" else extent
        self.gather = _Gather(channels, self.extent.bit_length() - 1) if extra_params else None
        self.mlp = _Excite(channels, max(1, channels // reduction)) if excite else nn.Identity()

    def _gathered(self, x: Tensor) -> Tensor:
        if self.gather is not None:
            return self.gather(x)
        if not self.extent:
            return mean_over(x, 2, 3)
        window, beyond = 2 * self.extent - 1, self.extent - 1
        return F.avg_pool2d(x, window, self.extent, beyond, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.mlp(self._gathered(x)).sigmoid()
        if self.extent:
            gate = F.interpolate(gate, size=x.shape[2:])
        return gated_product(x, [gate])
