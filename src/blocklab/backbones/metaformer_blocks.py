"""The blocks of a MetaFormer: how a token mixer and a channel MLP are put together."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from timm.layers import DropPath, LayerNorm2d
from torch import Tensor, nn

from blocklab.blocks.activation import create_activation
from blocklab.blocks.dilated_reparam import DilatedReparam
from blocklab.blocks.folding import (
    convolution_obstacle,
    drop_obstacle,
    fold,
    fold_before,
    is_norm,
    part_obstacle,
    set_convolution,
)
from blocklab.blocks.global_response_norm import GlobalResponseNorm
from blocklab.blocks.obstacles import watched
from blocklab.blocks.protocol import width_of
from blocklab.blocks.registry import BlockSpec, create_block
from blocklab.kernels.small_map import SmallMapConv2d

MIXER_KINDS = ("token_mixer", "attention", "mixer")
Norm = Literal["layer", "batch", "group"]
_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "layer": LayerNorm2d,  # over the channels of each pixel, eps 1e-6
    "batch": nn.BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(1, channels),  # over all of an image
}
assert tuple(_NORMS) == get_args(Norm)


def make_norm(name: Norm | None, channels: int) -> nn.Module:
    """Return the norm of a name; the identity where there is none."""
    return nn.Identity() if name is None else _NORMS[name](channels)


@dataclass(frozen=True)
class BlockPlan:
    """What a block is made of."""

    channels: int
    mixer: BlockSpec
    gate: nn.Module | None  # an attention after the mixer
    norm: Norm
    activation: str
    mlp_ratio: float
    grn: bool
    mlp_norm: bool  # BatchNorm after the MLP, which then has no bias at its end
    layer_scale: float | None
    drop_path: float

    @property
    def hidden(self) -> int:
        """Return the width inside the MLP."""
        return max(1, int(self.mlp_ratio * self.channels))


class TokenMixer(nn.Sequential):
    """A mixer that widens, and a 1x1 convolution back to C: (B, C, H, W) -> same."""


def _mixer(plan: BlockPlan) -> nn.Module:
    channels = plan.channels
    mixer = create_block(
        MIXER_KINDS,
        plan.mixer,
        channels=channels,
        drop_path=plan.drop_path,
        in_channels=channels,
        out_channels=channels,
        stride=1,
        first_in_stage=False,
        activation=plan.activation,
    )
    widened = width_of(mixer, channels)
    if widened == channels:
        return mixer
    return TokenMixer(mixer, SmallMapConv2d(widened, channels, 1))


def _layer_scale(plan: BlockPlan) -> nn.Parameter | None:
    if plan.layer_scale is None:
        return None
    return nn.Parameter(torch.full((plan.channels,), plan.layer_scale))


def _scaled(x: Tensor, scale: Tensor | None) -> Tensor:
    return x if scale is None else x * scale[:, None, None]


class MLP(nn.Module):
    """1x1, activation, [GRN], 1x1, [BatchNorm]: (B, C, H, W) -> same."""

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        hidden = plan.hidden
        self.fc1 = SmallMapConv2d(plan.channels, hidden, 1)
        self.act = create_activation(plan.activation)
        self.grn = GlobalResponseNorm(hidden) if plan.grn else nn.Identity()
        self.fc2 = SmallMapConv2d(hidden, plan.channels, 1, bias=not plan.mlp_norm)
        self.norm = nn.BatchNorm2d(plan.channels) if plan.mlp_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.fc2(self.grn(self.act(self.fc1(x)))))

    def fold_norms(self) -> None:
        """Fold BatchNorm into the convolution before it; for evaluation alone."""
        if is_norm(self.norm):
            fold(self, "fc2", "norm")


def _fold_scale(block: nn.Module, name: str) -> None:
    """Fold a layer scale into the MLP before it, where nothing stands in the way."""
    scale, mlp = getattr(block, name), block.get_submodule("mlp")
    if scale is None or watched(block) or part_obstacle(block, "mlp", MLP):
        return
    assert isinstance(mlp, MLP)
    mlp.fold_norms()
    if (
        part_obstacle(mlp, "norm", nn.Identity)
        or drop_obstacle(block, "drop_path")
        or convolution_obstacle(block, "mlp.fc2")
    ):
        return
    conv, factor = mlp.fc2, scale.double()
    bias = torch.zeros_like(factor) if conv.bias is None else conv.bias.double()
    set_convolution(conv, conv.weight.double() * factor[:, None, None, None], bias * factor)
    setattr(block, name, None)


class SingleBlock(nn.Module):
    """One residual, as ConvNeXt's: x + scale * MLP([gate](norm(mixer(x)))), same shape."""

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        self.token_mixer = _mixer(plan)
        self.norm = make_norm(plan.norm, plan.channels)
        self.gate = plan.gate
        self.mlp = MLP(plan)
        self.layer_scale = _layer_scale(plan)
        self.drop_path = DropPath(plan.drop_path)

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm(self.token_mixer(x))
        if self.gate is not None:
            out = self.gate(out)
        return x + self.drop_path(_scaled(self.mlp(out), self.layer_scale))

    def fold_norms(self) -> None:
        """Fold BatchNorm into a convolution beside it and the scale into the last; evaluation."""
        if is_norm(self.norm):
            if self.gate is None:
                if not part_obstacle(self, "mlp", MLP):
                    fold_before(self, "norm", "mlp.fc1")
            elif isinstance(self.token_mixer, nn.Conv2d):
                fold(self, "token_mixer", "norm")
            elif isinstance(self.token_mixer, DilatedReparam) and self.token_mixer.is_merged:
                fold(self, "token_mixer.lk_origin", "norm")
        _fold_scale(self, "layer_scale")


class DoubleBlock(nn.Module):
    """Two residuals, as PoolFormer's: same shape.

    x + scale1 * [gate](mixer(norm1(x))), then x + scale2 * MLP(norm2(x)).
    """

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        self.norm1 = make_norm(plan.norm, plan.channels)
        self.token_mixer = _mixer(plan)
        self.gate = plan.gate
        self.layer_scale1 = _layer_scale(plan)
        self.norm2 = make_norm(plan.norm, plan.channels)
        self.mlp = MLP(plan)
        self.layer_scale2 = _layer_scale(plan)
        self.drop_path = DropPath(plan.drop_path)

    def forward(self, x: Tensor) -> Tensor:
        out = self.token_mixer(self.norm1(x))
        if self.gate is not None:
            out = self.gate(out)
        x = x + self.drop_path(_scaled(out, self.layer_scale1))
        return x + self.drop_path(_scaled(self.mlp(self.norm2(x)), self.layer_scale2))

    def fold_norms(self) -> None:
        """Fold BatchNorm into the MLP after it, and the scale into its end; for evaluation."""
        if is_norm(self.norm2) and not part_obstacle(self, "mlp", MLP):
            fold_before(self, "norm2", "mlp.fc1")
        _fold_scale(self, "layer_scale2")


class GatedBlock(nn.Module):
    """The gated CNN block, as MambaOut's (arXiv:2405.07992, section 3.4): same shape.

    (g, i, c) = W1 norm(x) with hidden, hidden - C and C channels;
    x + scale * W2 (act(g) * [i, [gate](mixer(c))]). It mixes positions and channels in one.
    """

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        hidden = plan.hidden
        self.split = [hidden, hidden - plan.channels, plan.channels]
        self.norm = make_norm(plan.norm, plan.channels)
        self.fc1 = SmallMapConv2d(plan.channels, 2 * hidden, 1)
        self.act = create_activation(plan.activation)
        self.token_mixer = _mixer(plan)
        self.gate = plan.gate
        self.grn = GlobalResponseNorm(hidden) if plan.grn else nn.Identity()
        self.fc2 = SmallMapConv2d(hidden, plan.channels, 1, bias=not plan.mlp_norm)
        self.mlp_norm = nn.BatchNorm2d(plan.channels) if plan.mlp_norm else nn.Identity()
        self.layer_scale = _layer_scale(plan)
        self.drop_path = DropPath(plan.drop_path)

    def forward(self, x: Tensor) -> Tensor:
        gate, kept, mixed = self.fc1(self.norm(x)).split(self.split, dim=1)
        mixed = self.token_mixer(mixed)
        if self.gate is not None:
            mixed = self.gate(mixed)
        out = self.grn(self.act(gate) * torch.cat([kept, mixed], dim=1))
        out = self.mlp_norm(self.fc2(out))
        return x + self.drop_path(_scaled(out, self.layer_scale))

    def fold_norms(self) -> None:
        """Fold BatchNorm into the 1x1 convolutions beside it; for evaluation alone."""
        if is_norm(self.norm):
            fold_before(self, "norm", "fc1")
        if is_norm(self.mlp_norm):
            fold(self, "fc2", "mlp_norm")


BLOCKS: dict[str, Callable[[BlockPlan], nn.Module]] = {
    "single": SingleBlock,
    "double": DoubleBlock,
    "gated": GatedBlock,
}
