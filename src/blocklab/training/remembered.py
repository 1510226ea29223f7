"""What was measured on this machine or chosen for a row of a study, kept on disk."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TypeVar

from blocklab.errors import RunError
from blocklab.files import cache_folder, file_lock, write_json
from blocklab.measure.alone import alone_on_device
from blocklab.models.random_state import random_state_kept

Seconds = dict[str, float]
Value = TypeVar("Value")


def remembered(
    key: Mapping[str, Any], names: Sequence[str], measure: Callable[[], Seconds]
) -> Seconds:
    """Return what was measured under the key on this machine, or measure it and remember it."""
    text = json.dumps(key, sort_keys=True)
    file = cache_folder() / "setups" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"

    def read(content: Any) -> Seconds | None:
        seconds = content["seconds"] if content["key"] == key else {}
        whole = all(isinstance(seconds.get(name), float) and seconds[name] > 0 for name in names)
        return seconds if whole else None

    def measure_quietly() -> Seconds:
        with random_state_kept(), alone_on_device():  # who asks has its random numbers as before
            return measure()

    return read_or_make(
        file, read, measure_quietly, lambda value: {"key": key, "seconds": value}, needed=False
    )


def read_or_make(
    file: Path,
    read: Callable[[Any], Value | None],
    make: Callable[[], Value],
    write: Callable[[Value], Any],
    needed: bool = True,
) -> Value:
    """Return what a JSON file holds; if there is none or it is damaged, make and write it.

    One process makes it while others wait. Not `needed`, it may stay unwritten.
    """
    if (value := _read(file, read)) is not None:
        return value
    with ExitStack() as held:
        try:
            held.enter_context(file_lock(file.with_suffix(".lock")))
        except RunError:
            if needed:
                raise
            return make()
        if (value := _read(file, read)) is None:
            value = make()
            with suppress(*() if needed else (RunError,)):
                write_json(file, write(value))
        return value


def _read(file: Path, read: Callable[[Any], Value | None]) -> Value | None:
    try:
        return read(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return None
