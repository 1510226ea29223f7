"""Each test has a data folder and a cache of its own, and no network."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # the makers of files are modules of this folder

_NAMED = os.environ.get("BLOCKLAB_DATA")  # before any test sets its own


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("HF_ENDPOINT", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BLOCKLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BLOCKLAB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("BLOCKLAB_OFFLINE", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder that BLOCKLAB_DATA names, empty."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The folder that BLOCKLAB_CACHE names; not there yet."""
    return tmp_path / "cache"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def real_cifar100(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the real CIFAR-100, if the environment names one."""
    if _NAMED is None or not (Path(_NAMED) / "cifar100").is_dir():
        pytest.skip("BLOCKLAB_DATA names no folder with cifar100")
    monkeypatch.setenv("BLOCKLAB_DATA", _NAMED)
    return Path(_NAMED)
