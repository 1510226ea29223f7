"""Models as data: specifications, the catalogue and what builds them."""

from blocklab.models.factory import create_model, list_models, model_spec
from blocklab.models.spec import ModelSpec
from blocklab.models.timm_registry import register_with_timm
from blocklab.models.weights import LoadReport, load_weights

__all__ = [
    "LoadReport",
    "ModelSpec",
    "create_model",
    "list_models",
    "load_weights",
    "model_spec",
    "register_with_timm",
]
