"""ResNet with slots. He, Zhang, Ren and Sun, CVPR 2016, arXiv:1512.03385.

Stem, mixer, attention, activation and downsampling are slots; with none of them filled it is
torchvision's ResNet, parameter names included. The stride of a bottleneck sits on its middle
convolution, as in torchvision's.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, PositiveInt, ValidationInfo, model_validator
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from blocklab.backbones.base import Backbone
from blocklab.backbones.config import (
    BackboneConfig,
    Sizes,
    create_staged_chain,
    drop_path_rates,
    in_stage,
    parse_staged,
    parse_staged_chain,
    without_stages,
)
from blocklab.blocks.activation import create_activation
from blocklab.blocks.folding import fold
from blocklab.blocks.option_types import Activation
from blocklab.blocks.protocol import brings_norm_and_activation
from blocklab.blocks.registry import BlockSpec, create_block, mixer_width
from blocklab.errors import InputError
from blocklab.kernels.small_map import SmallMapConv2d
from blocklab.kernels.strided import StridedConv2d

_MAX_STAGES = 4
USUAL_MIXER: BlockSpec = {"type": "conv3x3"}


class Stem(Sizes):
    """How the image enters.

    ``imagenet`` is a 7x7 convolution and a max pool, each of stride 2; ``deep`` three 3x3
    convolutions for the 7x7 (Bag of Tricks, arXiv:1812.01187, ResNet-C, whose first two have
    ``widths`` of 32, 32, as resnet50d has; without, they have 64, 64, as the report's); ``cifar``
    one 3x3 convolution of stride 1.
    """

    type: Literal["imagenet", "deep", "cifar"] = "imagenet"
    widths: tuple[PositiveInt, PositiveInt] | None = Field(
        default=None,
        description="channels of a deep stem's first two convolutions (default 64, 64)",
    )


def _parse_stem(value: object) -> object:
    value = {"type": value} if isinstance(value, str) else value
    if isinstance(value, dict) and value.get("type") == "deep" and value.get("widths") is None:
        value = {**value, "widths": (64, 64)}
    if isinstance(value, dict) and value.get("type") != "deep" and value.get("widths") is not None:
        raise ValueError("only the deep stem takes widths")
    return value


def _stages(info: ValidationInfo) -> int:
    return len(info.data.get("depths", ())) or _MAX_STAGES  # without depths that is said instead


def _parse_mixer(value: object, info: ValidationInfo) -> BlockSpec:
    mixer = parse_staged("mixer", value, _stages(info))
    # In some stages alone the usual mixer is the usual network: the other stages have it too.
    return dict(USUAL_MIXER) if without_stages(mixer) == USUAL_MIXER else mixer


def _parse_attention(value: object, info: ValidationInfo) -> list[BlockSpec]:
    return parse_staged_chain(value, _stages(info))


_WIDTHS = (64, 128, 256, 512)


class ResNetConfig(BackboneConfig):
    """A ResNet as data."""

    block: Literal["basic", "bottleneck"]
    depths: Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=_MAX_STAGES)]
    widths: tuple[PositiveInt, ...] = _WIDTHS
    stem: Annotated[Stem, BeforeValidator(_parse_stem)] = Stem()
    mixer: Annotated[BlockSpec, BeforeValidator(_parse_mixer)] = USUAL_MIXER
    attention: Annotated[list[BlockSpec], BeforeValidator(_parse_attention)] = []
    activation: Activation = "relu"
    downsample: Literal["conv", "avgpool", "pad"] = "conv"

    @model_validator(mode="before")
    @classmethod
    def _no_width_without_a_stage(cls, data: Any) -> Any:
        # Those of the base, where fewer stages are named: they are no part of what the network is.
        depths = data.get("depths") if isinstance(data, dict) else None
        widths = data.get("widths", _WIDTHS) if isinstance(data, dict) else None
        if isinstance(depths, list | tuple) and isinstance(widths, list | tuple) and depths:
            return {**data, "widths": widths[: len(depths)]}
        return data

    @model_validator(mode="after")
    def _a_width_a_stage(self) -> Self:
        if len(self.widths) < len(self.depths):
            raise ValueError(
                f"widths need a number for each of the {len(self.depths)} stages that depths name"
            )
        return self

    @property
    def blocks_per_stage(self) -> tuple[int, ...]:
        return self.depths

    @property
    def first_conv(self) -> str:
        return "conv1.0" if self.stem.type == "deep" else "conv1"

    @property
    def stem_stride(self) -> int:
        return 1 if self.stem.type == "cifar" else 4


class _PadShortcut(nn.Module):
    """Strided identity with zeros for the new channels ("option A" of the paper, section 4.2)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.added = out_channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))


def _shortcut(kind: str, in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    if stride == 1 and in_channels == out_channels:
        return None
    if kind == "pad":
        if out_channels < in_channels:
            raise InputError(
                f"a shortcut that is padded gains channels, and here {in_channels} become "
                f"{out_channels}; choose downsample=conv or avgpool"
            )
        return _PadShortcut(in_channels, out_channels, stride)
    if kind == "conv":
        return nn.Sequential(
            SmallMapConv2d(in_channels, out_channels, 1, stride, bias=False),
            nn.BatchNorm2d(out_channels),
        )
    pool = nn.Identity()
    if stride > 1:  # ceil_mode keeps a last odd row; the padding it adds is not averaged in
        pool = nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)
    return nn.Sequential(
        pool, SmallMapConv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
    )


_Layer = tuple[nn.Module, nn.Module, nn.Module]  # a convolution, its norm, its activation


def _create_mixer(spec: BlockSpec, told: dict[str, Any], in_channels: int) -> _Layer:
    """Build a mixer, which may bring its own norm and activation; it gets identities then."""
    mixer = create_block("mixer", spec, in_channels=in_channels, **told)
    if brings_norm_and_activation(mixer):
        return mixer, nn.Identity(), nn.Identity()
    act = create_activation(told["activation"], inplace=True)
    return mixer, nn.BatchNorm2d(told["out_channels"]), act


class ResidualBlock(nn.Module):
    """A branch, attention, sum: (B, C_in, H, W) -> (B, expansion * planes, H/s, W/s).

    A subclass builds and runs the branch, and says which of its norms fold.
    """

    expansion: ClassVar[int]

    def __init__(
        self,
        *,
        in_channels: int,
        planes: int,
        stride: int,
        first_in_stage: bool,
        mixer: BlockSpec,
        attention: nn.Module | None,
        activation: str,
        downsample: str,
        drop_path: float,
    ) -> None:
        super().__init__()
        width, out_channels = mixer_width(mixer, planes), planes * self.expansion
        told = {
            "out_channels": width,
            "stride": stride,
            "first_in_stage": first_in_stage,
            "activation": activation,
        }
        create_mixer = partial(_create_mixer, mixer, told)
        self.build_branch((in_channels, width, out_channels), activation, create_mixer)
        self.attention = attention
        self.downsample = _shortcut(downsample, in_channels, out_channels, stride)
        self.drop_path = DropPath(drop_path)
        self.act = create_activation(activation, inplace=True)

    def build_branch(
        self, widths: tuple[int, int, int], activation: str, create_mixer: Callable[[int], _Layer]
    ) -> None:
        """Set the branch's parts, of `widths` where it begins, inside and where it ends.

        `create_mixer` takes the channels that enter the mixer; the inner width leaves it.
        """
        raise NotImplementedError

    def branch(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, expansion * planes, H/s, W/s)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        out = self.branch(x)
        if self.attention is not None:
            out = self.attention(out)
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.act(self.drop_path(out) + shortcut)

    def fold_layers(self, layers: int) -> None:
        """Fold ``bn1`` and on into ``conv1`` and on, and the shortcut's norm; for evaluation."""
        for number in range(1, layers + 1):
            fold(self, f"conv{number}", f"bn{number}")
        if type(self.downsample) is nn.Sequential:  # (pool,) convolution, norm
            last = len(self.downsample) - 1
            fold(self.downsample, f"{last - 1}", f"{last}")


class BasicBlock(ResidualBlock):
    """Mixer, 3x3 convolution, sum."""

    expansion = 1

    def build_branch(
        self, widths: tuple[int, int, int], activation: str, create_mixer: Callable[[int], _Layer]
    ) -> None:
        in_channels, width, out_channels = widths
        self.conv1, self.bn1, self.act1 = create_mixer(in_channels)
        self.conv2 = SmallMapConv2d(width, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def branch(self, x: Tensor) -> Tensor:
        out = self.act1(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(out))

    def fold_norms(self) -> None:
        """Fold each BatchNorm into the convolution before it; for evaluation alone."""
        self.fold_layers(2)


class Bottleneck(ResidualBlock):
    """1x1, mixer, 1x1, sum."""

    expansion = 4

    def build_branch(
        self, widths: tuple[int, int, int], activation: str, create_mixer: Callable[[int], _Layer]
    ) -> None:
        in_channels, width, out_channels = widths
        self.conv1 = SmallMapConv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = create_activation(activation, inplace=True)
        self.conv2, self.bn2, self.act2 = create_mixer(width)
        self.conv3 = SmallMapConv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)

    def branch(self, x: Tensor) -> Tensor:
        out = self.act1(self.bn1(self.conv1(x)))
        out = self.act2(self.bn2(self.conv2(out)))
        return self.bn3(self.conv3(out))

    def fold_norms(self) -> None:
        """Fold each BatchNorm into the convolution before it; for evaluation alone."""
        self.fold_layers(3)


class ResNet(Backbone):
    """ResNet from a `ResNetConfig`: (B, in_chans, H, W) -> (B, num_classes)."""

    family = "resnet"
    classifier_name = "fc"

    def __init__(self, config: ResNetConfig, num_classes: int = 1000, in_chans: int = 3) -> None:
        super().__init__(config, num_classes, in_chans)
        self._build_stem(config, in_chans)
        block_class: type[ResidualBlock] = BasicBlock if config.block == "basic" else Bottleneck
        rates = iter(drop_path_rates(config.drop_path_rate, sum(config.depths)))
        channels, reduction = config.widths[0], self.stem_stride
        widths, reductions = [], []
        for stage, (depth, planes) in enumerate(
            zip(config.depths, config.widths, strict=False), start=1
        ):
            chosen = in_stage(config.mixer, stage)
            mixer = without_stages(config.mixer) if chosen else USUAL_MIXER
            blocks = []
            for index in range(depth):
                stride = 2 if stage > 1 and index == 0 else 1
                out_channels = planes * block_class.expansion
                blocks.append(
                    block_class(
                        in_channels=channels,
                        planes=planes,
                        stride=stride,
                        first_in_stage=index == 0,
                        mixer=mixer,
                        attention=create_staged_chain(config.attention, stage, out_channels),
                        activation=config.activation,
                        downsample=config.downsample,
                        drop_path=next(rates),
                    )
                )
                channels, reduction = out_channels, reduction * stride
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
            widths.append(channels)
            reductions.append(reduction)
        self.stage_modules = tuple(f"layer{stage}" for stage in range(1, len(config.depths) + 1))
        self.finish(widths, reductions)
        self.init_weights()

    def _build_stem(self, config: ResNetConfig, in_chans: int) -> None:
        width, act = config.widths[0], config.activation
        if config.stem.type == "imagenet":
            self.conv1: nn.Module = StridedConv2d(in_chans, width, 7, 2, padding=3, bias=False)
        elif config.stem.type == "cifar":
            self.conv1 = nn.Conv2d(in_chans, width, 3, padding=1, bias=False)
        else:
            first, second = config.stem.widths or (64, 64)
            self.conv1 = nn.Sequential(
                StridedConv2d(in_chans, first, 3, 2, padding=1, bias=False),
                nn.BatchNorm2d(first),
                create_activation(act, inplace=True),
                nn.Conv2d(first, second, 3, padding=1, bias=False),
                nn.BatchNorm2d(second),
                create_activation(act, inplace=True),
                nn.Conv2d(second, width, 3, padding=1, bias=False),
            )
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = create_activation(act, inplace=True)
        small = config.stem.type == "cifar"
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, padding=1)

    def fold_norms(self) -> None:
        """Fold the stem's BatchNorms into the convolutions before them; for evaluation alone."""
        if type(self.conv1) is nn.Sequential:
            fold(self.conv1, "0", "1")
            fold(self.conv1, "3", "4")
            fold(self, "conv1.6", "bn1")
        else:
            fold(self, "conv1", "bn1")

    def forward_stem(self, x: Tensor) -> Tensor:
        return self.maxpool(self.act1(self.bn1(self.conv1(x))))

    def forward_stage(self, x: Tensor, stage: int) -> Tensor:
        return getattr(self, self.stage_modules[stage])(x)

    def stage_parts(self, stage: int) -> tuple[str, ...]:
        return (self.stage_modules[stage],)

    def init_module(self, module: nn.Module) -> None:
        """Kaiming normal over the fan-out for convolutions (arXiv:1502.01852, section 2.2)."""
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        blocks = r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"
        return {"stem": r"^conv1|bn1|maxpool", "blocks": blocks}
