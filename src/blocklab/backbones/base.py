"""What all backbones share: timm's conventions for features and heads, and their configuration."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import BaseModel, ConfigDict, Field
from timm.models import FeatureInfo
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from blocklab.blocks.registry import BlockSpec, block_info, create_block, parse_block
from blocklab.errors import InputError

Rate = Annotated[float, Field(ge=0, lt=1)]


class BackboneConfig(BaseModel):
    """A backbone as data: its sizes and what fills its slots; all defaults filled in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    drop_rate: Rate = Field(0.0, description="dropout before the classifier")
    drop_path_rate: Rate = Field(0.0, description="stochastic depth of the last block")


def parse_staged(kinds: str | tuple[str, ...], value: object, stages: int) -> BlockSpec:
    """Parse a block that may be limited to stages: ``{type: se, stages: [2, 3, 4]}``.

    Stages count from 1. A block in all stages is written without them.
    """
    chosen = None
    if isinstance(value, dict) and "stages" in value:
        value = dict(value)
        chosen = value.pop("stages")
        if isinstance(chosen, int):
            chosen = [chosen]
        valid = isinstance(chosen, list | tuple) and all(
            isinstance(stage, int) and 1 <= stage <= stages for stage in chosen
        )
        if not valid or not chosen:
            raise InputError(f"stages are numbers from 1 to {stages}, not {chosen!r}")
    spec = parse_block(kinds, value)
    if chosen is not None and set(cast(list[int], chosen)) != set(range(1, stages + 1)):
        spec["stages"] = sorted(set(cast(list[int], chosen)))
    return spec


def in_stage(spec: BlockSpec, stage: int) -> bool:
    """Whether a parsed block sits in `stage` (from 1)."""
    return "stages" not in spec or stage in spec["stages"]


def without_stages(spec: BlockSpec) -> BlockSpec:
    """Return the block itself, as the registry knows it."""
    return {key: value for key, value in spec.items() if key != "stages"}


def create_staged_chain(specs: list[BlockSpec], stage: int, channels: int) -> nn.Module | None:
    """Build those attentions of a chain that sit in `stage`, or None where none does."""
    blocks = [
        create_block("attention", without_stages(spec), channels=channels)
        for spec in specs
        if in_stage(spec, stage)
    ]
    if not blocks:
        return None
    return blocks[0] if len(blocks) == 1 else nn.Sequential(*blocks)


def token_mixer_kind(spec: BlockSpec) -> str:
    """VAN's spatial unit may be any attention, or a token mixer: say which this is."""
    return block_info(("token_mixer", "attention"), spec["type"]).kind


class Backbone(nn.Module):
    """A stem, stages, a pooled head; subclasses build them and run one stage at a time.

    Follows timm: `forward_features`, `forward_head`, `forward_intermediates`, `get_classifier`,
    `reset_classifier`, `feature_info`, `num_features`, `set_grad_checkpointing`, `group_matcher`.
    """

    family: ClassVar[str]
    classifier_name: ClassVar[str] = "head"
    stage_modules: tuple[str, ...]  # where each stage's features come from
    num_features: int
    stem_stride: int

    def __init__(self, num_classes: int, in_chans: int, drop_rate: float) -> None:
        super().__init__()
        for name, value, least in (("num_classes", num_classes, 0), ("in_chans", in_chans, 1)):
            if not isinstance(value, int) or value < least:
                raise InputError(f"{name} must be {least} or more, not {value!r}")
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.grad_checkpointing = False
        self.pretrained_cfg: dict[str, Any] = {}

    # What a subclass does.
    def forward_stem(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, C, H / stem_stride, W / stem_stride)."""
        raise NotImplementedError

    def forward_stage(self, x: Tensor, stage: int) -> Tensor:
        """Run stage 0, 1, ...: a map to a map."""
        raise NotImplementedError

    def forward_norm(self, x: Tensor) -> Tensor:
        """What follows the last stage, before pooling (the identity unless overridden)."""
        return x

    def finish(self, widths: list[int], reductions: list[int]) -> None:
        """Set what follows from the built stages; called at the end of a constructor."""
        self.num_features = self.head_hidden_size = widths[-1]
        self.feature_info = FeatureInfo(
            [
                {"num_chs": width, "reduction": reduction, "module": module}
                for width, reduction, module in zip(
                    widths, reductions, self.stage_modules, strict=True
                )
            ],
            out_indices=tuple(range(len(widths))),
        )
        self.global_pool = "avg"
        setattr(self, self.classifier_name, self._classifier(self.num_classes))

    def _classifier(self, num_classes: int) -> nn.Module:
        return nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    # What follows from it.
    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, num_features, H', W'), before pooling.

        Raises:
            InputError: for an image that the network cannot take.
        """
        if x.ndim != 4 or x.shape[1] != self.in_chans or 0 in x.shape:
            raise InputError(
                f"the network takes (batch, {self.in_chans}, height, width), not {tuple(x.shape)}"
            )
        x = self.forward_stem(x)
        for stage in range(len(self.stage_modules)):
            x = self._run_stage(x, stage)
        return self.forward_norm(x)

    def _run_stage(self, x: Tensor, stage: int) -> Tensor:
        if self.grad_checkpointing and self.training and x.requires_grad:
            return cast(Tensor, checkpoint(self.forward_stage, x, stage, use_reentrant=False))
        return self.forward_stage(x, stage)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, num_features, H', W') -> (B, num_classes), or the pooled features themselves."""
        if self.global_pool == "avg":
            x = x.mean((2, 3))
        if self.drop_rate:
            x = nn.functional.dropout(x, self.drop_rate, self.training)
        return x if pre_logits else self.get_classifier()(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: Literal["NCHW"] = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the maps after the chosen stages (all, the last n, or a list of them)."""
        if output_fmt != "NCHW":
            raise InputError(f"output_fmt is NCHW, not {output_fmt!r}")
        count = len(self.stage_modules)
        if indices is None:
            indices = list(range(count))
        elif isinstance(indices, int):
            indices = list(range(count - indices, count))
        chosen = [index % count for index in indices]
        x = self.forward_stem(x)
        maps: list[Tensor] = []
        for stage in range(count):
            if stop_early and stage > max(chosen):
                break
            x = self._run_stage(x, stage)
            if stage in chosen:
                maps.append(self.forward_norm(x) if norm and stage == count - 1 else x)
        return maps if intermediates_only else (self.forward_norm(x), maps)

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return getattr(self, self.classifier_name)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new last layer; 0 classes: none. `global_pool` is ``avg`` or an empty string."""
        if global_pool is not None:
            if global_pool not in ("avg", ""):
                raise InputError(f"global_pool is 'avg' or '', not {global_pool!r}")
            self.global_pool = global_pool
        reference = next(self.parameters())
        self.num_classes = num_classes
        classifier = self._classifier(num_classes).to(reference.device, reference.dtype)
        self.init_classifier(classifier)
        setattr(self, self.classifier_name, classifier)

    def init_classifier(self, classifier: nn.Module) -> None:
        """Initialise a new last layer as the backbone's scheme does (default: PyTorch's)."""

    def init_weights(self) -> None:
        """Initialise all parameters as the backbone's scheme does, then what blocks add to it."""
        self.apply(self.init_module)
        for module in self.modules():
            block_init = getattr(module, "init_weights", None)
            if module is not self and callable(block_init):
                block_init()

    def init_module(self, module: nn.Module) -> None:
        """Initialise one module by the backbone's scheme (default: PyTorch's own)."""

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each stage in the backward pass: less memory, more time."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return timm's patterns that sort parameters into layers."""
        raise NotImplementedError

    def no_weight_decay(self) -> set[str]:
        """Names of parameters to leave out of weight decay."""
        return set()


def drop_path_rates(rate: float, blocks: int) -> list[float]:
    """Stochastic depth that grows linearly from 0 to `rate` over the blocks."""
    return [rate * block / max(1, blocks - 1) for block in range(blocks)]


BackboneBuilder = Callable[..., Backbone]
