"""Visual Attention Network with slots. Guo et al., CVMJ 2023, arXiv:2202.09741.

With the paper's blocks in its slots, parameter names and initialisation are the authors'.
"""

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, PositiveInt, model_validator
from timm.layers import DropPath, LayerNorm2d
from timm.models._manipulate import MATCH_PREV_GROUP
from torch import Tensor, nn

from blocklab.backbones.base import Backbone
from blocklab.backbones.config import BackboneConfig, drop_path_rates
from blocklab.blocks.activation import create_activation
from blocklab.blocks.folding import (
    convolution_obstacle,
    drop_obstacle,
    exact,
    fold,
    fold_before,
    like,
    norm_obstacle,
    part_obstacle,
    scale_and_shift,
    set_convolution,
)
from blocklab.blocks.obstacles import keep, watched
from blocklab.blocks.option_types import Activation
from blocklab.blocks.protocol import width_of
from blocklab.blocks.registry import BlockSpec, create_block, parse_block
from blocklab.kernels.small_map import SmallMapConv2d

_MIXER_KINDS = ("token_mixer", "attention")
_LAYER_SCALE = 0.01


def _parse_mixer(value: object) -> BlockSpec:
    return parse_block(_MIXER_KINDS, value)


def _parse_ffn_mixer(value: object) -> BlockSpec:
    return parse_block("ffn_mixer", value)


class VANConfig(BackboneConfig):
    """A VAN as data."""

    widths: tuple[PositiveInt, ...]
    depths: tuple[PositiveInt, ...]
    ffn_ratios: tuple[PositiveInt, ...] = (8, 8, 4, 4)
    stem: Literal["imagenet", "cifar"] = "imagenet"
    mixer: Annotated[BlockSpec, BeforeValidator(_parse_mixer)] = parse_block(
        _MIXER_KINDS, "large_kernel_attention"
    )
    ffn_mixer: Annotated[BlockSpec, BeforeValidator(_parse_ffn_mixer)] = parse_block(
        "ffn_mixer", "depthwise3x3"
    )
    activation: Activation = "gelu"

    @property
    def blocks_per_stage(self) -> tuple[int, ...]:
        return self.depths

    @property
    def first_conv(self) -> str:
        return "patch_embed1.proj"

    @property
    def stem_stride(self) -> int:
        return 4 if self.stem == "imagenet" else 1

    @model_validator(mode="after")
    def _same_lengths(self) -> "VANConfig":
        if not len(self.widths) == len(self.depths) == len(self.ffn_ratios):
            raise ValueError("widths, depths and ffn_ratios need one number a stage each")
        return self


class PatchEmbed(nn.Module):
    """An overlapping strided convolution and BatchNorm: (B, C_in, H, W) -> (B, C, H/s, W/s)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = SmallMapConv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2)
        self.norm = nn.BatchNorm2d(out_channels)

    def fold_norms(self) -> None:
        """Fold BatchNorm into the convolution before it; for evaluation alone."""
        fold(self, "proj", "norm")

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x))


class Attention(nn.Module):
    """x + 1x1(mixer(act(1x1(x)))): (B, C, H, W) -> same."""

    def __init__(self, channels: int, mixer: BlockSpec, activation: str, drop_path: float) -> None:
        super().__init__()
        self.proj_1 = SmallMapConv2d(channels, channels, 1)
        self.activation = create_activation(activation)
        self.spatial_gating_unit = create_block(
            _MIXER_KINDS, mixer, channels=channels, drop_path=drop_path
        )
        widened = width_of(self.spatial_gating_unit, channels)
        self.proj_2 = SmallMapConv2d(widened, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.proj_2(self.spatial_gating_unit(self.activation(self.proj_1(x))))


class FFN(nn.Module):
    """1x1, ffn mixer, activation, 1x1: (B, C, H, W) -> same."""

    def __init__(self, channels: int, hidden: int, mixer: BlockSpec, activation: str) -> None:
        super().__init__()
        self.fc1 = SmallMapConv2d(channels, hidden, 1)
        self.dwconv = create_block("ffn_mixer", mixer, channels=hidden, activation=activation)
        self.act = create_activation(activation)
        self.fc2 = SmallMapConv2d(width_of(self.dwconv, hidden), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.dwconv(self.fc1(x))))


class Block(nn.Module):
    """Two residual halves, each scaled a channel at a time by a learned factor from 0.01."""

    def __init__(self, channels: int, ffn_ratio: int, config: VANConfig, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.attn = Attention(channels, config.mixer, config.activation, drop_path)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.BatchNorm2d(channels)
        self.mlp = FFN(channels, channels * ffn_ratio, config.ffn_mixer, config.activation)
        self.layer_scale_1 = nn.Parameter(torch.full((channels,), _LAYER_SCALE))
        self.layer_scale_2 = nn.Parameter(torch.full((channels,), _LAYER_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        scale_1, scale_2 = self.layer_scale_1[:, None, None], self.layer_scale_2[:, None, None]
        x = x + self.drop_path(scale_1 * self.attn(self.norm1(x)))
        return x + self.drop_path(scale_2 * self.mlp(self.norm2(x)))

    def fold_norms(self) -> "_FoldedBlock | None":
        """Fold both norms and both layer scales; return what takes this block's place.

        Where something stands in the way, all stays as it is.
        """
        if why := self._obstacle():
            keep(self.norm1, why)
            return keep(self.norm2, why)
        attention, feed_forward = self.attn, self.mlp
        scale, shift = scale_and_shift(self.norm1)
        first, second = exact(self.layer_scale_1), exact(self.layer_scale_2)
        skip = like((1 + first * scale)[:, None, None], self.layer_scale_1)
        fold_before(self, "norm1", "attn.proj_1")
        fold_before(self, "norm2", "mlp.fc1")
        _scale_outputs(attention.proj_2, first, shift)
        _scale_outputs(feed_forward.fc2, second, torch.zeros_like(shift))
        return _FoldedBlock(attention, feed_forward, skip)

    def _obstacle(self) -> str:
        """Say why this block must stay as it is; nothing where it need not.

        Its layer scales change what each half gives, and its norms what each gets, so that not only
        the convolutions but the halves themselves may not be seen by others.
        """
        return (
            (f"the block {why}" if (why := watched(self)) else "")
            or part_obstacle(self, "attn", Attention)
            or part_obstacle(self, "mlp", FFN)
            or drop_obstacle(self, "drop_path")
            or norm_obstacle(self, "norm1")
            or norm_obstacle(self, "norm2")
            or convolution_obstacle(self, "attn.proj_1", pointwise=True)
            or convolution_obstacle(self, "attn.proj_2")
            or convolution_obstacle(self, "mlp.fc1", pointwise=True)
            or convolution_obstacle(self, "mlp.fc2")
        )


def _scale_outputs(conv: nn.Conv2d, scale: Tensor, shift: Tensor) -> None:
    """Let a convolution give scale * (what it gives + shift)."""
    bias = shift if conv.bias is None else exact(conv.bias) + shift
    set_convolution(conv, exact(conv.weight) * scale[:, None, None, None], bias * scale)


class _FoldedBlock(nn.Module):
    """A `Block` with both norms and both layer scales in its 1x1 convolutions: same outputs.

    The attention's shortcut passes the norm, too: x + s (bn(x) + f(bn(x))) is, a channel at a
    time, ``skip`` * x + f'(x) with skip = 1 + s * the norm's scale.
    """

    skip: Tensor

    def __init__(self, attention: Attention, feed_forward: FFN, skip: Tensor) -> None:
        super().__init__()
        self.attn = attention
        self.mlp = feed_forward
        self.register_buffer("skip", skip)

    def forward(self, x: Tensor) -> Tensor:
        attention = self.attn
        gated = attention.spatial_gating_unit(attention.activation(attention.proj_1(x)))
        x = torch.addcmul(attention.proj_2(gated), x, self.skip)
        return x + self.mlp(x)


class VAN(Backbone):
    """VAN from a `VANConfig`: (B, in_chans, H, W) -> (B, num_classes)."""

    family = "van"
    crop_pct = 0.9

    def __init__(self, config: VANConfig, num_classes: int = 1000, in_chans: int = 3) -> None:
        super().__init__(config, num_classes, in_chans)
        rates = iter(drop_path_rates(config.drop_path_rate, sum(config.depths)))
        channels, reduction, reductions = in_chans, 1, []
        for stage, (width, depth, ratio) in enumerate(
            zip(config.widths, config.depths, config.ffn_ratios, strict=True), start=1
        ):
            if stage == 1:
                kernel, stride = (7, 4) if config.stem == "imagenet" else (3, 1)
            else:
                kernel, stride = 3, 2
            blocks = [Block(width, ratio, config, next(rates)) for _ in range(depth)]
            setattr(self, f"patch_embed{stage}", PatchEmbed(channels, width, kernel, stride))
            setattr(self, f"block{stage}", nn.ModuleList(blocks))
            setattr(self, f"norm{stage}", LayerNorm2d(width, eps=1e-6))
            channels, reduction = width, reduction * stride
            reductions.append(reduction)
        self.stage_modules = tuple(f"norm{stage}" for stage in range(1, len(config.widths) + 1))
        self.finish(list(config.widths), reductions)
        self.init_weights()

    def forward_stem(self, x: Tensor) -> Tensor:
        return x  # the stem is the first stage's patch embedding

    def forward_stage(self, x: Tensor, stage: int) -> Tensor:
        x = getattr(self, f"patch_embed{stage + 1}")(x)
        for block in getattr(self, f"block{stage + 1}"):
            x = block(x)
        return getattr(self, f"norm{stage + 1}")(x)

    def stage_parts(self, stage: int) -> tuple[str, ...]:
        return tuple(f"{part}{stage + 1}" for part in ("patch_embed", "block", "norm"))

    def init_module(self, module: nn.Module) -> None:
        """Normal over the fan-out of one group for convolutions, truncated normal for the head."""
        if isinstance(module, nn.Conv2d):
            kernel = module.kernel_size[0] * module.kernel_size[1]
            fan_out = kernel * module.out_channels // module.groups
            nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            self.init_classifier(module)

    def init_classifier(self, classifier: nn.Module) -> None:
        if isinstance(classifier, nn.Linear):
            nn.init.trunc_normal_(classifier.weight, std=0.02)
            if classifier.bias is not None:
                nn.init.zeros_(classifier.bias)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        if coarse:
            return {"stem": r"^patch_embed1", "blocks": r"^(?:patch_embed|block|norm)(\d+)"}
        # A stage's embedding goes with its first block, its norm with its last.
        blocks = [
            (r"^block(\d+)\.(\d+)", None),
            (r"^patch_embed(\d+)", (0,)),
            (r"^norm(\d+)", MATCH_PREV_GROUP),
        ]
        return {"stem": r"^patch_embed1", "blocks": blocks}

    def no_weight_decay(self) -> set[str]:
        names = (name for name, _ in self.named_parameters())
        return {name for name in names if "layer_scale" in name}
