"""Every named model in timm's registry, as ``blocklab_<name>``, once blocklab is imported."""

from collections.abc import Callable
from typing import Any

from timm.models import is_model, register_model
from torch import nn

from blocklab.errors import InputError
from blocklab.models.factory import create_model, list_models

PREFIX = "blocklab_"


def register_with_timm() -> None:
    """Register every named model with timm; a second call changes nothing."""
    for name in list_models():
        if not is_model(PREFIX + name):
            register_model(_entry_point(name))


def _entry_point(name: str) -> Callable[..., nn.Module]:
    def create(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: Any = None,
        cache_dir: Any = None,
        **options: Any,
    ) -> nn.Module:
        if pretrained or pretrained_cfg or pretrained_cfg_overlay:
            raise InputError(
                f"{PREFIX}{name} has no pretrained weights; create it with pretrained=False and "
                "load a checkpoint with blocklab.load_weights"
            )
        return create_model(name, **options)

    create.__name__ = create.__qualname__ = PREFIX + name  # what timm files it under
    create.__doc__ = f"Build blocklab's {name}: `blocklab.create_model` takes the same options."
    return create
