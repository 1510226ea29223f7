"""Models as data: specifications, the catalogue, what builds, loads and exports them."""

from blocklab.models.export import Exported, export_model
from blocklab.models.factory import create_model, list_models, model_spec
from blocklab.models.hub import Card, from_pretrained, save_pretrained
from blocklab.models.saved import load_model, save_model
from blocklab.models.spec import ModelSpec
from blocklab.models.timm_registry import register_with_timm
from blocklab.models.weights import LoadReport, load_weights

__all__ = [
    "Card",
    "Exported",
    "LoadReport",
    "ModelSpec",
    "create_model",
    "export_model",
    "from_pretrained",
    "list_models",
    "load_model",
    "load_weights",
    "model_spec",
    "register_with_timm",
    "save_model",
    "save_pretrained",
]
