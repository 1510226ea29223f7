"""A workbench for convolutional image backbones and the blocks that plug into them."""

from typing import TYPE_CHECKING, Any

from blocklab.blocks import register_block
from blocklab.blocks.plugins import load_plugin
from blocklab.measure import Cost, cost
from blocklab.models import LoadReport, create_model, list_models, load_weights, register_with_timm
from blocklab.models.deploy import deploy

if TYPE_CHECKING:
    from blocklab.study.collection import StudyCollection
    from blocklab.study.study import Study

register_with_timm()

__all__ = [
    "Cost",
    "LoadReport",
    "Study",
    "StudyCollection",
    "cost",
    "create_model",
    "deploy",
    "list_models",
    "load_plugin",
    "load_weights",
    "register_block",
]


def __getattr__(name: str) -> Any:
    if name in ("Study", "StudyCollection"):  # training's room takes seconds to import
        from blocklab.study import collection

        return getattr(collection, name)
    raise AttributeError(f"module 'blocklab' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
