"""The plain formulations are those that the benchmarks time; one thread, as the maps are small."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread_and_a_fixed_seed() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def plain_blocks() -> ModuleType:
    """The blocks as their papers' equations read."""
    file = Path(__file__).parents[2] / "benchmarks" / "plain_blocks.py"
    spec = importlib.util.spec_from_file_location("plain_blocks", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
