"""Studies from end to end: what is missing is trained, pages and tables are written."""

from collections.abc import Sequence
from pathlib import Path

from blocklab.errors import InputError
from blocklab.execution.crew import Watcher
from blocklab.execution.study_folder import study_folder
from blocklab.execution.train_studies import train_studies
from blocklab.files import read_checked_json, write_checked_json
from blocklab.report.index import INDEX, write_index
from blocklab.report.page import write_report
from blocklab.results.over_datasets import OverDatasets
from blocklab.results.study_results import StudyResults
from blocklab.study.collection import StudyCollection
from blocklab.study.study import Study

COLLECTION = "collection.json"  # beside its page: the folders of its studies


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
) -> tuple[StudyResults, ...]:
    """Run the studies of a collection, each distinct run once; see `run_study`.

    Of several studies a page of all is written too: see `index_page`.
    """
    out, studies = Path(out), collection.studies
    if len(studies) > 1:
        _check_collection(collection, out)
    results = train_studies(
        studies,
        out,
        workers,
        threads=threads,
        watcher=watcher,
        plugins=[str(path) for path in plugins],
        ray=ray,
        command=command,
    )
    for study, result in zip(studies, results, strict=True):
        write_report(result, study_folder(study, out))
    if len(studies) > 1:
        names = [study.folder_name for study in studies]
        index = index_page(collection, out)
        entries = list(zip(names, results, strict=True))
        over = over_datasets(collection, results)
        write_index(index.parent, entries, collection.title, over)
        write_checked_json(index.parent / COLLECTION, {"studies": names})
    return results


def over_datasets(
    collection: StudyCollection, results: Sequence[StudyResults]
) -> OverDatasets | None:
    """Return what holds over the data sets of a study that has several; None of any other."""
    if not collection.datasets:
        return None
    return OverDatasets(collection.title, collection.datasets, tuple(results), collection.claims)


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
