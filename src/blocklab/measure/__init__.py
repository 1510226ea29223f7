"""Measurements of models: what they cost."""

from blocklab.measure.cost import Cost, cost

__all__ = ["Cost", "cost"]
