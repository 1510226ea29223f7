"""A study's runs as tasks of a Ray cluster, which has as many machines as it has.

The run folders are the ledger, on a path that all machines share (or on object storage, see
`storage`): they say what is finished, how
far a run has come (its log is read for the live table), and a run whose machine died goes on from
its checkpoint wherever Ray starts it again. So nothing that Ray knows is needed to go on later,
not even the cluster.
"""

import logging
import os
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blocklab.errors import InputError, RunError, error_line
from blocklab.execution.crew import Ledger, Watcher
from blocklab.execution.plan import Job
from blocklab.execution.storage import EPOCH_FILES, Storage
from blocklab.execution.worker import Message, Task, train_task
from blocklab.training.run_files import LOCK
from blocklab.training.run_reader import is_finished, logged

GPU_VARIABLE = "BLOCKLAB_GPUS_PER_RUN"  # a fraction lets runs share a GPU, 0 is none
POLL_SECONDS, STORAGE_POLL_SECONDS = 0.5, 3.0
RAY_LOG = "ray.log"
CONNECT_SECONDS = 10.0
RETRIES = 5  # by Ray, of a task whose worker or machine died


@dataclass
class _Running:
    job: Job
    started: bool = False
    epochs: int = 0  # lines of its log that were told


class RayCrew:
    """Runs as Ray tasks: `num_cpus` is a run's threads."""

    def __init__(self, out: Path, watcher: Watcher, plugins: Sequence[str], address: str) -> None:
        self.storage = Storage.named()
        self.poll_seconds = POLL_SECONDS if self.storage is None else STORAGE_POLL_SECONDS
        self.ray = _connect(address)
        self.ledger = Ledger(out.absolute(), watcher)
        self.plugins = tuple(plugins)
        self.running: dict[Any, _Running] = {}  # by the reference to the task's answer
        self.gpus = _gpus_per_run(self.ray)

    def train(self, jobs: Sequence[Job]) -> Mapping[str, str]:
        """Train them all; return why those failed that did, by hash.

        Whatever ends this early cancels what runs.
        What Ray has to say of nodes and workers goes to OUT/ray.log: it would print it into ours.
        """
        self.ledger.queue.extend(jobs)
        try:
            with (self.ledger.out / RAY_LOG).open("a") as log, redirect_stdout(log):
                self._loop()
        finally:
            for reference in self.running:
                with suppress(Exception):  # a cluster that is gone has nothing to cancel
                    self.ray.cancel(reference, force=True)
            self.ray.shutdown()
        return self.ledger.failures

    def _loop(self) -> None:
        ledger = self.ledger
        while ledger.queue or ledger.elsewhere or self.running:
            while len(self.running) < self._room() and (job := ledger.next_job()) is not None:
                if self._fetch(job):
                    ledger.end(job, None)
                else:
                    self._submit(job)
            if self.running:
                ready, _ = self.ray.wait(list(self.running), timeout=self.poll_seconds)
                for running in self.running.values():
                    self._follow(running)
                for reference in ready:
                    self._answered(reference)
            else:
                time.sleep(self.poll_seconds)
            ledger.look()

    def _room(self) -> int:
        """Tasks to have waiting: enough that a cluster that can grow is asked to."""
        return 16 + 4 * int(self.ray.cluster_resources().get("CPU", 0))

    def _submit(self, job: Job) -> None:
        task = Task(job.definition.to_task(), self.ledger.out, job.label, job.threads, job.hash)
        remote = self.ray.remote(_train_on_cluster).options(
            num_cpus=job.threads,
            num_gpus=self.gpus,
            max_retries=RETRIES,
            name=job.name,
        )
        url = None if self.storage is None else self.storage.url
        self.running[remote.remote(task, self.plugins, url, self.gpus)] = _Running(
            job, epochs=len(self._log(job))
        )

    def _follow(self, running: _Running) -> None:
        """Tell of what a run's log has more than at the last look."""
        log = self._log(running.job)
        begun = len(log) > running.epochs or (self.ledger.out / running.job.hash / LOCK).exists()
        if not running.started and begun:
            running.started = True
            self.ledger.watcher.started(running.job)
        for record in log[running.epochs :]:
            self.ledger.watcher.epoch(running.job, record)
        # A log is shorter after a machine died before its last epoch was written there.
        running.epochs = max(running.epochs, len(log))

    def _fetch(self, job: Job) -> bool:
        """Fetch a run that storage has finished; say whether it has."""
        folder = self.ledger.out / job.hash
        if self.storage is not None and self.storage.has_result(job.hash):
            self.storage.fetch(folder)
        return is_finished(folder)

    def _log(self, job: Job) -> list[dict[str, Any]]:
        if self.storage is not None:
            return self.storage.log(job.hash)
        return logged(self.ledger.out / job.hash)

    def _answered(self, reference: Any) -> None:
        running = self.running.pop(reference)
        job = running.job
        try:
            message: Message = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            self.ledger.died(job, f"was lost with its machine ({error_line(error, kind=False)})")
            return
        if message.kind == "busy":
            self.ledger.leave(job)
            return
        failure = message.text if message.kind == "failed" else None
        try:
            if failure is None and not self._fetch(job):
                failure = "its result did not arrive whole; run the same command again"
        except RunError as error:
            failure = str(error)
        self.ledger.end(job, failure)


def _train_on_cluster(task: Task, plugins: Sequence[str], url: str | None, gpus: float) -> Message:
    if not gpus:  # newer versions of Ray leave all of a machine's GPUs to a task that asks for none
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if url is not None:
        return _train_with_storage(task, plugins, Storage(url))
    if not task.out.is_dir():
        return Message(
            "failed",
            text=f"{task.out} is not on this machine ({os.uname().nodename}); give --out a folder "
            "that all machines of the cluster share, or set BLOCKLAB_STORAGE",
        )
    return train_task(task, lambda message: None, plugins)


def _train_with_storage(task: Task, plugins: Sequence[str], storage: Storage) -> Message:
    """Train in a folder of this machine that is fetched before and sent after each epoch."""
    with tempfile.TemporaryDirectory(prefix="blocklab-run-") as name:
        folder = Path(name) / task.run_hash

        def send(message: Message) -> None:
            if message.kind == "epoch":
                storage.send(folder, EPOCH_FILES)

        try:
            storage.fetch(folder)
            ended = train_task(replace(task, out=Path(name)), send, plugins)
            if ended.kind != "busy":  # of a run that failed, its last whole epoch
                storage.send(folder)
            return ended
        except RunError as error:
            return Message("failed", text=str(error))


def _connect(address: str) -> Any:
    try:
        import ray
    except ImportError:
        raise InputError("Ray is not installed; run: pip install 'blocklab[ray]'") from None
    try:
        _look_for_listener(address)
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise RunError(
            f"no Ray cluster at '{address}' ({error_line(error, kind=False)}); start one with "
            "`ray start --head`"
        ) from None
    return ray


def _look_for_listener(address: str) -> None:
    """Look whether anybody listens where Ray would connect to, as it tries for minutes.

    Raises:
        OSError: if nobody does.
    """
    named = os.environ.get("RAY_ADDRESS") or address  # in Ray's own order
    if named == "auto":
        with suppress(OSError):  # what `ray start` wrote; a machine that was cut off left it there
            root = Path(os.environ.get("RAY_TMPDIR") or "/tmp")
            named = (root / "ray" / "ray_current_cluster").read_text().strip()
    host, _, port = named.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()


def _gpus_per_run(ray: Any) -> float:
    """Return a GPU a run where the cluster has any, or what the variable says."""
    given = os.environ.get(GPU_VARIABLE)
    if given is None:
        return 1.0 if ray.cluster_resources().get("GPU", 0) else 0.0
    try:
        gpus = float(given)
    except ValueError:
        gpus = -1.0
    if not 0 <= gpus <= 1:
        raise InputError(f"{GPU_VARIABLE} is from 0 to 1, a share of a GPU, not '{given}'")
    return gpus
