"""RepLKNet. Ding, Zhang, Han and Ding, CVPR 2022, arXiv:2203.06717, section 4.

Parameter names and initialisation (PyTorch's own) are the authors'.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PositiveFloat, PositiveInt, model_validator
from timm.models._manipulate import MATCH_PREV_GROUP
from torch import Tensor, nn

from blocklab.backbones.base import Backbone
from blocklab.backbones.config import BackboneConfig, drop_path_rates
from blocklab.blocks.activation import create_activation
from blocklab.blocks.folding import fold
from blocklab.blocks.option_types import Activation, OddInt
from blocklab.blocks.registry import BlockSpec, create_block, parse_block
from blocklab.blocks.reparam_large_kernel import ConvFFN, RepLKBlock
from blocklab.errors import InputError
from blocklab.kernels.strided import StridedConv2d

OWN = "relu"  # the activation of the paper, everywhere but in ConvFFNs


def _parse_mixer(value: object) -> BlockSpec:
    if isinstance(value, Mapping) and "kernel" in value:
        raise InputError(
            "replknet's mixer has the kernel of its stage; leave mixer.kernel out and set kernels, "
            "one a stage"
        )
    spec = parse_block("token_mixer", value)
    if spec["type"] != "reparam_large_kernel":
        raise InputError(
            f"replknet's mixer is reparam_large_kernel, not '{spec['type']}'; set its options, "
            "such as mixer.small_kernel"
        )
    spec.pop("kernel")  # the kernel is the stage's
    return spec


class RepLKNetConfig(BackboneConfig):
    """A RepLKNet as data.

    The mixer's ``small_kernel`` is cut to the kernel of a stage that has a smaller one.
    """

    kernels: tuple[OddInt, ...]
    widths: tuple[PositiveInt, ...]
    depths: tuple[PositiveInt, ...]
    stem: Literal["imagenet", "cifar"] = "imagenet"
    ffn_ratio: PositiveFloat = 4.0
    mixer: Annotated[BlockSpec, BeforeValidator(_parse_mixer)] = _parse_mixer(
        "reparam_large_kernel"
    )
    activation: Activation = OWN  # and GELU in ConvFFNs; another one takes the place of both

    @property
    def blocks_per_stage(self) -> tuple[int, ...]:
        return self.depths

    @property
    def first_conv(self) -> str:
        return "stem.0.conv"

    @property
    def stem_stride(self) -> int:
        return 4 if self.stem == "imagenet" else 1

    @model_validator(mode="after")
    def _same_lengths(self) -> "RepLKNetConfig":
        if not len(self.kernels) == len(self.widths) == len(self.depths):
            raise ValueError("kernels, widths and depths need one number a stage each")
        return self


class _ConvNormAct(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int, groups: int, act: str
    ) -> None:
        super().__init__()
        self.conv = StridedConv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)
        self.act = create_activation(act, inplace=True)

    def fold_norms(self) -> None:
        """Fold BatchNorm into the convolution before it; for evaluation alone."""
        fold(self, "conv", "bn")

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class _Stage(nn.Module):
    """RepLK blocks and ConvFFNs in turn."""

    def __init__(
        self, width: int, depth: int, kernel: int, config: RepLKNetConfig, rates: list[float]
    ) -> None:
        super().__init__()
        mixer = {**config.mixer, "kernel": kernel}
        small = mixer["small_kernel"]
        if small is not None and small > kernel:
            mixer["small_kernel"] = kernel  # as far as this stage's kernel reaches
        blocks: list[nn.Module] = []
        for index in range(depth):
            block = create_block("token_mixer", mixer, channels=width, drop_path=rates[index])
            ffn = ConvFFN(width, int(width * config.ffn_ratio), rates[index])
            if config.activation != OWN:
                assert isinstance(block, RepLKBlock)
                block.set_activation(config.activation)
                ffn.act = create_activation(config.activation)
            blocks += [block, ffn]
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class RepLKNet(Backbone):
    """RepLKNet from a `RepLKNetConfig`: (B, in_chans, H, W) -> (B, num_classes)."""

    family = "replknet"
    norm_name = "norm"

    def __init__(self, config: RepLKNetConfig, num_classes: int = 1000, in_chans: int = 3) -> None:
        super().__init__(config, num_classes, in_chans)
        width, act = config.widths[0], config.activation
        stride = 2 if config.stem == "imagenet" else 1
        self.stem = nn.ModuleList(
            [
                _ConvNormAct(in_chans, width, 3, stride, 1, act),
                _ConvNormAct(width, width, 3, 1, width, act),
                _ConvNormAct(width, width, 1, 1, 1, act),
                _ConvNormAct(width, width, 3, stride, width, act),
            ]
        )
        rates = drop_path_rates(config.drop_path_rate, sum(config.depths))
        self.stages = nn.ModuleList()
        self.transitions = nn.ModuleList()
        for index, (channels, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
            done = sum(config.depths[:index])
            stage_rates = rates[done : done + depth]
            self.stages.append(_Stage(channels, depth, config.kernels[index], config, stage_rates))
            if index + 1 < len(config.widths):
                following = config.widths[index + 1]
                self.transitions.append(
                    nn.Sequential(
                        _ConvNormAct(channels, following, 1, 1, 1, act),
                        _ConvNormAct(following, following, 3, 2, following, act),
                    )
                )
        self.norm = nn.BatchNorm2d(config.widths[-1])
        self.stage_modules = tuple(f"stages.{index}" for index in range(len(config.widths)))
        reductions = [self.stem_stride * 2**index for index in range(len(config.widths))]
        self.finish(list(config.widths), reductions)
        self.init_weights()

    def forward_stem(self, x: Tensor) -> Tensor:
        for layer in self.stem:
            x = layer(x)
        return x

    def forward_stage(self, x: Tensor, stage: int) -> Tensor:
        return self.stages[stage](x if stage == 0 else self.transitions[stage - 1](x))

    def stage_parts(self, stage: int) -> tuple[str, ...]:
        transition = (f"transitions.{stage - 1}",) if stage else ()
        return (f"stages.{stage}", *transition)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        # A transition goes with the stage (or the first block of the stage) that it leads to.
        ends = () if coarse else (0,)
        later = range(1, len(self.transitions) + 1)
        blocks = [
            (r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.blocks\.(\d+)", None),
            *((rf"^transitions\.{stage - 1}\.", (stage, *ends)) for stage in later),
            (r"^norm", MATCH_PREV_GROUP),
        ]
        return {"stem": r"^stem", "blocks": blocks}
