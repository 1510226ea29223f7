"""A model as data: a backbone and what fills its slots, or a base and what differs from it.

Keys name fields of the backbone's configuration; a dotted key reaches into a block's options::

    {backbone: resnet50, mixer: {type: hierarchical_split, scale: 4, base_width: 16}}
    {base: res2net50, activation: celu, mixer.attention: se}

``timm:NAME`` is a base, too: the slots are then what that model's constructor takes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from blocklab.backbones.base import Backbone
from blocklab.backbones.config import BackboneConfig
from blocklab.backbones.own import own_backbone
from blocklab.backbones.registry import BACKBONES, FAMILIES, family_of, own_names
from blocklab.blocks.timm_code import TIMM
from blocklab.errors import InputError, did_you_mean, one_line
from blocklab.models import timm_models
from blocklab.models.inline_spec import parse_filled
from blocklab.models.meta_device import without_memory
from blocklab.models.names import entry_of
from blocklab.models.probe import ImageSize
from blocklab.models.timm_models import TimmConfig, build_timm, option_names, timm_config


@dataclass(frozen=True)
class ModelSpec:
    """A resolved model: the family and its whole configuration, all defaults filled in.

    Of a model of timm's that is its name, its code's digest and the options that were given.
    """

    family: str
    config: BackboneConfig | TimmConfig

    def build(
        self, num_classes: int = 1000, in_chans: int = 3, input_size: ImageSize | None = None
    ) -> Backbone:
        """Build the network, freshly initialised.

        `input_size` is of its images: timm's that are made for one size are made for it. Those are
        timm's own modules, which have what is used of a `Backbone` but its stages.
        """
        if isinstance(self.config, TimmConfig):
            network = cast(Any, build_timm(self.config, num_classes, in_chans, input_size))
            network.blocklab_spec = self
            return network
        return cast(Any, family_of(self.family)[0])(self.config, num_classes, in_chans)

    def build_meta(
        self, num_classes: int = 1000, in_chans: int = 3, input_size: ImageSize | None = None
    ) -> Backbone:
        """Build the network without memory for its weights, to count or to describe it."""
        with without_memory():
            return self.build(num_classes, in_chans, input_size)

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of what can be said of such a model."""
        return _slots(self.family, self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return what identifies the model, as plain JSON."""
        return {"family": self.family, **self.config.model_dump(mode="json")}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "ModelSpec":
        """Rebuild a specification from `to_dict`."""
        fields = dict(value)
        family = fields.pop("family", None)
        if not isinstance(family, str):
            raise InputError(f"no family of backbones '{family}'; known: {', '.join(FAMILIES)}")
        return cls(family, _validate(family, fields, "the model"))


def slot_names() -> frozenset[str]:
    """Return what can be said of models of one of blocklab's families or another."""
    return frozenset(name for _, config in FAMILIES.values() for name in config.model_fields)


def spec_of(network: object) -> ModelSpec | None:
    """Return what built a network; None of one that a specification did not build."""
    if isinstance(network, Backbone):
        return ModelSpec(network.family, network.config)
    found = getattr(network, "blocklab_spec", None)
    return found if isinstance(found, ModelSpec) else None


def model_spec(model: str | Mapping[str, Any], **slot_overrides: Any) -> ModelSpec:
    """Resolve a named model or a specification, with some slots filled otherwise.

    Raises:
        InputError: for an unknown model, slot, block or option, or a value of the wrong type.
    """
    what = f"model '{model}'" if isinstance(model, str) else "the model"
    value: str | Mapping[str, Any] = model
    if slot_overrides:
        base = {"base": model} if isinstance(model, str) else dict(model)
        value = {**base, **slot_overrides}
    family, fields = _expand(value, what, ())
    return ModelSpec(family, _validate(family, fields, what))


def _expand(
    value: str | Mapping[str, Any], what: str, seen: tuple[str, ...]
) -> tuple[str, dict[str, Any]]:
    """Return the family and the fields that a specification sets, bases applied first."""
    if isinstance(value, str):
        if value in seen:
            raise InputError(f"{what}: '{value}' is its own base")
        if value in own_names():
            return _expand({"backbone": value}, what, (*seen, value))
        if value.startswith(TIMM):
            return _expand_timm(value, (*seen, value))
        return _expand(entry_of(value, own_names()), f"model '{value}'", (*seen, value))
    if not isinstance(value, Mapping):
        raise InputError(f"{what} is a name or a mapping of slots, not {value!r}")
    changes = dict(value)
    backbone, base = changes.pop("backbone", None), changes.pop("base", None)
    if (backbone is None) == (base is None):
        for key in changes:
            if close := did_you_mean(key, ("base", "backbone")):
                raise InputError(f"{what} has no '{key}'{close}")
        raise InputError(f"{what} needs either a 'backbone' or a 'base'")
    if base is not None:
        family, fields = _expand(base, what, seen)
    elif isinstance(backbone, str) and backbone in BACKBONES:
        family, sizes = BACKBONES[backbone]
        fields = dict(sizes)
    elif isinstance(backbone, str) and backbone in own_names():
        family, fields = own_backbone(backbone).versioned_name, {}
    else:
        known = (*BACKBONES, *own_names())
        raise InputError(
            f"no backbone '{backbone}'{did_you_mean(str(backbone), known) or '.'} "
            f"Backbones: {', '.join(known)}"
        )
    known = _slots(family, fields)
    # Blocks before their options: in whatever order they are written, both are meant.
    for key, change in sorted(changes.items(), key=lambda one: "." in str(one[0])):
        slot, _, option = str(key).partition(".")
        if slot not in known:
            own = family.partition("@")[0]
            of = f"{TIMM}{fields['model']}" if family == timm_models.FAMILY else own
            raise InputError(
                f"{what}: {of} has no slot '{slot}'{did_you_mean(slot, known) or '.'} "
                f"Slots: {', '.join(known)}"
            )
        fields[slot] = _set_option(fields, family, slot, option, change) if option else change
    return family, fields


def _expand_timm(name: str, seen: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """Read ``timm:NAME`` or ``timm:NAME:option=value,...``."""
    plain, colon, filled = name.removeprefix(TIMM).partition(":")
    if not colon:
        return timm_models.FAMILY, {"model": plain}
    base = f"{TIMM}{plain}"
    return _expand({**parse_filled(f"{plain}:{filled}"), "base": base}, f"model '{name}'", seen)


def _slots(family: str, fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of what can be said of a model of a family."""
    if family == timm_models.FAMILY:
        return tuple(option_names(fields["model"]))
    return tuple(family_of(family)[1].model_fields)


def _set_option(
    fields: Mapping[str, Any], family: str, slot: str, option: str, value: object
) -> dict[str, Any]:
    current = fields.get(slot)
    if current is None and family != timm_models.FAMILY:
        current = family_of(family)[1].model_fields[slot].default
    if isinstance(current, BaseModel):
        current = current.model_dump()
    if isinstance(current, list) and len(current) == 1:
        current = current[0]
    if isinstance(current, str):
        current = {"type": current}
    if not isinstance(current, dict) or "." in option:
        raise InputError(f"'{slot}.{option}' names no option of one block; write {slot} out")
    return {**current, option: value}


def _validate(family: str, fields: dict[str, Any], what: str) -> BackboneConfig | TimmConfig:
    if family == timm_models.FAMILY:
        return timm_config(str(fields.pop("model", "")), fields)
    config_class = family_of(family)[1]
    try:
        return config_class.model_validate(fields)
    except ValidationError as error:
        raise InputError(one_line(error, what, config_class)) from None
    except InputError as error:
        raise InputError(f"{what}: {error}") from None
