"""Workers on this machine: processes that share its cores, and the queue that feeds them.

A worker lives for many runs. If one dies, another takes its place and its run is tried once more,
from its last checkpoint. A run that another study is training is left to it and looked at again
every second: it is taken up should that study end without a result.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from blocklab.errors import RunError
from blocklab.execution.new_process import no_main_module
from blocklab.execution.plan import Job
from blocklab.execution.sharing import Sharing
from blocklab.execution.worker import Message, Task, work
from blocklab.measure.device import gpu_count, visible_gpus
from blocklab.training.run_folder import forget_failure, note_failure
from blocklab.training.run_reader import is_busy, is_finished

LOOK_SECONDS = 1.0  # between looks at runs that others train
_SOCKET = "/pymp-xxxxxxxx/listener-xxxxxxxx"
RETRIES = 1  # of a run whose worker died


class Watcher(Protocol):
    """Is told what happens, as it happens."""

    def planned(self, jobs: Sequence[Job], finished: int, sharing: Sharing) -> None:
        """Before anything: the runs to train, and how many are finished already."""

    def looked(self, study: str, text: str) -> None:
        """A study whose seeds are `until_decided` is at a look, or is decided."""

    def started(self, job: Job) -> None:
        """A worker has taken up a run."""

    def epoch(self, job: Job, record: dict[str, Any]) -> None:
        """A run has ended an epoch."""

    def note(self, job: Job, text: str) -> None:
        """Something was mended, retried or is waited for."""

    def ended(self, job: Job, failure: str | None) -> None:
        """A run has its result, or has failed."""


class Silent:
    """A watcher that says nothing."""

    def planned(self, jobs: Sequence[Job], finished: int, sharing: Sharing) -> None:
        """Say nothing."""

    def looked(self, study: str, text: str) -> None:
        """Say nothing."""

    def started(self, job: Job) -> None:
        """Say nothing."""

    def epoch(self, job: Job, record: dict[str, Any]) -> None:
        """Say nothing."""

    def note(self, job: Job, text: str) -> None:
        """Say nothing."""

    def ended(self, job: Job, failure: str | None) -> None:
        """Say nothing."""


class Ledger:
    """What both kinds of crew do with a run: the folders say what is finished and who is at it."""

    def __init__(self, out: Path, watcher: Watcher) -> None:
        self.out, self.watcher = out, watcher
        self.queue: deque[Job] = deque()
        self.elsewhere: dict[str, Job] = {}  # by hash: other processes train them
        self.tries: dict[str, int] = {}
        self.failures: dict[str, str] = {}  # by hash: why runs ended without a result
        self._looked = 0.0

    def next_job(self) -> Job | None:
        """Take a run from the queue that nobody has finished meanwhile."""
        while self.queue:
            job = self.queue.popleft()
            if not is_finished(self.out / job.hash):
                return job
            self.watcher.ended(job, None)
        return None

    def leave(self, job: Job) -> None:
        """Leave a run to whoever trains it."""
        self.elsewhere[job.hash] = job
        self.watcher.note(job, "is being trained by another process; left to it")

    def look(self) -> None:
        """Look, once a second, at what became of the runs that were left to others."""
        if not self.elsewhere or time.monotonic() - self._looked < LOOK_SECONDS:
            return
        for run_hash, job in list(self.elsewhere.items()):
            folder = self.out / run_hash
            finished = is_finished(folder)
            if finished or not is_busy(folder):
                del self.elsewhere[run_hash]
                if finished:
                    self.watcher.ended(job, None)
                else:
                    self.queue.append(job)
        self._looked = time.monotonic()

    def died(self, job: Job, how: str) -> None:
        """Queue a run again whose worker died, or give it up."""
        self.tries[job.hash] = self.tries.get(job.hash, 0) + 1
        if self.tries[job.hash] <= RETRIES:
            self.watcher.note(job, f"its process {how}; going on from its last checkpoint")
            self.queue.appendleft(job)
        else:
            self.end(job, f"its process {how} again; run the same command once more to go on")

    def end(self, job: Job, failure: str | None) -> None:
        """Note how a run ended, here and in its folder."""
        if failure is None:
            forget_failure(self.out / job.hash)
        else:
            self.failures[job.hash] = failure
            with suppress(RunError):  # a full disk is no reason to end the other runs
                note_failure(self.out / job.hash, failure)
        self.watcher.ended(job, failure)


@dataclass
class _Worker:
    process: Any  # of one of multiprocessing's contexts, which share no public type
    connection: Connection
    job: Job


class Crew:
    """Worker processes on this machine."""

    def __init__(
        self, out: Path, watcher: Watcher, sharing: Sharing, plugins: Sequence[str]
    ) -> None:
        self.ledger = Ledger(out, watcher)
        self.sharing, self.plugins = sharing, tuple(plugins)
        self.workers: dict[int, _Worker] = {}  # by place
        method = "forkserver" if _has_sockets() else "spawn"
        self.context: Any = multiprocessing.get_context(method)  # its types vary by system
        if method == "forkserver":  # PyTorch is imported once, not once a worker
            self.context.set_forkserver_preload([work.__module__])
            _start_forkserver()

    def train(self, jobs: Sequence[Job]) -> Mapping[str, str]:
        """Train them all; return why those failed that did, by hash.

        Whatever ends this early ends the workers too.
        """
        ledger = self.ledger
        ledger.queue.extend(jobs)
        try:
            while ledger.queue or ledger.elsewhere or self.workers:
                self._fill_places()
                connections = [worker.connection for worker in self.workers.values()]
                if connections:
                    ready = wait(connections, LOOK_SECONDS if ledger.elsewhere else None)
                    for place, worker in list(self.workers.items()):
                        if worker.connection in ready:
                            self._listen(place, worker)
                elif ledger.elsewhere:
                    time.sleep(LOOK_SECONDS)
                ledger.look()
        finally:
            for worker in self.workers.values():
                worker.process.terminate()
            for worker in self.workers.values():
                worker.process.join()
        return ledger.failures

    def _fill_places(self) -> None:
        for place in range(self.sharing.workers):
            if place not in self.workers and (job := self.ledger.next_job()) is not None:
                ours, theirs = self.context.Pipe()
                process = self.context.Process(
                    target=work, args=(theirs, self.plugins, self._gpu_of(place)), daemon=True
                )
                with no_main_module():
                    process.start()
                theirs.close()
                self.workers[place] = _Worker(process, ours, job)
                self._hand(self.workers[place], job)

    def _gpu_of(self, place: int) -> dict[str, str]:
        """Return the variable that gives a worker its GPU, of those that are given to us."""
        name, each = visible_gpus(gpu_count())
        return {name: each[self.sharing.gpus[place]]} if self.sharing.gpus and each else {}

    def _hand(self, worker: _Worker, job: Job) -> None:
        worker.job = job
        task = Task(job.definition.to_task(), self.ledger.out, job.label, job.threads, job.hash)
        with suppress(BrokenPipeError, ConnectionResetError):  # it died: the next wait says so
            worker.connection.send(task)
        self.ledger.watcher.started(job)

    def _listen(self, place: int, worker: _Worker) -> None:
        job = worker.job
        try:
            message: Message = worker.connection.recv()
        except (EOFError, ConnectionResetError):  # its end closed: it died
            worker.process.join()
            del self.workers[place]
            code = worker.process.exitcode or 0
            self.ledger.died(job, f"was killed by signal {-code}" if code < 0 else "ended")
            return
        if message.kind == "epoch" and message.record is not None:
            self.ledger.watcher.epoch(job, message.record)
            return
        if message.kind == "note":
            self.ledger.watcher.note(job, message.text)
            return
        if message.kind == "busy":
            self.ledger.leave(job)
        else:
            self.ledger.end(job, message.text if message.kind == "failed" else None)
        if (following := self.ledger.next_job()) is not None:
            self._hand(worker, following)
        else:
            with suppress(BrokenPipeError, ConnectionResetError):
                worker.connection.send(None)
            worker.process.join()
            del self.workers[place]


def _has_sockets() -> bool:
    """Whether the server that forks workers can be spoken to: by a socket in TMPDIR.

    A socket's path is 103 bytes or fewer on every system, its name in TMPDIR among them.
    """
    folder = os.fsencode(tempfile.gettempdir())
    return sys.platform != "win32" and len(folder) + len(_SOCKET) <= 103


def _start_forkserver() -> None:
    """Start the process that workers come from, deaf to Ctrl-C as they will be.

    A terminal sends it to all processes; the study alone is to answer, and ends the others.
    """
    resource_tracker.ensure_running()  # started below, it would let Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
