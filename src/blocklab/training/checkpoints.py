"""When a run's checkpoints are written: every so many seconds, aside from the training.

At an epoch's end the state is copied to the host, which is quick; a thread serialises and writes
it while the next epoch trains, where the last write is long enough ago. What was not yet written
is written when the run is stopped in a way that can be caught. A process that is killed loses what
it trained since the last write: a resumed run trains that again, with the same bits.
"""

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from blocklab.errors import InputError
from blocklab.measure.device import probe_device

SECONDS_VARIABLE = "BLOCKLAB_CHECKPOINT_SECONDS"
KEEP_VARIABLE = "BLOCKLAB_KEEP_CHECKPOINT"
Save = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Checkpoints:
    """How often checkpoints are written, and whether a finished run keeps its last one.

    No part of what defines a run: its results are the same.
    """

    seconds: float = 60.0  # 0 writes after each epoch
    keep: bool = False

    @classmethod
    def named(cls) -> Self:
        """Return what the environment says.

        Raises:
            InputError: if that is no number of seconds, or neither yes nor no.
        """
        given = os.environ.get(SECONDS_VARIABLE) or str(cls.seconds)
        try:
            seconds = float(given)
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds < math.inf:
            raise InputError(f"{SECONDS_VARIABLE} is seconds, 0 or more, not '{given[:40]}'")
        keep = os.environ.get(KEEP_VARIABLE) or "0"
        if keep not in ("0", "1"):
            raise InputError(f"{KEEP_VARIABLE} is 1 to keep last.ckpt, or 0, not '{keep[:40]}'")
        return cls(seconds, keep == "1")


class _Snapshot:
    """A state as it was, on the host; copying from a GPU may still be going on."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.epochs_done: int = state["epochs_done"]
        self._state = on_host(state)
        self._copied = torch.cuda.Event() if probe_device().type == "cuda" else None
        if self._copied is not None:
            self._copied.record()

    def read(self) -> dict[str, Any]:
        """Return the state, once it is whole."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._state


def on_host(value: Any) -> Any:
    """Copy a state to the host: its tensors, dictionaries and lists.

    From a GPU into pinned memory, in the order of its stream and without waiting for it.
    """
    if isinstance(value, Tensor):
        if value.device.type != "cuda":
            return value.detach().to("cpu", copy=True)
        pinned = torch.empty_like(value, device="cpu", pin_memory=True)
        return pinned.copy_(value.detach(), non_blocking=True)
    if isinstance(value, dict):
        return type(value)((key, on_host(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return type(value)(on_host(item) for item in value)
    return value


class CheckpointKeeper:
    """Writes one run's checkpoints while it is within; see this file's head.

    `save` writes a state, whole or not at all. It runs in a thread, never twice at once.
    """

    def __init__(self, save: Save, checkpoints: Checkpoints) -> None:
        self._save, self._seconds = save, checkpoints.seconds
        self._began = time.monotonic()  # the last write, or the run
        self._latest: _Snapshot | None = None  # the last copy, until it is written
        self._writing: Future[None] | None = None
        self._one = threading.Lock()  # held while one is written
        self._swap = threading.Lock()  # held while `_latest` changes hands
        self._thread = ThreadPoolExecutor(1, "checkpoint")

    def __enter__(self) -> Self:
        _living.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _living.discard(self)
        if error is not None:
            with suppress(Exception):  # what ended the run is said, not what came of it
                self._wait()
            with suppress(Exception):
                self.write_latest()
        self._thread.shutdown()

    def epoch_ended(self, state: dict[str, Any]) -> None:
        """Take a copy of the state, and write it if it is time to.

        Raises:
            RunError: if the write before failed.
        """
        if self._writing is not None and self._writing.done():
            self._wait()
        taken = _Snapshot(state)
        with self._swap:  # not before the copy is whole: a stop on the way writes the one before
            self._latest = taken
        if time.monotonic() - self._began >= self._seconds:
            self._wait()  # a disk slower than that holds up the run
            self._began = time.monotonic()
            self._writing = self._thread.submit(self.write_latest)

    def end(self, write: bool) -> None:
        """Wait for what is being written; then `write` the latest state, if it was not.

        Raises:
            RunError: if it cannot be written.
        """
        self._wait()
        if write:
            self.write_latest()

    def write_latest(self) -> None:
        """Write the latest state, if it was not written yet."""
        with self._one:
            latest = self._latest
            if latest is not None:
                self._save(latest.read())
                with self._swap:  # an epoch may have ended meanwhile
                    if self._latest is latest:
                        self._latest = None

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


_living: set[CheckpointKeeper] = set()


def end_when_told() -> None:
    """Make this process end on SIGTERM, or once the process that started it is gone.

    Its run's last epoch is written first, by a thread: the main one may wait for a device or for
    other processes. To be called in the main thread.
    """
    parent = parent_process()
    waited_for = [] if parent is None else [parent.sentinel]
    if sys.platform == "win32":  # which ends a process without telling it
        told = -1
    else:
        told, telling = os.pipe()
        os.set_blocking(telling, False)
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        signal.set_wakeup_fd(telling)
        waited_for.append(told)
    threading.Thread(target=_end, args=(waited_for, told), daemon=True).start()


def _end(waited_for: list[int], told: int) -> None:
    while told in wait(waited_for) and signal.SIGTERM not in os.read(told, 64):
        pass  # of another signal
    for keeper in list(_living):
        with suppress(Exception):
            keeper.write_latest()
    os._exit(1)  # the lock went with it; whatever else is half done is done again
