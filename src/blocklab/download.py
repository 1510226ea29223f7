"""Fetch a file over HTTP, whole or not at all.

A file grows under the name `NAME.part` and gets its own name only once its size and its hash are
what the server (or the caller) says, so nothing half-written is ever taken for the file. Its
SHA-256 is kept beside it, as `.NAME.sha256`, and is checked again when the file is read.
"""

import hashlib
import os
import queue
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.parse import quote, urlsplit, urlunsplit

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from blocklab.errors import RunError, error_line

TIMEOUT_SECONDS = 30.0  # of silence, not of the whole transfer
ANSWER_SECONDS = 120.0  # until a server's headers are there, redirects included
SLOW_SECONDS = 60.0  # over which a transfer must be faster than:
SLOWEST_BYTES_A_SECOND = 1000
LARGEST_BYTES = 16 << 30  # a server that never stops must not fill the disk
HEAD_BYTES = 16
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LENGTH = re.compile(r"[0-9]{1,20}")

LooksRight = Callable[[bytes], bool]  # asked about a file's first bytes


def is_parquet(head: bytes) -> bool:
    """Say whether a file that begins so may be parquet."""
    return head.startswith(b"PAR1")


def cached_download(
    url: str,
    path: Path,
    sha256: str | None = None,
    md5: str | None = None,
    looks_right: LooksRight | None = None,
) -> None:
    """Fetch `url` into `path`, unless it is there and as it came; see `download` and `is_whole`.

    A file that is there but damaged is thrown away and fetched once more.

    Raises:
        RunError, OSError: as `download`.
    """
    if is_whole(path, sha256, looks_right):
        return
    throw_away(path)
    received = download(url, path, sha256, md5, looks_right)
    with _created(_record_path(path)) as file:
        file.write(f"{received}\n".encode())


def is_whole(path: Path, sha256: str | None = None, looks_right: LooksRight | None = None) -> bool:
    """Say whether a file is there and, where it was downloaded, still what came.

    Files without a record of a download are checked against `sha256`, if that is given, and by
    their first bytes.
    """
    try:
        record = _record_path(path).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        record = None
    except (OSError, ValueError):
        record = "damaged"
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            if record is None and sha256 is None:
                return looks_right is None or looks_right(head)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return False
    return record in (None, digest) and digest.startswith((sha256 or "").lower())


def throw_away(path: Path) -> None:
    """Remove a file, if it is there, and what was noted of its download."""
    path.unlink(missing_ok=True)
    _record_path(path).unlink(missing_ok=True)


def was_downloaded(path: Path) -> bool:
    """Say whether a file came by `cached_download`, and so can be fetched again."""
    return _record_path(path).is_file()


def http_address(url: str) -> str | None:
    """Return an HTTP address with odd characters escaped; None if it is not one."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            return None
        if any(c.isspace() or not c.isprintable() for c in parts.netloc):
            return None
        parts.hostname.encode("idna")
    except ValueError:  # also a port that is no number, a bracket left open, a name too long
        return None
    # What is escaped already stays as it is.
    path, query = (quote(part, safe="%/:=&?~+!$,;'@()*[]") for part in (parts.path, parts.query))
    return urlunsplit((parts.scheme, parts.netloc, path, query, ""))


def download(
    url: str,
    destination: Path,
    sha256: str | None = None,
    md5: str | None = None,
    looks_right: LooksRight | None = None,
) -> str:
    """Fetch `url` into `destination`, with a progress bar on stderr; return its SHA-256.

    `sha256` may be the beginning of the hash. Without a hash given, the server's own is taken:
    `X-Linked-Etag`, as the hub sends for large files, or an `ETag` of that form. The length must
    be what the server says, too. `looks_right` is asked about the first bytes, so that a web page
    is not taken for the file.

    Raises:
        RunError: if the server does not answer, or the size or the hash is wrong.
        OSError: if the file cannot be written.
    """
    address = http_address(url)
    if address is None:
        raise RunError(f"{url} is not an http address")
    part = destination.with_name(f"{destination.name}.part")
    redirects = _Redirects()
    try:
        with _answer(address, url, redirects) as response:
            headers = [*redirects.headers, response.headers]
            expected = {
                "sha256": sha256 or (_sent_sha256(headers) if md5 is None else None),
                "md5": md5,
            }
            sizes = _sizes(headers)
            if not sizes and not any(expected.values()):
                raise RunError(f"{url} tells neither size nor hash, so it cannot be checked")
            received, digests = _receive(response, part, sizes, url, looks_right)
        for size in sizes:
            if received != size:
                raise RunError(f"{url} broke off after {received:,} of {size:,} bytes")
        for kind, wanted in expected.items():
            if wanted and not digests[kind].startswith(wanted.lower()):
                raise RunError(f"{url} came damaged: {kind} {digests[kind]}, not {wanted}")
        os.replace(part, destination)
    finally:
        part.unlink(missing_ok=True)
    return digests["sha256"]


def _answer(address: str, url: str, redirects: "_Redirects") -> HTTPResponse:
    """Open an address; headers that come a byte at a time do not keep us."""
    answers: queue.SimpleQueue[HTTPResponse | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            request = urllib.request.Request(address, headers={"User-Agent": "blocklab"})
            opener = urllib.request.build_opener(redirects)
            answers.put(opener.open(request, timeout=TIMEOUT_SECONDS))
        except Exception as error:  # raised below, where someone waits for it
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=ANSWER_SECONDS)
    except queue.Empty:
        raise RunError(f"{url} did not answer within {ANSWER_SECONDS:g} s") from None
    if isinstance(answer, urllib.error.HTTPError):
        raise RunError(f"{url} answered {answer.code} {answer.reason}") from answer
    if isinstance(answer, OSError | HTTPException | ValueError):
        raise RunError(f"{url} did not answer: {getattr(answer, 'reason', answer)}") from answer
    if isinstance(answer, Exception):
        raise answer
    if answer.status != 200:  # a part of it, say
        answer.close()
        raise RunError(f"{url} answered {answer.status} {answer.reason}, not with the whole file")
    return answer


def _receive(
    response: HTTPResponse, part: Path, sizes: set[int], url: str, looks_right: LooksRight | None
) -> tuple[int, dict[str, str]]:
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    most = min({LARGEST_BYTES, *sizes})
    if max(sizes, default=0) > LARGEST_BYTES:
        raise RunError(f"{url} is larger than {LARGEST_BYTES:,} bytes")
    received, head = 0, b""
    since, received_then = time.monotonic(), 0
    part.unlink(missing_ok=True)
    with (
        _created(part) as file,
        Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        ) as progress,
    ):
        task = progress.add_task(f"Downloading {escape(part.stem)}", total=min(sizes, default=None))
        while True:
            try:
                # What has arrived: waiting for so many bytes could take for ever.
                block = response.read1(1 << 18)
            except (OSError, HTTPException, ValueError) as error:
                raise RunError(
                    f"{url} broke off after {received:,} bytes: {error_line(error, kind=False)}"
                ) from error
            if not block:
                break
            if len(head) < HEAD_BYTES:
                head += block[:HEAD_BYTES]
            file.write(block)
            received += len(block)
            if received > most:
                raise RunError(f"{url} is larger than {most:,} bytes")
            sha256.update(block)
            md5.update(block)
            progress.update(task, completed=received)
            if (seconds := time.monotonic() - since) > SLOW_SECONDS:
                if received - received_then < SLOWEST_BYTES_A_SECOND * seconds:
                    raise RunError(
                        f"{url} sends fewer than {SLOWEST_BYTES_A_SECOND} bytes a second "
                        f"({received:,} so far)"
                    )
                since, received_then = time.monotonic(), received
        if looks_right is not None and received in (sizes or {received}) and not looks_right(head):
            raise RunError(
                f"{url} answered with something else ({_what_begins(head)}); is there a page to "
                "log in to this network?"
            )
        file.flush()
        os.fsync(file.fileno())
    return received, {"sha256": sha256.hexdigest(), "md5": md5.hexdigest()}


def _what_begins(head: bytes) -> str:
    return "a web page" if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<") else repr(head[:8])


def _created(path: Path) -> IO[bytes]:
    """Open a new file for writing; a link of that name, laid by someone else, is not followed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "wb")


def _record_path(path: Path) -> Path:
    """Name the file beside a downloaded one that holds its SHA-256."""
    return path.with_name(f".{path.name}.sha256")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Keeps the headers of each redirect: the hub sends a file's hash with the first one."""

    def __init__(self) -> None:
        self.headers: list[Message] = []

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        self.headers.append(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _sent_sha256(headers: list[Message]) -> str | None:
    for name, hops in (("X-Linked-Etag", headers), ("ETag", headers[-1:])):
        for hop in hops:
            tag = hop.get(name, "").removeprefix("W/").strip('"').lower()
            if _SHA256.fullmatch(tag):
                return tag
    return None


def _sizes(headers: list[Message]) -> set[int]:
    """Return the file's size as the last server says it, and as the hub said on the way."""
    said = [hop.get("X-Linked-Size", "") for hop in headers]
    said.append(headers[-1].get("Content-Length", ""))
    return {int(size) for size in said if _LENGTH.fullmatch(size)}


def offline() -> str | None:
    """Return the variable that switches downloads off, if one does."""
    for name in ("BLOCKLAB_OFFLINE", "HF_HUB_OFFLINE"):
        if os.environ.get(name, "").lower() in {"1", "true", "yes", "on"}:
            return name
    return None
