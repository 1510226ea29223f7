"""Studies from end to end: what is missing is trained, pages and tables are written."""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from blocklab.errors import InputError, RunError
from blocklab.execution.crew import Silent, Watcher
from blocklab.execution.plan import Job
from blocklab.execution.sharing import Sharing
from blocklab.execution.study_folder import study_folder
from blocklab.execution.train_studies import train_studies
from blocklab.files import read_checked_json, write_checked_json
from blocklab.report.index import INDEX, write_index
from blocklab.report.page import Live, write_report
from blocklab.results.study_file import STUDY
from blocklab.results.study_folder import read_study_folder
from blocklab.results.study_results import StudyResults
from blocklab.study.collection import StudyCollection
from blocklab.study.study import Study

COLLECTION = "collection.json"  # beside its page: the folders of its studies
LIVE_SECONDS = 30.0  # between pages of a study that runs
MOST_NAMED = 4  # runs in training
LIVE_SHARE = 10  # at least so many times what a page takes to write


def run_study(
    study: Study,
    out: str | Path = "runs",
    workers: int | None = None,
    *,
    threads: int | None = None,
    plugins: Sequence[str | Path] = (),
    ray: str | None = None,
    watcher: Watcher | None = None,
    command: str | None = None,
    live: bool = False,
) -> StudyResults:
    """Train what has not finished, write the study's page and tables, return the results.

    Args:
        study: what to run.
        out: the folder of run folders, and of the study's own folder.
        workers: runs beside each other; None is decided by the machine.
        threads: of each run that begins now; None is decided with `workers`.
        plugins: files that register blocks, for the workers to run. Load them here too, by
            `blocklab.load_plugin`, before the study.
        ray: the address of a Ray cluster, or ``auto``; None is this machine alone.
        watcher: is told what happens on the way.
        command: how this was called, for the page.
        live: whether the page is written every half a minute while runs go on, and then reads
            itself again.

    Raises:
        InputError: if the study does not fit the data or the machine.
        RunError: if a folder cannot be written. A run that fails does not raise: see
            `StudyResults.troubles`.
    """
    collection = StudyCollection.of(study)
    (results,) = run_collection(
        collection,
        out,
        workers,
        threads=threads,
        plugins=plugins,
        ray=ray,
        watcher=watcher,
        command=command,
        live=live,
    )
    return results


def run_collection(
    collection: StudyCollection,
    out: str | Path = "runs",
    workers: int | None = None,
    *,
    threads: int | None = None,
    plugins: Sequence[str | Path] = (),
    ray: str | None = None,
    watcher: Watcher | None = None,
    command: str | None = None,
    live: bool = False,
) -> tuple[StudyResults, ...]:
    """Run the studies of a collection, each distinct run once; see `run_study`.

    Of several studies a page of all is written too: see `index_page`.
    """
    out, studies = Path(out), collection.studies
    if len(studies) > 1:
        _check_collection(collection, out)
    pages = None
    if live:
        pages = LivePages([study_folder(study, out) for study in studies], watcher or Silent())
    try:
        results = train_studies(
            studies,
            out,
            workers,
            threads=threads,
            watcher=pages or watcher,
            plugins=[str(path) for path in plugins],
            ray=ray,
            command=command,
        )
    except BaseException:
        if pages:  # no page is left to wait for what does not come
            pages.write(None)
        raise
    for study, result in zip(studies, results, strict=True):
        write_report(result, study_folder(study, out))
    if len(studies) > 1:
        names = [study.folder_name for study in studies]
        index = index_page(collection, out)
        write_index(index.parent, list(zip(names, results, strict=True)), collection.title)
        write_checked_json(index.parent / COLLECTION, {"studies": names})
    return results


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

    def planned(self, jobs: Sequence[Job], finished: int, sharing: Sharing) -> None:
        """Write the first page."""
        self.total, self.done = finished + len(jobs), finished
        self.work_total, self.began = sum(job.work for job in jobs), time.monotonic()
        self.watcher.planned(jobs, finished, sharing)
        self._maybe_write()

    def started(self, job: Job) -> None:
        """Note that it runs."""
        self.running.setdefault(job.hash, (job, 0))
        self.watcher.started(job)

    def epoch(self, job: Job, record: dict[str, Any]) -> None:
        """Note how far it is; perhaps write the pages."""
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


def index_page(collection: StudyCollection, out: Path) -> Path:
    """Return where the page of all studies of a collection is: in a folder of its own name."""
    return out / collection.folder_name / INDEX


def _check_collection(collection: StudyCollection, out: Path) -> None:
    folder = index_page(collection, out).parent
    there = (read_checked_json(folder / COLLECTION) or {}).get("studies", [])
    if missing := set(there) - {study.folder_name for study in collection.studies}:
        raise InputError(
            f"{folder} is another collection's: it has '{min(missing)}'; rename the file of one of "
            f"them, give another --out, or remove {folder / COLLECTION} to replace its page"
        )
