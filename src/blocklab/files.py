"""Files that are whole or not there: written under a temporary name, synced, then renamed."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blocklab.errors import RunError


def write_atomically(path: Path, content: bytes | str | Callable[[Path], None]) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part.

    A callable is handed the temporary path and writes the file itself.

    Raises:
        RunError: if the disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        try:
            if callable(content):
                content(temporary)
            elif isinstance(content, str):
                temporary.write_text(content, encoding="utf-8")
            else:
                temporary.write_bytes(content)
            _sync(temporary)
            temporary.chmod(0o644)  # mkstemp makes files that only the owner can read
            temporary.replace(path)
            _sync(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose "
            "another folder"
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        RunError: if it cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path}: {error}; delete it and run again") from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
