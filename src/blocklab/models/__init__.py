"""Models as data: specifications, the catalogue and what builds them."""

from blocklab.models.factory import create_model, list_models, model_spec
from blocklab.models.spec import ModelSpec

__all__ = ["ModelSpec", "create_model", "list_models", "model_spec"]
