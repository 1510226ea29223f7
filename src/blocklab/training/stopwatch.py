"""Timing rivals fairly, and remembering on disk what was measured or decided."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from filelock import FileLock

from blocklab.errors import RunError
from blocklab.files import cache_folder, write_json
from blocklab.training.device import probe_device

ROUNDS = 3
CLEAR_GAIN = 0.05  # of a step's time; less than that may be noise, and what is usual stays

Seconds = dict[str, float]
Value = TypeVar("Value")


def alternate(steps: Mapping[str, Callable[[], None]], threads: int) -> Seconds:
    """Return each step's shortest time over some rounds, after one that warms up."""
    on_cpu = probe_device().type == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    best = dict.fromkeys(steps, math.inf)
    for number in range(ROUNDS + 1):
        for name, step in steps.items():
            began = clock()
            step()
            seconds = (clock() - began) / (threads if on_cpu else 1)
            if number:
                best[name] = min(best[name], seconds)
    return best


def remembered(
    key: Mapping[str, Any], names: Sequence[str], measure: Callable[[], Seconds]
) -> Seconds:
    """Return what was measured under the key on this machine, or measure it and remember it."""
    text = json.dumps(key, sort_keys=True)
    file = cache_folder() / "setups" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"

    def read(saved: Any) -> Seconds | None:
        seconds = saved["seconds"] if saved["key"] == key else {}
        whole = all(isinstance(seconds.get(name), float) and seconds[name] > 0 for name in names)
        return seconds if whole else None

    def measure_quietly() -> Seconds:
        with torch.random.fork_rng():  # whoever asks has its random numbers as before
            return measure()

    return fixed(
        file, read, measure_quietly, lambda value: {"key": key, "seconds": value}, needed=False
    )


def fixed(
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
    lock = FileLock(file.with_suffix(".lock"))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        if not needed:
            return make()
        raise RunError(
            f"cannot write {file}: {error.strerror or error}; choose another --out"
        ) from error
    try:
        if (value := _read(file, read)) is None:
            value = make()
            with suppress(*() if needed else (RunError,)):
                write_json(file, write(value))
        return value
    finally:
        lock.release()


def _read(file: Path, read: Callable[[Any], Value | None]) -> Value | None:
    try:
        return read(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return None
