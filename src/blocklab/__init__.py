"""A workbench for convolutional image backbones and the blocks that plug into them."""

from blocklab.blocks import register_block
from blocklab.measure import Cost, cost
from blocklab.models import create_model, list_models

__all__ = ["Cost", "cost", "create_model", "list_models", "register_block"]
