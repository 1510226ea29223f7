"""A workbench for convolutional image backbones and the blocks that plug into them."""

from typing import TYPE_CHECKING, Any

from blocklab.blocks import register_block
from blocklab.blocks.plugins import load_plugin
from blocklab.measure import Cost, cost
from blocklab.models import LoadReport, create_model, list_models, load_weights, register_with_timm
from blocklab.models.deploy import deploy

if TYPE_CHECKING:
    from blocklab.study.study import Study

register_with_timm()

__all__ = [
    "Cost",
    "LoadReport",
    "Study",
    "cost",
    "create_model",
    "deploy",
    "list_models",
    "load_plugin",
    "load_weights",
    "register_block",
]


def __getattr__(name: str) -> Any:
    if name == "Study":  # training's room takes seconds to import; who counts MACs need not wait
        from blocklab.study.study import Study

        return Study
    raise AttributeError(f"module 'blocklab' has no attribute '{name}'")
