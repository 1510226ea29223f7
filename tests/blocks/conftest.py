"""The slow loops lie beside the tests that use them; one thread, as the maps are tiny."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the loops are modules of this folder


@pytest.fixture(autouse=True)
def _repeatable(one_thread_and_a_fixed_seed: None) -> None: ...
