"""A server on this machine that answers as a test says, and what asks it."""

import hashlib
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from blocklab.data.cifar import CIFAR100
from blocklab.data.cifar_download import download_cifar

BODY = bytes(range(256)) * 3000  # three blocks of what is read at once
SHA256 = hashlib.sha256(BODY).hexdigest()
MD5 = hashlib.md5(BODY).hexdigest()
Answer = Callable[[BaseHTTPRequestHandler], object]


class Server(ThreadingHTTPServer):
    """Answers each path as the test says, and counts."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.asked.append(self.path)
        self.server.answers.get(self.path, lambda handler: handler.send_error(404))(self)

    def log_message(self, format: str, *ignored: object) -> None:
        pass


def sends(body: bytes = BODY, length: int | None = -1, status: int = 200, **headers: Any) -> Answer:
    """Send a body; `length` is what is announced: -1 the truth, None nothing."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        if length is not None:
            handler.send_header("Content-Length", str(len(body) if length < 0 else length))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def redirects(to: str, **headers: Any) -> Answer:
    return sends(b"", status=302, Location=to, **headers)


def left_behind(folder: Path) -> list[str]:
    """Names of all files but locks, and but the hashes of files that are there."""
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    kept = {name for name in names if not name.endswith(".lock")}
    return sorted(kept - {f".{name}.sha256" for name in kept})


TRAIN, TEST = (
    f"/datasets/uoft-cs/cifar100/resolve/main/cifar100/{split}-00000-of-00001.parquet"
    for split in ("train", "test")
)


def fetch(hub: Server, root: Path) -> None:
    download_cifar(CIFAR100, root, hub.address, f"{hub.address}/archive")


def archive_is(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    md5 = hashlib.md5(content).hexdigest()
    monkeypatch.setattr("torchvision.datasets.CIFAR100.tgz_md5", md5)
