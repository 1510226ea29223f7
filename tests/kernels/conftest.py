"""The plain formulations are those that the benchmarks time; one thread, as the maps are small."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(autouse=True)
def _repeatable(one_thread_and_a_fixed_seed: None) -> None: ...


@pytest.fixture(scope="session")
def plain_blocks() -> ModuleType:
    """The blocks as their papers' equations read."""
    file = Path(__file__).parents[2] / "benchmarks" / "plain_blocks.py"
    spec = importlib.util.spec_from_file_location("plain_blocks", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
