"""Several processes on one GPU: who measures has it alone, who trains makes room meanwhile.

By two locks a GPU, below BLOCKLAB_CACHE, which the system frees when their holder dies. Who trains
shares the room; who measures shuts the gate, waits until the room is empty, and has it alone. Who
trains looks at the gate between steps, and waits outside for as long as it is shut.
"""

import fcntl
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch

from blocklab.files import cache_folder
from blocklab.measure.device import device_identity, probe_device, wait
from blocklab.measure.memory import release_memory

LOOK_SECONDS = 0.2  # between looks at the gate
PATIENCE_SECONDS = 60.0  # for a room that does not empty: who trains may be stopped, or evaluate
POLL_SECONDS = 0.05

OnStep = Callable[[int, int], None]
_alone: list[bool] = []  # not empty while this process has the room: it must not wait for itself


@contextmanager
def alone_on_device() -> Iterator[None]:
    """Measure on this process's GPU with nobody else at work, and give the memory back afterwards.

    On a processor nothing happens: there a process counts its own time.
    """
    device = probe_device()
    if device.type == "cpu" or _alone:
        yield
        return
    _alone.append(True)
    try:
        with ExitStack() as stack:
            if device.type == "cuda":  # of several, what is measured begins its streams on this
                stack.enter_context(torch.accelerator.device_index(device.index))
            if locks := _locks(device, stack):
                gate, room = locks
                fcntl.flock(gate, fcntl.LOCK_EX)
                _wait_for(room)
            yield
    finally:
        _alone.pop()
        release_memory()


@contextmanager
def taking_turns(
    device: torch.device, processes: int, on_step: OnStep | None
) -> Iterator[OnStep | None]:
    """Train on a GPU, and make room between steps while another process measures there.

    It returns what the loop is to call after each step. One of several processes makes no room:
    the others would wait for it, and two such runs for each other.
    """
    with ExitStack() as stack:
        locks = _locks(device, stack) if device.type != "cpu" and processes == 1 else None
        if locks is None:
            yield on_step
            return
        gate, room = locks
        _enter(gate, room)
        looked = time.monotonic()

        def after_step(step: int, steps: int) -> None:
            nonlocal looked
            if on_step is not None:
                on_step(step, steps)
            if time.monotonic() - looked > LOOK_SECONDS:
                if not _taken(gate, fcntl.LOCK_SH):
                    wait(device)
                    fcntl.flock(room, fcntl.LOCK_UN)
                    _enter(gate, room)
                else:
                    fcntl.flock(gate, fcntl.LOCK_UN)
                looked = time.monotonic()

        yield after_step


def _locks(device: torch.device, stack: ExitStack) -> tuple[int, int] | None:
    """Open the gate and the room; None where no file can be written, and nobody is waited for."""
    folder = cache_folder() / "devices"
    named = f"{platform.node()}-{device_identity(device)}"  # of machines that share a cache, too
    try:
        folder.mkdir(parents=True, exist_ok=True)
        gate, room = (
            stack.enter_context((folder / f"{named}-{what}.lock").open("a")).fileno()
            for what in ("gate", "room")
        )
    except OSError:
        return None
    return gate, room


def _enter(gate: int, room: int) -> None:
    fcntl.flock(gate, fcntl.LOCK_SH)
    fcntl.flock(room, fcntl.LOCK_SH)
    fcntl.flock(gate, fcntl.LOCK_UN)


def _wait_for(room: int) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not _taken(room, fcntl.LOCK_EX) and time.monotonic() < until:
        time.sleep(POLL_SECONDS)


def _taken(lock: int, how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
