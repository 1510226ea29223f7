"""`create_model`: named models and specifications as networks."""

from collections.abc import Mapping
from typing import Any, Literal

from timm.models._features import FeatureGetterNet
from torch import nn

from blocklab.backbones.base import Backbone
from blocklab.errors import InputError
from blocklab.models.checkpoint import Source
from blocklab.models.expected_images import use_of_weights
from blocklab.models.spec import model_spec
from blocklab.models.timm_models import TimmConfig, timm_features
from blocklab.models.use import set_use
from blocklab.models.weights import load_weights


def create_model(
    name: str | Mapping[str, Any],
    num_classes: int = 1000,
    in_chans: int = 3,
    features_only: bool = False,
    out_indices: int | tuple[int, ...] | None = None,
    pretrained: Source | None = None,
    head: Literal["load", "fresh"] = "load",
    first_conv: Literal["load", "adapt"] = "load",
    **slot_overrides: Any,
) -> Backbone | nn.Module:
    """Build a model, freshly initialised or with the weights of a checkpoint.

    Args:
        name: a named model, ``timm:NAME``, or a specification (``{"backbone": "resnet50",
            "attention": "se"}``).
        num_classes: outputs of the head; 0 leaves the pooled features.
        in_chans: channels of the image.
        features_only: return a network that gives the maps after its stages, as timm's do.
        out_indices: which stages those are: the last n, or a tuple of them from 0 (default: all);
            the stem is none of them.
        pretrained: a checkpoint's path, its address (downloaded once, hash checked) or its tensors
            by name; every tensor must fit (`load_weights` loads what fits). What is said beside
            them of images and, where the head is theirs, of classes, ``pretrained_cfg`` says then.
        head: ``fresh`` leaves the head as initialised, for another number of classes.
        first_conv: ``adapt`` changes the checkpoint's first convolution to `in_chans`.
        **slot_overrides: slots to fill otherwise, such as ``stem="cifar"``.

    Raises:
        InputError: for an unknown model, slot, block or option, a size that is not positive, or
            weights that do not fit.
        RunError: if a download fails.
    """
    if pretrained is None:
        if head != "load" or first_conv != "load":
            raise InputError("head and first_conv say how weights are loaded: give pretrained")
    elif isinstance(pretrained, bool):
        raise InputError(
            "pretrained is a checkpoint's path or address; blocklab brings no weights of its own"
        )
    spec = model_spec(name, **slot_overrides)
    if features_only and isinstance(spec.config, TimmConfig):
        if pretrained is not None:
            raise InputError(
                "timm's features_only network has other names than the whole one; create that with "
                "pretrained, and ask its forward_intermediates"
            )
        return timm_features(spec.config, in_chans, out_indices)
    model = spec.build(num_classes, in_chans)
    if pretrained is not None:
        if features_only and head == "load":
            head = "fresh"  # it has none
        load_weights(model, pretrained, head=head, first_conv=first_conv)
        known = use_of_weights(pretrained, in_chans, num_classes if head == "load" else None)
        if known:  # of tensors by name nothing is said
            set_use(model, known, str(pretrained))
    if not features_only:
        if out_indices is not None:
            raise InputError("out_indices goes with features_only=True")
        return model
    count = len(model.stage_modules)
    indices = model.prune_intermediate_layers(
        count if out_indices is None else out_indices, prune_norm=True
    )
    return FeatureGetterNet(model, out_indices=tuple(indices), prune=False)
