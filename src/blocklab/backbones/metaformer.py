"""MetaFormer: one skeleton for networks whose blocks mix positions, then channels.

Yu et al., MetaFormer Is Actually What You Need, CVPR 2022, arXiv:2111.11418. Forms of it are
ConvNeXt (arXiv:2201.03545) and V2 (2301.00808), InceptionNeXt (2303.16900), SLaK (2207.03620),
UniRepLKNet (2311.15599), PoolFormer and MambaOut (2405.07992). What differs is data: the token
mixer, how a block is put together (`blocklab.backbones.metaformer_blocks`), and the layers between
the stages. Weights start as all but PoolFormer's authors say: normal with 0.02, truncated, and zero
biases; PoolFormer's leave the stem and what is between the stages to PyTorch. The head is a mean
over positions, then LayerNorm, also of PoolFormer, as timm has it, whose authors take the GroupNorm
of the map and then its mean.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from blocklab.backbones.base import Backbone
from blocklab.backbones.config import (
    BackboneConfig,
    create_staged_chain,
    drop_path_rates,
    parse_staged_chain,
)
from blocklab.backbones.metaformer_blocks import BLOCKS, MIXER_KINDS, BlockPlan, Norm, make_norm
from blocklab.blocks.activation import create_activation
from blocklab.blocks.folding import fold, fold_before, is_norm
from blocklab.blocks.option_types import Activation
from blocklab.blocks.registry import BlockSpec, block_info, parse_block
from blocklab.errors import InputError
from blocklab.kernels.strided import StridedConv2d


def _parse_mixer(value: object) -> BlockSpec:
    mixer = parse_block(MIXER_KINDS, value)
    usual = parse_block(MIXER_KINDS, mixer["type"])
    for option in block_info(MIXER_KINDS, mixer["type"]).width_options:
        if mixer.get(option) != usual.get(option):
            raise InputError(
                f"{option} is the width inside a ResNet's block; in a MetaFormer '{mixer['type']}' "
                f"is as wide as its stage: leave {option} out, and set widths"
            )
    return mixer


def _parse_mixers(value: object) -> BlockSpec | list[Any]:
    """A mixer; or one for each stage, where a list holds those that a stage's blocks repeat."""
    if not isinstance(value, list | tuple):
        return _parse_mixer(value)
    if not value or any(isinstance(one, list | tuple) and not one for one in value):
        raise InputError("a mixer for each stage is a list with as many, none of them empty")
    return [
        [_parse_mixer(part) for part in one] if isinstance(one, list | tuple) else _parse_mixer(one)
        for one in value
    ]


class MetaFormerConfig(BackboneConfig):
    """A MetaFormer as data."""

    widths: tuple[PositiveInt, ...]
    depths: tuple[PositiveInt, ...]
    stem: Literal["imagenet", "cifar"] = "imagenet"
    embedding: Literal["patch", "overlap", "two_convs"] = Field(
        "patch", description="the ImageNet stem: 4x4 patches, a 7x7 convolution, or two 3x3"
    )
    downsample: Literal["patch", "conv"] = Field(
        "patch", description="between stages: norm and 2x2 patches, or a 3x3 convolution and norm"
    )
    outer_norm: Norm | None = Field("layer", description="of the stem and between stages")
    block: Literal["single", "double", "gated"] = Field(
        "single", description="residuals as ConvNeXt's, PoolFormer's or MambaOut's"
    )
    mixer: Annotated[
        BlockSpec | list[BlockSpec | list[BlockSpec]], BeforeValidator(_parse_mixers)
    ] = parse_block(MIXER_KINDS, "depthwise")
    attention: list[BlockSpec] = Field([], description="after the mixer, in its residual")
    norm: Norm = "layer"
    activation: Activation = "gelu"
    mlp_ratios: tuple[PositiveFloat, ...] = (4, 4, 4, 4)
    grn: bool = Field(False, description="Global Response Normalisation inside the MLP")
    mlp_norm: bool = Field(False, description="BatchNorm after the MLP")
    layer_scale: PositiveFloat | None = 1e-6
    head_norm: bool = Field(True, description="LayerNorm of the pooled features")
    head_ratio: PositiveInt | None = Field(
        None, description="of a hidden layer before the classifier, in widths of the last stage"
    )

    @property
    def blocks_per_stage(self) -> tuple[int, ...]:
        return self.depths

    @property
    def first_conv(self) -> str:
        two = self.stem == "imagenet" and self.embedding == "two_convs"
        return "stem.conv1" if two else "stem.conv"

    @property
    def stem_stride(self) -> int:
        return 4 if self.stem == "imagenet" else 1

    @model_validator(mode="before")
    @classmethod
    def _parse_attention(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "attention" not in data:
            return data
        depths = data.get("depths")
        stages = len(depths) if isinstance(depths, list | tuple) else 4
        return {**data, "attention": parse_staged_chain(data["attention"], stages)}

    @model_validator(mode="before")
    @classmethod
    def _no_embedding_of_cifar(cls, data: Any) -> Any:
        # The base may say one, and what is not built is no part of what a network is.
        if isinstance(data, dict) and data.get("stem") == "cifar":
            return {key: value for key, value in data.items() if key != "embedding"}
        return data

    @model_validator(mode="after")
    def _same_lengths(self) -> "MetaFormerConfig":
        if not len(self.widths) == len(self.depths) == len(self.mlp_ratios):
            raise ValueError("widths, depths and mlp_ratios need one number a stage each")
        if isinstance(self.mixer, list) and len(self.mixer) != len(self.depths):
            raise ValueError(f"mixer is one block, or a list of {len(self.depths)}: one a stage")
        if self.block == "gated" and min(self.mlp_ratios) < 1:
            raise ValueError(
                "a gated block mixes as many channels as its stage has; mlp_ratios are 1 or more"
            )
        return self

    def mixer_of(self, stage: int, index: int) -> BlockSpec:
        """Return the mixer of a block, both counted from 0."""
        chosen = self.mixer[stage] if isinstance(self.mixer, list) else self.mixer
        return chosen[index % len(chosen)] if isinstance(chosen, list) else chosen


class _Convolution(nn.Module):
    """One convolution and a norm: (B, C_in, H, W) -> (B, C, H / s, W / s)."""

    def __init__(
        self, in_chans: int, width: int, kernel: int, stride: int, padding: int, norm: Norm | None
    ) -> None:
        super().__init__()
        self.conv = StridedConv2d(in_chans, width, kernel, stride, padding)
        self.norm = make_norm(norm, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))

    def fold_norms(self) -> None:
        """Fold BatchNorm into the convolution before it; for evaluation alone."""
        if is_norm(self.norm):
            fold(self, "conv", "norm")


class _TwoConvStem(nn.Module):
    """Two strided 3x3 convolutions, each with its norm: (B, C_in, H, W) -> (B, C, H/4, W/4)."""

    def __init__(self, in_chans: int, width: int, norm: Norm | None, activation: str) -> None:
        super().__init__()
        half = max(1, width // 2)
        self.conv1 = StridedConv2d(in_chans, half, 3, 2, 1)
        self.norm1 = make_norm(norm, half)
        self.act = create_activation(activation)
        self.conv2 = StridedConv2d(half, width, 3, 2, 1)
        self.norm2 = make_norm(norm, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm1(self.conv1(x)))
        return self.norm2(self.conv2(x))

    def fold_norms(self) -> None:
        """Fold each BatchNorm into the convolution before it; for evaluation alone."""
        for index in (1, 2):
            if is_norm(self.get_submodule(f"norm{index}")):
                fold(self, f"conv{index}", f"norm{index}")


class _PatchDownsample(nn.Module):
    """A norm, then 2x2 patches: (B, C, H, W) -> (B, C', H // 2, W // 2)."""

    def __init__(self, channels: int, width: int, norm: Norm | None) -> None:
        super().__init__()
        self.norm = make_norm(norm, channels)
        self.conv = StridedConv2d(channels, width, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(x))

    def fold_norms(self) -> None:
        """Fold BatchNorm into the convolution after it; for evaluation alone."""
        if is_norm(self.norm):
            fold_before(self, "norm", "conv")


class _Stage(nn.Module):
    """What leads to a stage, and its blocks."""

    def __init__(self, downsample: nn.Module, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class _PreLogits(nn.Module):
    """Pooled features before the classifier: (B, C) -> (B, C), or (B, ratio C) where hidden."""

    def __init__(self, width: int, config: MetaFormerConfig) -> None:
        super().__init__()
        hidden = width * (config.head_ratio or 0)
        self.norm = nn.LayerNorm(width, eps=1e-6) if config.head_norm else nn.Identity()
        self.fc = nn.Linear(width, hidden) if hidden else nn.Identity()
        self.act = create_activation(config.activation) if hidden else nn.Identity()
        self.fc_norm = nn.LayerNorm(hidden, eps=1e-6) if hidden else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc_norm(self.act(self.fc(self.norm(x))))


class MetaFormer(Backbone):
    """A MetaFormer from its configuration: (B, in_chans, H, W) -> (B, num_classes)."""

    family = "metaformer"

    def __init__(
        self, config: MetaFormerConfig, num_classes: int = 1000, in_chans: int = 3
    ) -> None:
        super().__init__(config, num_classes, in_chans)
        self.stem = _stem(config, in_chans)
        rates = iter(drop_path_rates(config.drop_path_rate, sum(config.depths)))
        stages: list[nn.Module] = []
        for stage, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
            before = config.widths[stage - 1]
            lead = nn.Identity() if stage == 0 else _downsample(config, before, width)
            plans = (_plan(config, stage, index, next(rates)) for index in range(depth))
            stages.append(_Stage(lead, [BLOCKS[config.block](plan) for plan in plans]))
        self.stages = nn.ModuleList(stages)
        width = config.widths[-1]
        self.pre_logits: nn.Module = _PreLogits(width, config)
        self.stage_modules = tuple(f"stages.{index}" for index in range(len(stages)))
        reductions = [self.stem_stride * 2**index for index in range(len(stages))]
        self.finish(list(config.widths), reductions, width * (config.head_ratio or 1))
        self.init_weights()

    @classmethod
    def crop_of(cls, config: MetaFormerConfig) -> float:
        """Return MambaOut's, PoolFormer's and InceptionNeXt-B's, each as timm lists it."""
        kind, width = config.mixer_of(0, 0)["type"], config.widths[0]
        if config.block == "gated":
            return 1.0
        if kind == "pooling":
            return 0.95 if width > 64 else 0.9
        return 0.95 if kind == "inception_depthwise" and width > 96 else cls.crop_pct

    def forward_stem(self, x: Tensor) -> Tensor:
        return self.stem(x)

    def forward_stage(self, x: Tensor, stage: int) -> Tensor:
        return self.stages[stage](x)

    def forward_pooled(self, x: Tensor) -> Tensor:
        return self.pre_logits(x)

    def stage_parts(self, stage: int) -> tuple[str, ...]:
        return (f"stages.{stage}",)

    def prune_intermediate_layers(
        self,
        indices: int | list[int] | tuple[int, ...] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Remove what the maps after the chosen stages do not need; return the stages from 0.

        What lies between pool and classifier goes with the head, or with the last stage.

        Raises:
            InputError: for a stage that the network has not, or a head that shall stay without it.
        """
        stages = len(self.stage_modules)
        chosen = super().prune_intermediate_layers(indices, prune_norm, prune_head)
        if prune_head or len(self.stage_modules) < stages:
            self.pre_logits = nn.Identity()
            self.head_hidden_size = self.num_features
            self.pruned = (*self.pruned, "pre_logits.")
        return chosen

    def init_module(self, module: nn.Module) -> None:
        """Truncated normal with a deviation of 0.02 for matrices and kernels, zero for biases."""
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def init_classifier(self, classifier: nn.Module) -> None:
        self.init_module(classifier)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        # What leads to a stage goes with its first block; what follows the pool is the head's.
        blocks = [
            (r"^stages\.(\d+)\.downsample", (0,)),
            (r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.blocks\.(\d+)", None),
        ]
        return {"stem": r"^stem", "blocks": blocks[1:] if coarse else blocks}

    def no_weight_decay(self) -> set[str]:
        names = (name for name, _ in self.named_parameters())
        return {name for name in names if "layer_scale" in name}


def _stem(config: MetaFormerConfig, in_chans: int) -> nn.Module:
    width, norm = config.widths[0], config.outer_norm
    if config.stem == "cifar":
        return _Convolution(in_chans, width, 3, 1, 1, norm)
    if config.embedding == "two_convs":
        return _TwoConvStem(in_chans, width, norm, config.activation)
    kernel, padding = (4, 0) if config.embedding == "patch" else (7, 2)
    return _Convolution(in_chans, width, kernel, 4, padding, norm)


def _downsample(config: MetaFormerConfig, channels: int, width: int) -> nn.Module:
    if config.downsample == "patch":
        return _PatchDownsample(channels, width, config.outer_norm)
    return _Convolution(channels, width, 3, 2, 1, config.outer_norm)


def _plan(config: MetaFormerConfig, stage: int, index: int, drop_path: float) -> BlockPlan:
    channels = config.widths[stage]
    return BlockPlan(
        channels=channels,
        mixer=config.mixer_of(stage, index),
        gate=create_staged_chain(config.attention, stage + 1, channels),
        norm=config.norm,
        activation=config.activation,
        mlp_ratio=config.mlp_ratios[stage],
        grn=config.grn,
        mlp_norm=config.mlp_norm,
        layer_scale=config.layer_scale,
        drop_path=drop_path,
    )
