"""Downloads that are slow, odd or something else, and downloaded files that came to harm."""

import contextlib
import hashlib
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from download_server import (
    BODY,
    SHA256,
    TEST,
    TRAIN,
    Answer,
    Server,
    archive_is,
    fetch,
    left_behind,
    sends,
)

from blocklab.data.image_data import open_data
from blocklab.data.spec import DataSpec
from blocklab.download import cached_download, download, is_parquet
from blocklab.errors import InputError, RunError
from blocklab.models.checkpoint import fetch as fetch_weights

pytestmark = pytest.mark.usefixtures("online")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            sends(BODY[:100], status=206, Content_Range="bytes 0-99/768000"),
            "answered 206 .*, not w",
        ),
        (
            sends(b"<!DOCTYPE html><title>Log in</title>"),
            r"something else \(a web page\); is there",
        ),
        (sends(b"\r\n <html>log in</html>", Content_Type="text/html"), "a web page"),
        (sends(b'{"error": "x"}, and so on'), "answered with something else"),
        (sends(b"PAR1" + BODY, X_Linked_Size="99"), "larger than 99 bytes"),
        (sends(b"PAR1" + BODY, X_Linked_Size="999999"), "broke off after .* of 999,999 bytes"),
        (sends(BODY, length=1 << 60), "is larger than 17,179,869,184 bytes"),
    ],
)
def test_something_else_is_never_stored(
    answer: Answer, message: str, server: Server, tmp_path: Path
) -> None:
    server.answers["/file"] = answer
    with pytest.raises(RunError, match=message):
        cached_download(f"{server.address}/file", tmp_path / "x.parquet", looks_right=is_parquet)
    assert left_behind(tmp_path) == []


def slowly(body: bytes, head: bytes, whole: threading.Event) -> Answer:
    """Send the rest of an answer a byte at a time, which no limit on silence ends."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(head)
        with contextlib.suppress(OSError):  # they hang up
            for number in range(len(body)):
                handler.wfile.write(body[number : number + 1])
                handler.wfile.flush()
                time.sleep(0.05)
            whole.set()

    return answer


@pytest.mark.parametrize("what", ["body", "headers"])
def test_a_byte_at_a_time_ends(
    what: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blocklab.download.SLOW_SECONDS", 0.5)
    monkeypatch.setattr("blocklab.download.ANSWER_SECONDS", 0.5)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n"
    rest, head = (BODY[:300], head + b"\r\n") if what == "body" else (b"X" * 300, head)
    whole = threading.Event()
    server.answers["/file"] = slowly(rest, head, whole)
    with pytest.raises(RunError, match=r"fewer than 1000 bytes a second|not answer within 0.5 s"):
        download(f"{server.address}/file", tmp_path / "file.bin")
    assert not whole.is_set()
    assert left_behind(tmp_path) == []


def test_what_cannot_be_checked_is_not_fetched_first(server: Server, tmp_path: Path) -> None:
    sent = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        sends(b"", length=None)(handler)
        with contextlib.suppress(OSError):
            for _ in range(200):
                handler.wfile.write(bytes(1 << 20))
            sent.set()

    server.answers["/file"] = answer
    with pytest.raises(RunError, match="tells neither size nor hash"):
        download(f"{server.address}/file", tmp_path / "file.bin")
    assert not sent.is_set()


def test_a_link_in_the_place_of_the_part_is_not_followed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    for name in ("file.bin.part", ".file.bin.sha256", "file.bin"):
        (tmp_path / name).symlink_to("precious")
    server.answers["/file"] = sends()
    cached_download(f"{server.address}/file", tmp_path / "file.bin", sha256=SHA256)
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert not any(path.is_symlink() for path in tmp_path.iterdir())


ODD = [
    "http://",
    "http://[::1",
    "http://a b/file",
    "http://127.0.0.1:port/file",
    "http://127.0.0.1:0/file",
    "http://127.0.0.1:99999/file",
    "http://" + "a" * 300 + "/file",
    "http://a..b/file",
    "http://\n/file",
    "http:///file",
    "https://\ud800/file",
    "http://x\u2100y/file",
]


@pytest.mark.parametrize("url", ODD)
def test_odd_addresses_are_one_line(url: str, tmp_path: Path) -> None:
    for ask in (lambda: download(url, tmp_path / "file.bin"), lambda: fetch_weights(url)):
        with pytest.raises((RunError, InputError), match="is not an http address") as caught:
            ask()
        assert str(caught.value).isprintable()


def test_addresses_with_odd_characters_are_fetched(server: Server, tmp_path: Path) -> None:
    server.answers["/a%20b/%C3%BC.bin?x=%E2%98%83&y"] = sends()
    download(f"{server.address}/a b/ü.bin?x=☃&y", tmp_path / "file.bin")
    server.answers["/" + "n" * 400 + ".pth"] = sends(b"PK" + BODY)
    assert fetch_weights(f"{server.address}/{'n' * 400}.pth").read_bytes() == b"PK" + BODY
    with pytest.raises(RunError, match="answered 404"):
        download(f"{server.address}/\n\x00%", tmp_path / "file.bin")


# What is in the cache is checked again.


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("with_hash", [True, False])
def test_damaged_weights_are_fetched_once_more(
    with_hash: bool, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b"PK" + BODY
    server.answers["/a.pth"] = sends(body)
    url = f"{server.address}/a.pth"
    url += f"#sha256={hashlib.sha256(body).hexdigest()}" if with_hash else ""
    path = fetch_weights(url)
    assert fetch_weights(url) == path and server.asked == ["/a.pth"]
    damaged(path)
    assert fetch_weights(url).read_bytes() == body
    assert server.asked == ["/a.pth"] * 2
    damaged(path)
    monkeypatch.setenv("BLOCKLAB_OFFLINE", "1")
    with pytest.raises(InputError, match="pth is damaged and BLOCKLAB_OFFLINE is set; unset it"):
        fetch_weights(url)
    monkeypatch.delenv("BLOCKLAB_OFFLINE")
    server.answers["/a.pth"] = sends(b"<html>log in</html>")
    with pytest.raises(RunError, match=r"a web page|came damaged"):
        fetch_weights(url)
    assert not path.exists()


def test_a_page_that_an_earlier_version_stored_is_thrown_away(server: Server) -> None:
    body = b"PK" + BODY
    server.answers["/a.pth"] = sends(body)
    path = fetch_weights(f"{server.address}/a.pth")
    path.with_name(f".{path.name}.sha256").unlink()
    assert fetch_weights(f"{server.address}/a.pth") == path and len(server.asked) == 1  # as it was
    path.write_bytes(b"<html>log in</html>")
    assert fetch_weights(f"{server.address}/a.pth").read_bytes() == body
    assert len(server.asked) == 2


def test_a_damaged_parquet_file_is_fetched_once_more(
    hub: Server, data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    spec = DataSpec(source="cifar100", validation_fraction=0)
    first = open_data(spec)
    damaged(data / "cifar100" / "train-00000-of-00001.parquet")
    again = open_data(spec)
    assert again.fingerprint == first.fingerprint
    assert hub.asked == [TRAIN, TEST, TRAIN]
    assert (again.train.pixels(slice(None)) == first.train.pixels(slice(None))).all()


def test_a_damaged_archive_is_fetched_once_more(
    hub: Server, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    answers = [hub.answers.pop(path) for path in (TRAIN, TEST)]
    archive_is(monkeypatch, (tmp_path / "made" / "archive.tar.gz").read_bytes())
    fetch(hub, data)
    hub.answers |= dict(zip((TRAIN, TEST), answers, strict=True))
    damaged(data / "cifar-100-python.tar.gz")
    assert len(open_data(DataSpec(source="cifar100", validation_fraction=0)).train) == 100
    assert left_behind(data) == ["test-00000-of-00001.parquet", "train-00000-of-00001.parquet"]
