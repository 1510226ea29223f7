"""A workbench for convolutional image backbones and the blocks that plug into them."""

import importlib
from typing import TYPE_CHECKING, Any

from blocklab.blocks.plugins import load_plugin
from blocklab.blocks.registry import register_block
from blocklab.measure.cost import Cost, cost
from blocklab.models.deploy import deploy
from blocklab.models.factory import create_model
from blocklab.models.names import list_models
from blocklab.models.timm_registry import register_with_timm
from blocklab.models.weights import LoadReport, load_weights

if TYPE_CHECKING:
    from blocklab.running import run_collection, run_study
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
    "run_collection",
    "run_study",
]

# What takes seconds to import is imported when it is first asked for.
_LATER = {
    "Study": "blocklab.study.study",
    "StudyCollection": "blocklab.study.collection",
    "run_collection": "blocklab.running",
    "run_study": "blocklab.running",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'blocklab' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
