"""Downloads against a server on this machine: whole and checked, or not there."""

import multiprocessing
import os
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from download_server import (
    BODY,
    MD5,
    SHA256,
    TEST,
    TRAIN,
    Answer,
    Server,
    archive_is,
    fetch,
    left_behind,
    redirects,
    sends,
)

from blocklab.data.cifar import CIFAR100
from blocklab.data.cifar_download import download_cifar
from blocklab.data.image_data import open_data
from blocklab.data.spec import DataSpec
from blocklab.download import download
from blocklab.errors import InputError, RunError

pytestmark = pytest.mark.usefixtures("online")

WHOLE: dict[str, tuple[Answer, dict[str, str]]] = {
    "length alone": (sends(), {}),
    "hash given": (sends(), {"sha256": SHA256}),
    "beginning of a hash given": (sends(), {"sha256": SHA256[:8]}),
    "md5 given": (sends(length=None), {"md5": MD5}),
    "the hub's hash": (sends(length=None, X_Linked_Etag=f'"{SHA256}"'), {}),
    "an ETag that is a hash": (sends(length=None, ETag=f'W/"{SHA256}"'), {}),
    "an ETag that is none": (sends(ETag='"686897696a7c876b7e"'), {}),
    "hash given, another sent": (sends(X_Linked_Etag="0" * 64), {"sha256": SHA256}),
}


@pytest.mark.parametrize("case", WHOLE)
def test_a_whole_file_is_taken(case: str, server: Server, tmp_path: Path) -> None:
    server.answers["/file"], options = WHOLE[case]
    download(f"{server.address}/file", tmp_path / "file.bin", **options)
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert left_behind(tmp_path) == ["file.bin"]


NOT_WHOLE: dict[str, tuple[Answer, dict[str, str], str]] = {
    "closed early": (
        sends(BODY[:-1], length=len(BODY)), {}, "broke off after 767,999 of 768,000 bytes",
    ),
    "nothing of it": (sends(b"", length=9), {}, "broke off after 0 of 9 bytes"),
    "wrong hash": (sends(), {"sha256": "0" * 64}, "came damaged: sha256"),
    "wrong md5": (sends(), {"md5": "0" * 32}, "came damaged: md5"),
    "not the hub's hash": (sends(X_Linked_Etag="f" * 64), {}, "came damaged: sha256"),
    "not the ETag's hash": (sends(ETag="f" * 64), {}, "came damaged: sha256"),
    "cut, without a length": (sends(BODY[:-1], None, X_Linked_Etag=SHA256), {}, "came damaged"),
    "neither length nor hash": (sends(length=None), {}, "tells neither size nor hash"),
    "absent": (sends(b"no", status=404), {}, "answered 404 Not Found"),
    "forbidden": (sends(b"no", status=403), {}, "answered 403 Forbidden"),
    "broken server": (sends(b"no", status=503), {}, "answered 503 Service Unavailable"),
    "loop": (redirects("/file"), {}, "answered 302"),
    "to a file": (redirects("file:///etc/passwd"), {}, "answered 302"),
    "no HTTP": (lambda handler: handler.wfile.write(b"\x00" * 99), {}, "did not answer"),
    "no answer at all": (lambda handler: handler.connection.close(), {}, "did not answer"),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_WHOLE)
def test_anything_less_leaves_nothing(case: str, server: Server, tmp_path: Path) -> None:
    server.answers["/file"], options, message = NOT_WHOLE[case]
    with pytest.raises(RunError, match=message) as caught:
        download(f"{server.address}/file", tmp_path / "file.bin", **options)
    assert "\n" not in str(caught.value)
    assert left_behind(tmp_path) == []


def test_a_failed_download_keeps_the_file_that_was_there(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(b"good")
    server.answers["/file"] = sends(BODY[:9], length=99)
    with pytest.raises(RunError):
        download(f"{server.address}/file", tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == b"good"


@pytest.mark.parametrize("right", [True, False])
def test_the_hash_sent_with_a_redirect_counts(right: bool, server: Server, tmp_path: Path) -> None:
    """As the hub does: the hash comes with the redirect, the bytes from a server without one."""
    server.answers["/resolve"] = redirects("/blob", X_Linked_Etag=SHA256 if right else "a" * 64)
    server.answers["/blob"] = sends(ETag='"not-a-hash"')
    if right:
        download(f"{server.address}/resolve", tmp_path / "file.bin")
        assert (tmp_path / "file.bin").read_bytes() == BODY
    else:
        with pytest.raises(RunError, match="came damaged"):
            download(f"{server.address}/resolve", tmp_path / "file.bin")
        assert left_behind(tmp_path) == []


def test_a_server_that_falls_silent(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blocklab.download.TIMEOUT_SECONDS", 1.0)
    silence = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        sends(BODY[:100], length=len(BODY))(handler)
        silence.wait(120)

    server.answers["/file"] = answer
    with pytest.raises(RunError, match=r"broke off after .* timed out"):
        download(f"{server.address}/file", tmp_path / "file.bin")
    silence.set()
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/file", "file:///etc/passwd", "/etc/passwd", ""])
def test_only_http_is_fetched(url: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not an http address"):
        download(url, tmp_path / "file.bin")


def test_a_port_where_nobody_listens(server: Server, tmp_path: Path) -> None:
    address = server.address
    server.server_close()
    with pytest.raises(RunError, match="did not answer"):
        download(f"{address}/file", tmp_path / "file.bin")


def test_progress_is_shown_on_a_terminal_and_nowhere_else(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    server.answers["/file"] = sends()
    download(f"{server.address}/file", tmp_path / "quiet.bin")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")  # Rich's word for "this is a terminal"
    download(f"{server.address}/file", tmp_path / "shown.bin")
    out, err = capsys.readouterr()
    assert out == "" and "Downloading shown.bin" in err


# CIFAR: the hub first, then the archive.


def test_a_missing_cifar_is_downloaded_and_opened(
    hub: Server, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.address}/")
    opened = open_data(DataSpec(source="cifar100", validation_fraction=0))
    assert (len(opened.train), len(opened.test)) == (100, 100)
    assert hub.asked == [TRAIN, TEST]
    open_data(DataSpec(source="cifar100", validation_fraction=0))
    assert hub.asked == [TRAIN, TEST]  # once


def test_a_damaged_hub_falls_back_to_the_archive(
    hub: Server, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.answers[TEST] = sends(b"damaged", X_Linked_Etag="a" * 64)
    archive_is(monkeypatch, (tmp_path / "made" / "archive.tar.gz").read_bytes())
    fetch(hub, data)
    assert left_behind(data) == ["cifar-100-python.tar.gz", "train-00000-of-00001.parquet"]
    opened = open_data(DataSpec(source="cifar100", validation_fraction=0))
    assert (len(opened.train), len(opened.test)) == (100, 100)


def test_a_download_goes_on_where_it_stopped(
    hub: Server, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = hub.answers.pop(TEST)
    archive_is(monkeypatch, b"another archive")
    with pytest.raises(RunError, match=r"answered 404 .*came damaged: md5.*; try again later, or "):
        fetch(hub, data)
    assert left_behind(data) == ["train-00000-of-00001.parquet"]
    hub.answers[TEST] = answer
    fetch(hub, data)
    assert hub.asked == [TRAIN, TEST, "/archive", TEST]


def test_a_split_that_is_there_under_another_name_is_kept(
    hub: Server, data: Path, tmp_path: Path
) -> None:
    (data / "cifar100").mkdir()
    (tmp_path / "made" / "train.parquet").rename(data / "cifar100" / "train.parquet")
    fetch(hub, data)
    assert hub.asked == [TEST]
    open_data(DataSpec(source="cifar100", validation_fraction=0))


def _fetch_in_a_process(address: str, root: Path, start: "threading.Barrier") -> None:
    os.environ.pop("BLOCKLAB_OFFLINE", None)
    start.wait()
    download_cifar(CIFAR100, root, address, f"{address}/archive")


def test_two_processes_fetch_once(hub: Server, data: Path) -> None:
    context = multiprocessing.get_context("fork")  # quick: torch is imported already
    start = context.Barrier(2)
    pair = [
        context.Process(target=_fetch_in_a_process, args=(hub.address, data, start))
        for _ in range(2)
    ]
    for process in pair:
        process.start()
    for process in pair:
        process.join(30)
    assert [process.exitcode for process in pair] == [0, 0]
    assert hub.asked == [TRAIN, TEST]


@pytest.mark.parametrize("switch", ["BLOCKLAB_OFFLINE", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize("word", ["1", "true", "YES"])
def test_offline_asks_nobody(
    switch: str, word: str, hub: Server, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(switch, word)
    with pytest.raises(InputError, match=f"is not in .* and {switch} is set; unset it, or put"):
        fetch(hub, data)
    assert hub.asked == [] and left_behind(data) == []


def test_a_switch_that_is_off(hub: Server, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOCKLAB_OFFLINE", "0")
    fetch(hub, data)
    assert hub.asked == [TRAIN, TEST]


def test_a_data_folder_that_cannot_be_made(hub: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=r"cannot write into .*BLOCKLAB_DATA names that folder"):
        fetch(hub, tmp_path / "file")


def test_a_full_disk(hub: Server, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("blocklab.download.os.fsync", full)
    with pytest.raises(RunError, match=r"cannot write into .*: No space left on device"):
        fetch(hub, data)
    assert left_behind(data) == []


def test_a_half_file_of_a_killed_process_is_no_data(hub: Server, data: Path) -> None:
    (data / "cifar100").mkdir()
    (data / "cifar100" / "train-00000-of-00001.parquet.part").write_bytes(b"half")
    fetch(hub, data)
    assert hub.asked == [TRAIN, TEST]
    assert left_behind(data) == ["test-00000-of-00001.parquet", "train-00000-of-00001.parquet"]


def test_what_never_ends_is_given_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blocklab.download.LARGEST_BYTES", 1_000_000)
    server.answers["/file"] = sends(BODY * 2, length=None, X_Linked_Etag=SHA256)
    with pytest.raises(RunError, match="is larger than 1,000,000 bytes"):
        download(f"{server.address}/file", tmp_path / "file.bin")
    assert left_behind(tmp_path) == []
