"""Studies from end to end: what is missing is trained, pages and tables are written."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from blocklab.errors import InputError, RunError
from blocklab.execution.crew import Silent, Watcher
from blocklab.execution.progress import Progress
from blocklab.execution.study_folder import study_folder
from blocklab.execution.tracked import Tracked
from blocklab.execution.train_studies import train_studies
from blocklab.live_pages import LivePages
from blocklab.notebook import in_notebook
from blocklab.report.index import INDEX, write_index
from blocklab.report.page import write_report
from blocklab.results.collection_file import (
    CollectionJson,
    over_datasets,
    read_collection,
    write_collection_file,
)
from blocklab.results.study_file import COLLECTION
from blocklab.results.study_results import StudyResults
from blocklab.study.collection import StudyCollection
from blocklab.study.study import Study
from blocklab.tracking.tracking import Tracking


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
    track: Sequence[str] = (),
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
        watcher: is told what happens on the way; by default a notebook shows it, and nothing else.
        command: how this was called, for the page.
        track: names of trackers that are told beside our own files, see `blocklab.tracking`.
        live: whether the page is written every half a minute while runs go on, and then reads
            itself again.

    Raises:
        InputError: if the study does not fit the data or the machine, or a tracker is not there.
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
        track=track,
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
    track: Sequence[str] = (),
    live: bool = False,
) -> tuple[StudyResults, ...]:
    """Run the studies of a collection, each distinct run once; see `run_study`.

    Of several studies a page of all is written too: see `index_page`.
    """
    out, studies = Path(out), collection.studies
    if len(studies) > 1:
        _check_collection(collection, out)
    folders = [study_folder(study, out) for study in studies]
    group = collection.folder_name
    with ExitStack() as stack:
        if watcher is None and in_notebook():
            watcher = stack.enter_context(Progress(Console()))
        told = watcher or Silent()
        tracking = stack.enter_context(Tracking(track, out, _say))
        if track:
            told = Tracked(told, tracking, out, group)
        if live:
            told = stack.enter_context(LivePages(folders, told))
        results = train_studies(
            studies,
            out,
            workers,
            threads=threads,
            watcher=told,
            plugins=[str(path) for path in plugins],
            ray=ray,
            command=command,
        )
        for study, folder, result in zip(studies, folders, results, strict=True):
            page = write_report(result, folder)
            before = f"{study.name}: " if len(studies) > 1 else ""
            for row, run in result.runs:  # also those that ended before this call
                tracking.follow(out / run.hash, f"{before}{row.name} seed {run.seed}", group)
            tracking.page(folder, group, study.name, [page, folder / "table.md"])
    if len(studies) > 1:
        content = collection_file(collection)
        entries = list(zip(content.studies, results, strict=True))
        folder = index_page(collection, out).parent
        over = over_datasets(content, results)
        write_index(folder, entries, collection.title, over, collection.notes)
        write_collection_file(folder, content)
    return results


def _say(line: str) -> None:
    print(f"note  {line}", file=sys.stderr)


def collection_file(collection: StudyCollection) -> CollectionJson:
    """Return what is kept of a collection beside its page."""
    return CollectionJson(
        title=collection.title,
        studies=[study.folder_name for study in collection.studies],
        datasets=list(collection.datasets),
        claims=list(collection.claims),
        notes=list(collection.notes),
    )


def index_page(collection: StudyCollection, out: Path) -> Path:
    """Return where the page of all studies of a collection is: in a folder of its own name."""
    return out / collection.folder_name / INDEX


def _check_collection(collection: StudyCollection, out: Path) -> None:
    folder = index_page(collection, out).parent
    try:
        there = read_collection(folder)
    except RunError:  # it is damaged, and is written anew
        there = None
    names = set(there.studies if there else [])
    if missing := names - {study.folder_name for study in collection.studies}:
        raise InputError(
            f"{folder} is another collection's: it has '{min(missing)}'; rename the file of one of "
            f"them, give another --out, or remove {folder / COLLECTION} to replace its page"
        )
