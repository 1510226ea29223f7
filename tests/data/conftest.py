"""Each test has a data folder and a cache of its own, and no network."""

import hashlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from blocklab.data import image_data

sys.path.insert(0, str(Path(__file__).parent))  # the makers of files are modules of this folder

from download_server import TEST, TRAIN, Server, sends
from image_files import make, pickles, write_parquet, write_tar

_NAMED = os.environ.get("BLOCKLAB_DATA")  # before any test sets its own


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("HF_ENDPOINT", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BLOCKLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BLOCKLAB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("BLOCKLAB_OFFLINE", "1")
    image_data._say.cache_clear()  # notes are said once a process
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


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BLOCKLAB_OFFLINE")
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub(server: Server, tmp_path: Path, rng: np.random.Generator) -> Server:
    """A server with a small CIFAR-100 at the hub's addresses and as an archive."""
    made = make(rng, 100, train=1, test=1)
    write_parquet(made, tmp_path / "made", "fine_label")
    for path, split in ((TRAIN, "train"), (TEST, "test")):
        body = (tmp_path / "made" / f"{split}.parquet").read_bytes()
        server.answers[path] = sends(body, X_Linked_Etag=hashlib.sha256(body).hexdigest())
    members = {f"cifar-100-python/{name}": body for name, body in pickles(made, "cifar100").items()}
    write_tar(tmp_path / "made" / "archive.tar.gz", dict(members))
    server.answers["/archive"] = sends((tmp_path / "made" / "archive.tar.gz").read_bytes())
    return server
