"""A worker: a process that trains one run after another and tells what happens through a pipe.

It may die at any moment, and so may the study that started it: then it writes the last whole epoch
of its run and stops, which frees the run's lock, and the run goes on later from that epoch.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from blocklab.blocks.plugins import fault_line
from blocklab.execution.new_process import load_plugins
from blocklab.training.checkpoints import Checkpoints, end_when_told
from blocklab.training.run import execute_run
from blocklab.training.run_definition import RunDefinition
from blocklab.training.run_folder import BusyError

Tell = Callable[["Message"], None]


@dataclass(frozen=True)
class Task:
    """A run to train, and where; plain data, as only a worker may know the blocks of a plugin."""

    run: dict[str, Any]  # RunDefinition.to_task
    out: Path
    label: str
    threads: int
    run_hash: str
    checkpoints: Checkpoints = field(default_factory=Checkpoints.named)


@dataclass(frozen=True)
class Message:
    """What a worker says.

    ``epoch`` (with its record) and ``note`` on the way; ``finished``, ``busy`` or ``failed`` last.
    """

    kind: str
    record: dict[str, Any] | None = None
    text: str = ""


def work(connection: Connection, plugins: Sequence[str], gpu: Mapping[str, str]) -> None:
    """Train what arrives until None does, or until the other end is gone.

    `gpu` are the variables of the environment that say which GPU is this worker's.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the study, which ends us
    end_when_told()
    os.environ.update(gpu)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            task: Task | None = connection.recv()
            if task is None:
                return
            connection.send(train_task(task, connection.send, plugins))
    os._exit(1)  # the study was killed: nobody is left to tell


def train_task(task: Task, tell: Tell, plugins: Sequence[str] = ()) -> Message:
    """Train a run to its end and return how it ended; tell of each epoch on the way."""
    try:
        load_plugins(plugins)
        execute_run(
            RunDefinition.from_dict(task.run),
            task.out,
            task.label,
            task.threads,
            on_epoch=lambda record: tell(Message("epoch", record)),
            on_note=lambda text: tell(Message("note", text=text)),
            checkpoints=task.checkpoints,
            keep_empty=True,  # the study notes there why it failed
        )
    except BusyError:
        return Message("busy")
    except (BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:  # also of a block that cannot be built
        return Message("failed", text=fault_line(error))
    return Message("finished")
