"""Fetch a file over HTTP, whole or not at all.

A file grows under the name `NAME.part` and gets its own name only once its size and its hash are
what the server (or the caller) says, so nothing half-written is ever taken for the file.
"""

import hashlib
import os
import re
import urllib.error
import urllib.request
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from blocklab.errors import RunError, error_line

TIMEOUT_SECONDS = 30.0  # of silence, not of the whole transfer
LARGEST_BYTES = 16 << 30  # a server that never stops must not fill the disk
_SHA256 = re.compile(r"[0-9a-f]{64}")


def download(
    url: str, destination: Path, sha256: str | None = None, md5: str | None = None
) -> None:
    """Fetch `url` into `destination`, with a progress bar on stderr.

    `sha256` may be the beginning of the hash. Without a hash given, the server's own is taken:
    `X-Linked-Etag`, as the hub sends for large files, or an `ETag` of that form.

    Raises:
        RunError: if the server does not answer, or the size or the hash is wrong.
        OSError: if the file cannot be written.
    """
    if not url.startswith(("http://", "https://")):
        raise RunError(f"{url} is not an http address")
    part = destination.with_name(f"{destination.name}.part")
    redirects = _Redirects()
    request = urllib.request.Request(url, headers={"User-Agent": "blocklab"})
    try:
        try:
            response = urllib.request.build_opener(redirects).open(request, timeout=TIMEOUT_SECONDS)
        except urllib.error.HTTPError as error:
            raise RunError(f"{url} answered {error.code} {error.reason}") from error
        except (OSError, HTTPException) as error:
            raise RunError(f"{url} did not answer: {getattr(error, 'reason', error)}") from error
        with response:
            headers = [*redirects.headers, response.headers]
            size = _length(response.headers)
            received, digests = _receive(response, part, size, url)
        if size is not None and received != size:
            raise RunError(f"{url} broke off after {received:,} of {size:,} bytes")
        expected = {
            "sha256": sha256 or (_sent_sha256(headers) if md5 is None else None),
            "md5": md5,
        }
        for kind, wanted in expected.items():
            if wanted and not digests[kind].startswith(wanted.lower()):
                raise RunError(f"{url} came damaged: {kind} {digests[kind]}, not {wanted}")
        if size is None and not any(expected.values()):
            raise RunError(f"{url} tells neither size nor hash, so it cannot be checked")
        os.replace(part, destination)
    finally:
        part.unlink(missing_ok=True)


def _receive(
    response: IO[bytes], part: Path, size: int | None, url: str
) -> tuple[int, dict[str, str]]:
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    received = 0
    with (
        part.open("wb") as file,
        Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        ) as progress,
    ):
        task = progress.add_task(f"Downloading {part.stem}", total=size)
        while True:
            try:
                block = response.read(1 << 18)
            except (OSError, HTTPException) as error:
                raise RunError(
                    f"{url} broke off after {received:,} bytes: {error_line(error, kind=False)}"
                ) from error
            if not block:
                break
            file.write(block)
            received += len(block)
            if received > LARGEST_BYTES:
                raise RunError(f"{url} is larger than {LARGEST_BYTES:,} bytes")
            sha256.update(block)
            md5.update(block)
            progress.update(task, completed=received)
        file.flush()
        os.fsync(file.fileno())
    return received, {"sha256": sha256.hexdigest(), "md5": md5.hexdigest()}


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


def _length(headers: Message) -> int | None:
    length = headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def offline() -> str | None:
    """Return the variable that switches downloads off, if one does."""
    for name in ("BLOCKLAB_OFFLINE", "HF_HUB_OFFLINE"):
        if os.environ.get(name, "").lower() in {"1", "true", "yes", "on"}:
            return name
    return None
