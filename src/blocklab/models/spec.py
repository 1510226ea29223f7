"""A model as data: a backbone and what fills its slots, or a base and what differs from it.

Keys name fields of the backbone's configuration; a dotted key reaches into a block's options::

    {backbone: resnet50, mixer: {type: hierarchical_split, scale: 4, base_width: 16}}
    {base: res2net50, activation: celu, mixer.attention: se}
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import ValidationError

from blocklab.backbones.base import Backbone
from blocklab.backbones.config import BackboneConfig
from blocklab.backbones.registry import BACKBONES, FAMILIES
from blocklab.errors import InputError, did_you_mean, one_line
from blocklab.models.meta_device import without_memory
from blocklab.models.names import entry_of


@dataclass(frozen=True)
class ModelSpec:
    """A resolved model: the family and its whole configuration, all defaults filled in."""

    family: str
    config: BackboneConfig

    def build(self, num_classes: int = 1000, in_chans: int = 3) -> Backbone:
        """Build the network, freshly initialised."""
        return cast(Any, FAMILIES[self.family][0])(self.config, num_classes, in_chans)

    def build_meta(self, num_classes: int = 1000, in_chans: int = 3) -> Backbone:
        """Build the network without memory for its weights, to count or to describe it."""
        with without_memory():
            return self.build(num_classes, in_chans)

    def to_dict(self) -> dict[str, Any]:
        """Return what identifies the model, as plain JSON."""
        return {"family": self.family, **self.config.model_dump(mode="json")}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "ModelSpec":
        """Rebuild a specification from `to_dict`."""
        fields = dict(value)
        family = fields.pop("family", None)
        if family not in FAMILIES:
            raise InputError(f"no family of backbones '{family}'; known: {', '.join(FAMILIES)}")
        return cls(family, _validate(family, fields, "the model"))


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
        return _expand(entry_of(value), f"model '{value}'", (*seen, value))
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
    else:
        raise InputError(
            f"no backbone '{backbone}'{did_you_mean(str(backbone), BACKBONES) or '.'} "
            f"Backbones: {', '.join(BACKBONES)}"
        )
    known = FAMILIES[family][1].model_fields
    for key, change in changes.items():
        slot, _, option = str(key).partition(".")
        if slot not in known:
            raise InputError(
                f"{what}: {family} has no slot '{slot}'{did_you_mean(slot, known) or '.'} "
                f"Slots: {', '.join(known)}"
            )
        fields[slot] = _set_option(fields, family, slot, option, change) if option else change
    return family, fields


def _set_option(
    fields: Mapping[str, Any], family: str, slot: str, option: str, value: object
) -> dict[str, Any]:
    current = fields.get(slot)
    if current is None:
        current = FAMILIES[family][1].model_fields[slot].default
    if hasattr(current, "model_dump"):
        current = current.model_dump()
    if isinstance(current, list) and len(current) == 1:
        current = current[0]
    if isinstance(current, str):
        current = {"type": current}
    if not isinstance(current, dict) or "." in option:
        raise InputError(f"'{slot}.{option}' names no option of one block; write {slot} out")
    return {**current, option: value}


def _validate(family: str, fields: dict[str, Any], what: str) -> BackboneConfig:
    config_class = FAMILIES[family][1]
    try:
        return config_class.model_validate(fields)
    except ValidationError as error:
        raise InputError(one_line(error, what, config_class)) from None
    except InputError as error:
        raise InputError(f"{what}: {error}") from None
