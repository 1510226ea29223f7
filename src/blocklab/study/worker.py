"""A worker: a process that trains one run after another and tells what happens through a pipe."""

import contextlib
import os
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from blocklab.errors import BlocklabError
from blocklab.training.run import BusyError, RunDefinition, execute_run

BUSY_WAIT_SECONDS = 1.0


@dataclass(frozen=True)
class Task:
    """A run to train, and where."""

    definition: RunDefinition
    out: Path
    label: str


@dataclass(frozen=True)
class Message:
    """What a worker says: ``epoch`` (with its record), ``finished``, ``busy`` or ``failed``."""

    kind: str
    record: dict[str, Any] | None = None
    text: str = ""


def work(connection: Connection, threads: int, device: int | None) -> None:
    """Train what arrives until None does, or until the other end is gone.

    `device` is the GPU of this worker where there are several.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the study, which ends us
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(device)
    # A study that was killed closes its end: we stop after the epoch that is then saved.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            task: Task | None = connection.recv()
            if task is None:
                return
            connection.send(_train(task, threads, connection))
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  nobody is left to read them


def _train(task: Task, threads: int, connection: Connection) -> Message:
    try:
        execute_run(
            task.definition,
            task.out,
            task.label,
            threads,
            on_epoch=lambda record: connection.send(Message("epoch", record)),
        )
    except (BrokenPipeError, ConnectionResetError):
        raise
    except BusyError:  # another study trains it: it is tried again later
        time.sleep(BUSY_WAIT_SECONDS)
        return Message("busy")
    except BlocklabError as error:
        return Message("failed", text=str(error))
    except MemoryError:
        return Message("failed", text="out of memory; use a smaller batch_size or fewer --workers")
    except Exception as error:  # whatever a block does wrong, the study goes on and says so
        said = str(error).strip().splitlines()
        return Message(
            "failed", text=f"{type(error).__name__}: {said[0] if said else 'no message'}"
        )
    return Message("finished")
