"""Measurements of models: costs, speed, memory, receptive fields, dead neurons."""
