"""What all backbones share: timm's conventions for features and heads."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import FeatureInfo
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from blocklab.backbones.config import BackboneConfig
from blocklab.blocks.protocol import init_itself
from blocklab.errors import InputError, shortened
from blocklab.kernels.pooling import map_mean

LARGEST_COUNT = 1_000_000  # of classes or channels


def check_count(name: str, value: object, least: int) -> int:
    """Return a count (NumPy's integers are counts, too).

    Raises:
        InputError: if it is no whole number from `least` to a million.
    """
    count = int(value) if isinstance(value, int | np.integer) else -1
    if not isinstance(value, bool) and least <= count <= LARGEST_COUNT:
        return count
    raise InputError(
        f"{name} must be a whole number from {least} to {LARGEST_COUNT:,}, not {shortened(value)}"
    )


def check_images(x: Tensor, channels: int) -> None:
    """Refuse what is no batch of images of so many channels.

    Raises:
        InputError: if it is none.
    """
    if x.ndim != 4 or x.shape[1] != channels or 0 in x.shape:
        raise InputError(
            f"the network takes (batch, {channels}, height, width), not {tuple(x.shape)}"
        )


torch.fx.wrap("check_images")  # a symbolic trace calls it and does not look inside


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Let no BatchNorm inside count its batch: it is one that it has already counted."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0  # a running mean that moves by nothing
            norm.num_batches_tracked = None
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches


class Backbone(nn.Module):
    """A stem, stages, a pooled head; subclasses build them and run one stage at a time.

    Follows timm: `forward_features`, `forward_head`, `forward_intermediates`, `get_classifier`,
    `reset_classifier`, `feature_info`, `num_features`, `head_hidden_size`, `pretrained_cfg`,
    `set_grad_checkpointing`, `group_matcher`, `no_weight_decay`, `prune_intermediate_layers`.
    """

    family: ClassVar[str]
    classifier_name: ClassVar[str] = "head"
    norm_name: ClassVar[str | None] = None  # of the norm between the last stage and the pool
    crop_pct: ClassVar[float] = 0.875  # how the authors cropped their test images
    stage_modules: tuple[str, ...]  # where each stage's features come from
    num_features: int
    stem_stride: int

    def __init__(self, config: BackboneConfig, num_classes: int, in_chans: int) -> None:
        super().__init__()
        self.config = config
        self.num_classes = check_count("num_classes", num_classes, 0)
        self.in_chans = check_count("in_chans", in_chans, 1)
        self.drop_rate = config.drop_rate
        self.stem_stride = config.stem_stride
        self.grad_checkpointing = False
        self.pruned: tuple[str, ...] = ()  # prefixes of the names that it once had

    # What a subclass does.
    def forward_stem(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, C, H / stem_stride, W / stem_stride)."""
        raise NotImplementedError

    def forward_stage(self, x: Tensor, stage: int) -> Tensor:
        """Run stage 0, 1, ...: a map to a map."""
        raise NotImplementedError

    def stage_parts(self, stage: int) -> tuple[str, ...]:
        """Return the names of the modules that stage 0, 1, ... alone uses."""
        raise NotImplementedError

    def forward_norm(self, x: Tensor) -> Tensor:
        """What follows the last stage, before pooling (the identity where there is no norm)."""
        return x if self.norm_name is None else getattr(self, self.norm_name)(x)

    def forward_pooled(self, x: Tensor) -> Tensor:
        """What lies between pool and classifier: (B, num_features) -> (B, head_hidden_size)."""
        return x

    def finish(
        self, widths: list[int], reductions: list[int], head_width: int | None = None
    ) -> None:
        """Set what follows from the built stages; called at the end of a constructor.

        `head_width` is what the classifier takes, where that is not the last stage's width.
        """
        self.num_features = widths[-1]
        self.head_hidden_size = head_width or widths[-1]
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
        self.pretrained_cfg = input_cfg(type(self), self.config)
        self.pretrained_cfg["num_classes"] = self.num_classes
        self.pretrained_cfg["input_size"] = (
            self.in_chans,
            *self.pretrained_cfg["input_size"][1:],
        )
        self.default_cfg = self.pretrained_cfg  # timm's older name for it
        setattr(self, self.classifier_name, self._classifier(self.num_classes))

    def _classifier(self, num_classes: int) -> nn.Module:
        return nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()

    # What follows from it.
    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, num_features, H', W'), before pooling.

        Raises:
            InputError: for an image that the network cannot take.
        """
        check_images(x, self.in_chans)
        x = self.forward_stem(x)
        for stage in range(len(self.stage_modules)):
            x = self._run_stage(x, stage)
        return self.forward_norm(x)

    def _run_stage(self, x: Tensor, stage: int) -> Tensor:
        if not (self.grad_checkpointing and self.training and torch.is_grad_enabled()):
            return self.forward_stage(x, stage)

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), _statistics_kept(self)

        # Compiled, a recomputed stage counts its batch twice, as it does in timm's networks.
        told: dict[str, Any] = {} if torch.compiler.is_compiling() else {"context_fn": contexts}
        return cast(Tensor, checkpoint(self.forward_stage, x, stage, use_reentrant=False, **told))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, num_features, H', W') -> (B, num_classes), or the pooled features themselves."""
        if self.global_pool == "avg":
            x = self.forward_pooled(map_mean(x))
        if self.drop_rate:
            x = nn.functional.dropout(x, self.drop_rate, self.training)
        return x if pre_logits else self.get_classifier()(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | tuple[int, ...] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: Literal["NCHW"] = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the maps after the chosen stages: all, the last n, or those in a list.

        Args:
            x: (B, in_chans, H, W).
            indices: stages from 0; negative ones count from the end.
            norm: normalise the last stage's map, where the network has such a norm.
            stop_early: do not run the stages after the last chosen one.
            output_fmt: the layout; there is one.
            intermediates_only: return the maps alone, else what `forward_features` gives as well.

        Raises:
            InputError: for a stage that the network has not.
        """
        if output_fmt != "NCHW":
            raise InputError(f"output_fmt is NCHW, not {output_fmt!r}")
        check_images(x, self.in_chans)
        chosen = self.chosen_stages(indices)
        count = len(self.stage_modules)
        run = max(chosen) + 1 if stop_early else count
        normed = run == count  # the norm is the last stage's, and goes where that is pruned
        x = self.forward_stem(x)
        maps: list[Tensor] = []
        for stage in range(run):
            x = self._run_stage(x, stage)
            if stage in chosen:
                last = norm and normed and stage == run - 1
                maps.append(self.forward_norm(x) if last else x)
        if intermediates_only:
            return maps
        return self.forward_norm(x) if normed else x, maps

    def chosen_stages(self, indices: int | list[int] | tuple[int, ...] | None) -> list[int]:
        """Return the stages that timm's `indices` mean, in order.

        Raises:
            InputError: for a stage that the network has not.
        """
        count = len(self.stage_modules)
        if isinstance(indices, int | np.integer):
            wanted = range(count - int(indices), count) if 0 < indices <= count else range(0)
        else:
            wanted = range(count) if indices is None else indices
        if not wanted or not all(-count <= index < count for index in wanted):
            raise InputError(
                f"the network has stages 0 to {count - 1} (or -{count} to -1): it has no {indices}"
            )
        return sorted({index % count for index in wanted})

    def prune_intermediate_layers(
        self,
        indices: int | list[int] | tuple[int, ...] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Remove what the maps after the chosen stages do not need; return the stages from 0.

        The norm is the last stage's, and goes with it. A head that stays takes that stage's map.

        Raises:
            InputError: for a stage that the network has not, or a head that shall stay without it.
        """
        chosen = self.chosen_stages(indices)
        last_goes = max(chosen) + 1 < len(self.stage_modules)
        if last_goes and not prune_head and self.num_classes:
            raise InputError("the head takes the last stage's map; prune it too (prune_head=True)")
        removed = []
        for stage in range(len(self.stage_modules) - 1, max(chosen), -1):
            for name in self.stage_parts(stage):
                parent, _, child = name.rpartition(".")
                delattr(self.get_submodule(parent), child)
                removed.append(f"{name}.")
        self.stage_modules = self.stage_modules[: max(chosen) + 1]
        if self.norm_name is not None and (prune_norm or last_goes):
            setattr(self, self.norm_name, nn.Identity())
            removed.append(f"{self.norm_name}.")
        if prune_head:
            self.reset_classifier(0, "")
            removed.append(f"{self.classifier_name}.")
        if last_goes:
            self.num_features = self.head_hidden_size = self.feature_info.channels()[max(chosen)]
        self.pruned = (*self.pruned, *removed)
        return chosen

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return getattr(self, self.classifier_name)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new last layer; 0 classes: none. `global_pool` is ``avg`` or an empty string."""
        num_classes = check_count("num_classes", num_classes, 0)
        if global_pool not in (None, "avg", ""):
            raise InputError(f"global_pool is 'avg' or '', not {global_pool!r}")
        if global_pool == "" and num_classes:
            raise InputError("global_pool='' leaves a map: it goes with num_classes=0")
        if global_pool is not None:
            self.global_pool = global_pool
        elif num_classes:
            self.global_pool = "avg"
        reference = next(self.parameters())
        self.num_classes = num_classes
        self.pretrained_cfg.pop("label_names", None)  # another head's
        classifier = self._classifier(num_classes).to(reference.device, reference.dtype)
        self.init_classifier(classifier)
        setattr(self, self.classifier_name, classifier)

    def init_classifier(self, classifier: nn.Module) -> None:
        """Initialise a new last layer as the backbone's scheme does (default: PyTorch's)."""

    def init_weights(self) -> None:
        """Initialise all parameters as the backbone's scheme does, then what blocks add to it.

        On the meta device there is nothing to fill.
        """
        if next(self.parameters()).is_meta:
            return
        self.apply(self.init_module)
        for part in self.modules():
            if part is not self:
                init_itself(part)

    @classmethod
    def crop_of(cls, config: Any) -> float:
        """Return which share of a side the authors of a network cropped their test images to."""
        return cls.crop_pct

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


def input_cfg(cls: type[Backbone], config: BackboneConfig) -> dict[str, Any]:
    """Return what timm asks of a network's images and its first and last layers."""
    size = config.native_size
    side = -(-size // config.reduction)
    return {
        "input_size": (3, size, size),
        "pool_size": (side, side),
        "num_classes": 1000,
        "crop_pct": 1.0 if size == 32 else cls.crop_of(config),
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": config.first_conv,
        "classifier": cls.classifier_name,
    }
