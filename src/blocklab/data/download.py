"""Fetch CIFAR: Hugging Face's parquet files, else the archive that torchvision knows.

A file grows under the name `NAME.part` and gets its own name only once its size and its hash are
what the server (or torchvision) says, so nothing half-written is ever taken for data.
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

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from blocklab.data.cifar import Cifar, find_cifar
from blocklab.errors import InputError, RunError

HUB = "https://huggingface.co"
TIMEOUT_SECONDS = 30.0  # of silence, not of the whole transfer
_SHA256 = re.compile(r"[0-9a-f]{64}")


def download_cifar(
    cifar: Cifar, root: Path, hub: str | None = None, archive_url: str | None = None
) -> None:
    """Put `cifar` below `root`, which then holds one of the layouts of `find_cifar`.

    `hub` is the hub's base address (default: the variable HF_ENDPOINT, else huggingface.co).

    Raises:
        InputError: if downloads are switched off.
        RunError: if neither the hub nor the archive's server gave whole files.
    """
    remedy = (
        f"put {cifar.name}/train.parquet and {cifar.name}/test.parquet, or {cifar.archive}, into "
        f"{root} (BLOCKLAB_DATA names that folder)"
    )
    if switch := _offline():
        raise InputError(
            f"{cifar.name} is not in {root} and {switch} is set; unset it, or {remedy}"
        )
    folder = root / cifar.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".download.lock"):
            if find_cifar(cifar, root):  # another process may have just fetched it
                return
            failures = _fetch(cifar, root, hub, archive_url)
    except OSError as error:
        raise RunError(
            f"cannot write into {folder}: {error.strerror or error}; {remedy}"
        ) from error
    if failures:
        raise RunError(
            f"cannot download {cifar.name} ({'; '.join(failures)}); try again later, or {remedy}"
        )


def download(
    url: str, destination: Path, sha256: str | None = None, md5: str | None = None
) -> None:
    """Fetch `url` into `destination`, with a progress bar on stderr.

    Without a hash given, the server's own is taken: `X-Linked-Etag`, as the hub sends for large
    files, or an `ETag` of that form.

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
            if wanted and digests[kind] != wanted:
                raise RunError(f"{url} came damaged: {kind} {digests[kind]}, not {wanted}")
        if size is None and not any(expected.values()):
            raise RunError(f"{url} tells neither size nor hash, so it cannot be checked")
        os.replace(part, destination)
    finally:
        part.unlink(missing_ok=True)


def _fetch(cifar: Cifar, root: Path, hub: str | None, archive_url: str | None) -> list[str]:
    """Try the hub, then the archive; return what went wrong, or nothing."""
    failures = []
    base = (hub or os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    try:
        for split in ("train", "test"):
            name = f"{split}-00000-of-00001.parquet"
            if not (root / cifar.name / name).exists():
                path = f"datasets/uoft-cs/{cifar.name}/resolve/main/{cifar.hub_folder}/{name}"
                download(f"{base}/{path}", root / cifar.name / name)
        return []
    except RunError as error:
        failures.append(str(error))
    url, md5 = _archive_address(cifar)
    try:
        if not (root / cifar.archive).exists():
            download(archive_url or url, root / cifar.archive, md5=md5)
        return []
    except RunError as error:
        failures.append(str(error))
    return failures


def _archive_address(cifar: Cifar) -> tuple[str, str]:
    from torchvision.datasets import CIFAR10, CIFAR100  # slow to import, seldom needed

    known = {10: CIFAR10, 100: CIFAR100}[cifar.num_classes]
    return known.url, known.tgz_md5


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
                raise RunError(f"{url} broke off after {received:,} bytes: {error}") from error
            if not block:
                break
            file.write(block)
            received += len(block)
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


def _offline() -> str | None:
    for name in ("BLOCKLAB_OFFLINE", "HF_HUB_OFFLINE"):
        if os.environ.get(name, "").lower() in {"1", "true", "yes", "on"}:
            return name
    return None
