"""A workbench for convolutional image backbones and the blocks that plug into them.

`import blocklab` registers every named model with timm. The public names are imported when they are
first asked for. The command line registers nothing until it loads a user's file, so that what needs
no PyTorch does not import it.
"""

import importlib
from typing import TYPE_CHECKING, Any

import blocklab_command

if TYPE_CHECKING:
    from blocklab.blocks.plugins import load_plugin
    from blocklab.blocks.registry import register_block
    from blocklab.measure.cost import Cost, cost
    from blocklab.measure.operators import register_macs
    from blocklab.models.deploy import deploy
    from blocklab.models.factory import create_model
    from blocklab.models.names import list_models
    from blocklab.models.own_backbones import register_backbone
    from blocklab.models.weights import LoadReport, load_weights
    from blocklab.results.named_run import load_run
    from blocklab.running import run_collection, run_study
    from blocklab.study.collection import StudyCollection
    from blocklab.study.study import Study

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
    "load_run",
    "load_weights",
    "register_backbone",
    "register_block",
    "register_macs",
    "run_collection",
    "run_study",
]

_DEFINED_IN = {
    "Cost": "measure.cost",
    "LoadReport": "models.weights",
    "Study": "study.study",
    "StudyCollection": "study.collection",
    "cost": "measure.cost",
    "create_model": "models.factory",
    "deploy": "models.deploy",
    "list_models": "models.names",
    "load_plugin": "blocks.plugins",
    "load_run": "results.named_run",
    "load_weights": "models.weights",
    "register_backbone": "models.own_backbones",
    "register_block": "blocks.registry",
    "register_macs": "measure.operators",
    "run_collection": "running",
    "run_study": "running",
}


def __getattr__(name: str) -> Any:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module 'blocklab' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"blocklab.{_DEFINED_IN[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if not blocklab_command.answering:
    importlib.import_module("blocklab.models.timm_registry").register_with_timm()
