"""Named models: the catalogue, `create_model` and `list_models`."""

import fnmatch
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

from timm.models._features import FeatureGetterNet
from torch import nn

from blocklab.backbones import Backbone
from blocklab.errors import InputError, did_you_mean
from blocklab.files import parse_yaml
from blocklab.models.names import is_filled, parse_filled
from blocklab.models.spec import ModelSpec, resolve

if TYPE_CHECKING:
    from blocklab.models.checkpoint import Source


def catalogue() -> dict[str, dict[str, Any]]:
    """Every named model's entry, in the order of the catalogue's files."""
    return _read_catalogue()[0]


def declared_params(name: str) -> int:
    """Return how many parameters the catalogue says a named model has, with 1000 classes.

    Raises:
        InputError: if the catalogue does not name the model.
    """
    params = _read_catalogue()[1]
    if name not in params:
        raise InputError(f"the catalogue has no '{name}'{did_you_mean(name, params)}")
    return params[name]


@cache
def _read_catalogue() -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    entries: dict[str, dict[str, Any]] = {}
    params: dict[str, int] = {}
    folder = resources.files("blocklab.models") / "catalogue"
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        for name, entry in parse_yaml(file.read_text(encoding="utf-8"), file.name).items():
            if name in entries:
                raise InputError(f"the catalogue names '{name}' twice; see {file.name}")
            params[name] = entry.pop("params")
            entries[name] = entry
    return entries, params


def _entry(name: str) -> Mapping[str, Any]:
    if is_filled(name):
        return parse_filled(name)
    entries = catalogue()
    if name not in entries:
        raise InputError(
            f"no model '{name}'{did_you_mean(name, entries) or ';'} "
            "`blocklab models` lists all of them"
        )
    return entries[name]


def list_models(filter: str = "*") -> list[str]:
    """Return the names of the models that match a shell pattern, such as ``"res2net*"``."""
    return [name for name in catalogue() if fnmatch.fnmatch(name, filter)]


def model_spec(model: str | Mapping[str, Any], **slot_overrides: Any) -> ModelSpec:
    """Resolve a named model or a specification, with some slots filled otherwise.

    Raises:
        InputError: for an unknown model, slot, block or option.
    """
    what = f"model '{model}'" if isinstance(model, str) else "the model"
    value: str | Mapping[str, Any] = model
    if slot_overrides:
        base = {"base": model} if isinstance(model, str) else dict(model)
        value = {**base, **slot_overrides}
    return resolve(value, _entry, what)


def create_model(
    name: str | Mapping[str, Any],
    num_classes: int = 1000,
    in_chans: int = 3,
    features_only: bool = False,
    out_indices: int | tuple[int, ...] | None = None,
    pretrained: "Source | None" = None,
    head: Literal["load", "fresh"] = "load",
    first_conv: Literal["load", "adapt"] = "load",
    **slot_overrides: Any,
) -> Backbone | nn.Module:
    """Build a model, freshly initialised or with the weights of a checkpoint.

    Args:
        name: a named model, or a specification (``{"backbone": "resnet50", "attention": "se"}``).
        num_classes: outputs of the head; 0 leaves the pooled features.
        in_chans: channels of the image.
        features_only: return a network that gives the maps after its stages, as timm's do.
        out_indices: which stages those are: the last n, or a tuple of them (default: all).
        pretrained: a checkpoint's path, its address (downloaded once, hash checked) or its tensors
            by name; every tensor must fit (`load_weights` loads what fits).
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
    model = model_spec(name, **slot_overrides).build(num_classes, in_chans)
    if pretrained is not None:
        from blocklab.models.weights import load_weights  # whose refusals look into the catalogue

        if features_only and head == "load":
            head = "fresh"  # it has none
        load_weights(model, pretrained, head=head, first_conv=first_conv)
    if not features_only:
        if out_indices is not None:
            raise InputError("out_indices goes with features_only=True")
        return model
    count = len(model.stage_modules)
    indices = model.prune_intermediate_layers(
        count if out_indices is None else out_indices, prune_norm=True
    )
    return FeatureGetterNet(model, out_indices=tuple(indices), prune=False)
