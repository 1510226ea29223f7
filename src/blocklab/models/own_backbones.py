"""`register_backbone`: a module with a stem and stages as a model by name."""

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from blocklab.backbones.config import BackboneConfig
from blocklab.backbones.own import KIND
from blocklab.backbones.registry import BACKBONES, FAMILIES
from blocklab.blocks.registry import block_info, register_block
from blocklab.errors import InputError
from blocklab.models.names import list_models

_BackboneClass = TypeVar("_BackboneClass", bound=type[nn.Module])
_TAKEN = ("base", "backbone", "family", "model")  # keys beside a model's slots


def register_backbone(name: str) -> Callable[[_BackboneClass], _BackboneClass]:
    """Register a module class as a backbone, to be used wherever a model is named.

    Its constructor is told ``in_chans`` and, if it asks for it, ``drop_path_rate`` (of the last
    block); keyword-only parameters are its options. It sets ``self.stem``, ``self.stages`` (an
    ``nn.ModuleList``) and perhaps ``self.norm``; each takes a map (B, C, H, W) to a map. It needs
    no ``forward``, and has no head. ``native_size``, of the class, is the side of the images that
    it is made for (224 unless it says so).

    Raises:
        InputError: if the name is taken or no word, or the constructor asks for something else.
    """
    if isinstance(name, str) and (name in list_models() or name in (*BACKBONES, *FAMILIES)):
        raise InputError(f"'{name}' is a model of blocklab's; register yours under another name")
    register = register_block(name, KIND)

    def registered(cls: _BackboneClass) -> _BackboneClass:
        if not isinstance(cls, type) or not issubclass(cls, nn.Module):
            raise InputError(f"a backbone is a class of nn.Module, and '{name}' is none")
        register(cls)
        for option in block_info(KIND, name).options.model_fields:
            if option in BackboneConfig.model_fields or option in _TAKEN:
                raise InputError(
                    f"backbone '{name}' cannot have an option '{option}', which means something "
                    "else; drop_path_rate is told to a constructor that has it before the *"
                )
        return cls

    return registered


__all__ = ["register_backbone"]
