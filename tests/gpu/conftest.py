"""Tests marked `cuda` run where a GPU is; what tests share with benchmarks lies beside those."""

import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS / "null_cuda")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where PyTorch sees none."""
    if not torch.cuda.is_available():
        reason = "PyTorch sees no CUDA device here"
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason=reason))
