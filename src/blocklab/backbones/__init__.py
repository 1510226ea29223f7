"""Backbones: skeletons that name their slots."""
