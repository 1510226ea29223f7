"""A workbench for convolutional image backbones and the blocks that plug into them."""

from blocklab.blocks import register_block
from blocklab.measure import Cost, cost
from blocklab.models import LoadReport, create_model, list_models, load_weights, register_with_timm

register_with_timm()

__all__ = [
    "Cost",
    "LoadReport",
    "cost",
    "create_model",
    "list_models",
    "load_weights",
    "register_block",
]
