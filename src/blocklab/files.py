"""Files that are whole or not there: written under a temporary name, synced, then renamed.

What must not be trusted blindly later carries its SHA-256, so that a flipped bit is noticed.
"""

import difflib
import errno
import hashlib
import json
import math
import os
import platform
import re
import secrets
import shutil
import stat
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock
from platformdirs import user_cache_path

from blocklab.errors import RunError


def cache_folder() -> Path:
    """Return the folder of what can be made again: BLOCKLAB_CACHE, else the user's cache folder."""
    named = os.environ.get("BLOCKLAB_CACHE")
    return Path(os.path.expanduser(named)) if named else user_cache_path("blocklab")


def name_beside(path: Path) -> str:
    """Return ``"; did you mean 'x'?"`` for what lies where a misspelt path should, or nothing."""
    with suppress(OSError):
        names = set(os.listdir(path.parent)) - {
            path.name
        }  # it may be there and not be what is meant
        if close := difflib.get_close_matches(path.name, sorted(names), n=1):
            return f"; did you mean '{path.parent / close[0]}'?"
    return ""


def write_atomically(
    path: Path,
    content: bytes | str | Callable[[Path], None],
    check: Callable[[], None] | None = None,
) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part.

    A callable is handed the temporary path and writes the file itself. The folder is made where it
    is not there, but for a `check`, which raises where the folder is not the one that is meant: it
    is called once the temporary file is whole, as a folder that is replaced later does not have
    that file to rename.

    Raises:
        RunError: if the disk is full or the folder cannot be written.
    """
    try:
        if check is None:
            path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        temporary = path.parent / f".{path.name[:80]}.{owner()}.{secrets.token_hex(4)}.tmp"
        temporary.touch(exist_ok=False)  # with the mode that the process's umask gives
        try:
            if callable(content):
                content(temporary)
            elif isinstance(content, str):
                # A received file may hold half a character; a page shows what it is.
                temporary.write_text(content, encoding="utf-8", errors="backslashreplace")
            else:
                temporary.write_bytes(content)
            _sync(temporary)
            if check is not None:
                check()
            temporary.replace(path)
            _sync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose "
            "another folder"
        ) from error


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold a lock that is kept in a file, once whoever holds it has let it go.

    Raises:
        RunError: if the disk is full or the folder cannot be written.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose "
            "another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


def write_json(path: Path, value: Any, check: Callable[[], None] | None = None) -> None:
    """Write `value` as indented JSON, atomically; `check` is `write_atomically`'s."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n", check)


_MACHINE = re.sub(r"[^A-Za-z0-9-]", "_", platform.node())[:60]
_TEMPORARY = re.compile(r"^\..*\.(?P<process>\d{1,10})@(?P<machine>[^.@]*)\.[^.]*(\.tmp)?$")

CHECKSUM = "sha256"  # the key under which a JSON object carries its own checksum
LARGEST_JSON = 100_000_000  # bytes: a study of 10,000 rows has a fifth of it
DEEPEST_JSON = 30
LARGEST_NUMBER = 2**63  # in a JSON file of ours; a larger one was not written by blocklab


def write_checked_json(
    path: Path, value: dict[str, Any], check: Callable[[], None] | None = None
) -> None:
    """Write an object as JSON with its own checksum in it, as `write_atomically` does."""
    write_json(path, {**value, CHECKSUM: _json_checksum(value)}, check)


def read_checked_json(path: Path) -> dict[str, Any] | None:
    """Read what `write_checked_json` wrote; None if it is not there, or not as it was written."""
    try:
        return parse_checked_json(read_regular(path, LARGEST_JSON))
    except (OSError, ValueError):
        return None


def parse_checked_json(content: bytes) -> dict[str, Any]:
    """Read the content of a file that `write_checked_json` wrote.

    Raises:
        ValueError: if it is not as it was written.
    """
    value = parse_json(content)
    if not isinstance(value, dict) or value.pop(CHECKSUM, None) != _json_checksum(value):
        raise ValueError("its checksum is not that of its content")
    return value


def parse_json(content: bytes) -> Any:
    """Read JSON as blocklab writes it: in UTF-8, without a mark, its numbers finite and bounded.

    Raises:
        ValueError: for anything else.
    """
    may_be_deep = content.count(b"{") + content.count(b"[") > DEEPEST_JSON
    try:
        value = _DECODER.decode(content.decode("utf-8"))
        if not may_be_deep or not _deeper_than(DEEPEST_JSON, value):
            return value
    except RecursionError:
        pass
    raise ValueError(f"it is nested deeper than {DEEPEST_JSON}")


def read_regular(path: Path, most: int | None = None) -> bytes:
    """Read a file, of at most so many bytes where that is said, never from a device or a pipe.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is no regular file, or larger.
    """
    # Without waiting: a pipe that nobody writes to would keep us for ever.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is no regular file")
        if most is not None and found.st_size > most:
            raise ValueError(f"it has more than {most:,} bytes")
        return file.read(found.st_size)


def check_stored(archive: Path | BinaryIO, size: int) -> None:
    """Refuse a zip archive that unpacks to more than its own bytes, as programs never write it.

    PyTorch stores tensors as they are; a few packed megabytes would take gigabytes of memory.

    Raises:
        ValueError: if it does.
    """
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            unpacked = sum(member.file_size for member in opened.infolist())
        if unpacked > size:
            raise ValueError(f"it unpacks to {unpacked:,} bytes, more than its own {size:,}")


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_file(path: Path) -> None:
    """Remove a file, or a link itself, if it is there.

    Raises:
        RunError: if it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"cannot remove {path}: {error.strerror}; move it elsewhere") from error


def owner() -> str:
    """Name this process, for temporary files of its own: its number and machine."""
    return f"{os.getpid()}@{_MACHINE}"


@cache
def sweep(folder: Path) -> None:
    """Remove temporary files of processes that died, once a folder; those of others stay.

    They are known by their `owner`; on another machine, where that cannot be asked, by a day
    without a change.
    """
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            found = _TEMPORARY.search(entry.name)
            with suppress(OSError):
                if found and _is_left(found, entry.stat(follow_symlinks=False).st_mtime):
                    remove = shutil.rmtree if entry.is_dir(follow_symlinks=False) else os.unlink
                    remove(entry.path)


def _is_left(found: re.Match[str], changed: float) -> bool:
    if found["machine"] != _MACHINE or os.name == "nt":  # where asking would end it
        return time.time() - changed > 86_400
    try:
        os.kill(int(found["process"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's, which lives
        return False
    return False


def remove_leftovers(folder: Path) -> None:
    """Remove what writers that were killed left in a folder; nobody else may be writing to it."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def _json_checksum(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def canonical_json(value: Any) -> str:
    """Return the one text of a value that hashes are of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _deeper_than(levels: int, value: Any) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_deeper_than(levels - 1, one) for one in inner)


def _bounded_int(digits: str) -> int:
    value = int(digits)
    if abs(value) > LARGEST_NUMBER:
        raise ValueError(f"the number {digits[:20]}... is too large")
    return value


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is no finite number")
    return value


_DECODER = json.JSONDecoder(parse_int=_bounded_int, parse_float=_finite, parse_constant=_finite)


def _sync_folder(path: Path) -> None:
    try:
        _sync(path)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES):
            raise  # some network file systems sync no folders: they write names through


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
