"""Pages of studies that are running: written every so often, and reading themselves again."""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from blocklab.errors import InputError, RunError
from blocklab.execution.crew import Watcher
from blocklab.execution.plan import Job
from blocklab.execution.sharing import Sharing
from blocklab.report.page import Live, write_report
from blocklab.results.study_file import STUDY
from blocklab.results.study_folder import read_study_folder

LIVE_SECONDS = 30.0  # between pages of a study that runs
MOST_NAMED = 4  # runs in training
LIVE_SHARE = 10  # at least so many times what a page takes to write


class LivePages:
    """Writes the pages of studies while they run, and tells another watcher what happens.

    At most every half a minute, and never for more than a tenth of the time: the same process
    hands out the runs. A page that cannot be written is left for the end, which says why.
    """

    def __init__(self, folders: Sequence[Path], watcher: Watcher) -> None:
        self.folders, self.watcher = tuple(folders), watcher
        self.running: dict[str, tuple[Job, int]] = {}  # by hash, with the epochs that are done
        self.total, self.done, self.failed = 0, 0, 0
        self.work_total, self.work_done = 0.0, 0.0
        self.began = self.next_page = time.monotonic()

    def __enter__(self) -> "LivePages":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write pages that wait for nothing, where the study was stopped."""
        if kind is not None:
            self.write(None)

    def planned(self, jobs: Sequence[Job], finished: int, sharing: Sharing) -> None:
        """Write the first page."""
        self.total, self.done = finished + len(jobs), finished
        self.work_total, self.began = sum(job.work for job in jobs), time.monotonic()
        self.watcher.planned(jobs, finished, sharing)
        self._maybe_write()

    def looked(self, study: str, text: str) -> None:
        """Pass it on."""
        self.watcher.looked(study, text)

    def started(self, job: Job) -> None:
        """Note that it runs."""
        self.running.setdefault(job.hash, (job, 0))
        self.watcher.started(job)

    def epoch(self, job: Job, record: dict[str, Any]) -> None:
        """Note how far it is; perhaps write the pages."""
        _, before = self.running.get(job.hash, (job, 0))
        # Epochs of before that nobody trains now, or, negative, that are trained again.
        missed = record["epoch"] - before - 1
        self.work_total -= job.work / job.epochs * missed
        self.running[job.hash] = (job, record["epoch"])
        self.work_done += job.work / job.epochs
        self.watcher.epoch(job, record)
        self._maybe_write()

    def note(self, job: Job, text: str) -> None:
        """Pass it on."""
        self.watcher.note(job, text)

    def ended(self, job: Job, failure: str | None) -> None:
        """Count it; perhaps write the pages."""
        _, epochs = self.running.pop(job.hash, (job, job.epochs))
        self.work_total -= job.work / job.epochs * (job.epochs - epochs)  # diverged, or failed
        self.done, self.failed = self.done + (failure is None), self.failed + (failure is not None)
        self.watcher.ended(job, failure)
        self._maybe_write()

    def _maybe_write(self) -> None:
        if (began := time.monotonic()) < self.next_page:
            return
        self.write(Live(self.left(), round(LIVE_SECONDS)))
        ended = time.monotonic()
        self.next_page = ended + max(LIVE_SECONDS, LIVE_SHARE * (ended - began))

    def write(self, live: Live | None) -> None:
        """Write the page of each study that has a folder, from what has finished."""
        for folder in self.folders:
            if (folder / STUDY).exists():  # not yet, while learning rates are being chosen
                with suppress(RunError, InputError):
                    write_report(read_study_folder(folder), folder, live)

    def left(self) -> str:
        """Say how far it is and what is left, as of now."""
        said = f"{self.done} of {self.total} runs have finished"
        if self.failed:
            said += f", {self.failed} failed"
        at = [f"{job.name} at epoch {epochs} of {job.epochs}" for job, epochs in self._at_work()]
        if at:
            more = len(self.running) - len(at)
            said += f"; in training: {', '.join(at)}{f' and {more} more' if more else ''}"
        if self.work_done and self.work_total > self.work_done:
            spent = time.monotonic() - self.began
            seconds = spent * (self.work_total / self.work_done - 1)
            said += f". About {_in_words(seconds)} left"
        return f"{said}. As of {time.strftime('%H:%M:%S')}; this page reads itself again."

    def _at_work(self) -> list[tuple[Job, int]]:
        return list(self.running.values())[:MOST_NAMED]


def _in_words(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return "a minute"
    hours, rest = divmod(minutes, 60)
    if not hours:
        return f"{minutes} minute{'' if minutes == 1 else 's'}"
    return f"{hours} h {rest} min"
