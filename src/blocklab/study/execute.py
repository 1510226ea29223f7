"""Running a study here: worker processes that share the cores, and what they do as it happens.

Runs are independent and the cores are used across them: two runs on a core each beat one after
the other on both. A worker lives for many runs. If one dies, its run is marked failed and another
takes its place; what it had saved is kept, and the same command goes on from there.
"""

import multiprocessing
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

import torch

from blocklab.data import open_data
from blocklab.errors import InputError, RunError
from blocklab.measure import Cost
from blocklab.study.folder import (
    FAILURE_FILE,
    note_failure,
    read_study_folder,
    write_study_folder,
)
from blocklab.study.results import StudyResults
from blocklab.study.study import PlannedRun, Study
from blocklab.study.worker import Message, Task, work
from blocklab.training.device import available_cores
from blocklab.training.run import check_fits, is_finished


class Watcher(Protocol):
    """Is told what happens, as it happens."""

    def planned(self, runs: Sequence[PlannedRun], finished: int, costs: "Costs") -> None:
        """Before anything: the runs to train, and how many of the study's are finished."""

    def started(self, run: PlannedRun) -> None:
        """A worker has taken up a run."""

    def epoch(self, run: PlannedRun, record: dict[str, Any]) -> None:
        """A run has ended an epoch."""

    def ended(self, run: PlannedRun, failure: str | None) -> None:
        """A run has its result, or has failed."""


Costs = dict[str, tuple[Cost, int]]  # row -> its cost, and the input size it is counted at


class Silent:
    """A watcher that says nothing."""

    def planned(self, runs: Sequence[PlannedRun], finished: int, costs: Costs) -> None:
        """Say nothing."""

    def started(self, run: PlannedRun) -> None:
        """Say nothing."""

    def epoch(self, run: PlannedRun, record: dict[str, Any]) -> None:
        """Say nothing."""

    def ended(self, run: PlannedRun, failure: str | None) -> None:
        """Say nothing."""


def run_study(
    study: Study,
    out: Path,
    workers: int | None = None,
    watcher: Watcher | None = None,
    command: str | None = None,
) -> StudyResults:
    """Train every run of a study that has no result yet, and read the results.

    Args:
        study: what to run.
        out: the folder of run folders.
        workers: processes that share the cores; None is one a core (a GPU, where there are some).
        watcher: is told what happens.
        command: how this was called, for the page.

    Raises:
        InputError: if a row does not fit its data, or there are more workers than cores.
        RunError: if the study's own folder cannot be written.
    """
    every = list(study.plan())
    count, threads, devices = share_machine(workers, len(every))
    watcher = watcher or Silent()
    costs = count_costs(study)
    folder = write_study_folder(study, out, costs, command)
    pending = [run for run in every if not is_finished(out / run.definition.hash)]
    watcher.planned(pending, len(every) - len(pending), costs)
    if pending:
        crew = _Crew(min(count, len(pending)), threads, devices, out, watcher)
        crew.train(pending)
    return read_study_folder(folder)


def count_costs(study: Study) -> Costs:
    """Open each row's data, check that its model can train on it, and count what it costs.

    Raises:
        InputError: naming the row that does not fit.
    """
    costs: Costs = {}
    for row in study.rows:
        data = open_data(row.data)
        try:
            costs[row.name] = check_fits(row.definition(study.seeds[0]), data), data.image_size
        except InputError as error:
            raise InputError(f"row '{row.name}': {error}") from None
    return costs


def share_machine(workers: int | None, runs: int) -> tuple[int, int, int]:
    """Return how many workers, threads for each, and GPUs, for a study of so many runs.

    All of its runs count, finished ones too, so that a rerun has the threads of the first one.

    Raises:
        InputError: if that many workers do not fit the machine.
    """
    cores = available_cores()
    devices = torch.cuda.device_count()
    if workers is None:
        workers = min(devices or cores, runs)
    if not 1 <= workers <= cores:
        raise InputError(
            f"this machine has {cores} cores to share: set --workers from 1 to {cores}"
        )
    return workers, max(1, cores // workers), devices


@dataclass
class _Worker:
    process: Any  # of one of multiprocessing's contexts, which share no public type
    connection: Connection
    run: PlannedRun


class _Crew:
    """Workers and the queue that feeds them."""

    def __init__(self, count: int, threads: int, devices: int, out: Path, watcher: Watcher) -> None:
        self.count, self.threads, self.devices = count, threads, devices
        self.out, self.watcher = out, watcher
        self.queue: deque[PlannedRun] = deque()
        self.workers: dict[int, _Worker] = {}  # by place, which is also the GPU's number
        method = "forkserver" if sys.platform != "win32" else "spawn"
        self.context: Any = multiprocessing.get_context(method)  # its types vary by system
        if method == "forkserver":  # PyTorch is imported once, not once a worker
            self.context.set_forkserver_preload([work.__module__])

    def train(self, runs: Sequence[PlannedRun]) -> None:
        """Train them all; whatever ends this early ends the workers too."""
        self.queue.extend(runs)
        try:
            while self.queue or self.workers:
                self._fill_places()
                ready = wait([worker.connection for worker in self.workers.values()])
                for place, worker in list(self.workers.items()):
                    if worker.connection in ready:
                        self._listen(place, worker)
        finally:
            for worker in self.workers.values():
                worker.process.terminate()
            for worker in self.workers.values():
                worker.process.join()

    def _fill_places(self) -> None:
        for place in range(self.count):
            if self.queue and place not in self.workers:
                run = self.queue.popleft()
                ours, theirs = self.context.Pipe()
                device = place % self.devices if self.devices > 1 else None
                process = self.context.Process(
                    target=work, args=(theirs, self.threads, device), daemon=True
                )
                process.start()
                theirs.close()
                self.workers[place] = _Worker(process, ours, run)
                self._hand(self.workers[place], run)

    def _hand(self, worker: _Worker, run: PlannedRun) -> None:
        worker.run = run
        with suppress(BrokenPipeError):  # it died: its sentinel says so at the next wait
            worker.connection.send(Task(run.definition, self.out, run.row.name))
        self.watcher.started(run)

    def _listen(self, place: int, worker: _Worker) -> None:
        run = worker.run
        try:
            message: Message = worker.connection.recv()
        except (EOFError, ConnectionResetError):  # its end closed: it died
            worker.process.join()
            del self.workers[place]
            code = worker.process.exitcode
            how = f"was killed by signal {-code}" if code and code < 0 else f"exited with {code}"
            self._end(run, f"its process {how}; run the same command again to go on")
            return
        if message.kind == "epoch" and message.record is not None:
            self.watcher.epoch(run, message.record)
            return
        if message.kind == "busy":
            self.queue.append(run)
        else:
            self._end(run, message.text if message.kind == "failed" else None)
        if self.queue:
            self._hand(worker, self.queue.popleft())
        else:
            with suppress(BrokenPipeError):
                worker.connection.send(None)
            worker.process.join()
            del self.workers[place]

    def _end(self, run: PlannedRun, failure: str | None) -> None:
        folder = self.out / run.definition.hash
        if failure is None:
            (folder / FAILURE_FILE).unlink(missing_ok=True)
        else:
            with suppress(RunError):  # a full disk is no reason to end the other runs
                note_failure(folder, failure)
        self.watcher.ended(run, failure)
