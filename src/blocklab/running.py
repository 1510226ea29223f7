"""Studies from end to end: what is missing is trained, pages and tables are written."""

from collections.abc import Sequence
from pathlib import Path

from blocklab.execution.crew import Watcher
from blocklab.execution.study_folder import study_folder
from blocklab.execution.train_studies import train_studies
from blocklab.report.index import write_index
from blocklab.report.page import write_report
from blocklab.results.study_results import StudyResults
from blocklab.study.collection import StudyCollection
from blocklab.study.study import Study


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
    collection = StudyCollection(study.name, study.title, study.description, (study,))
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

    Of several studies a page of all is written too, ``OUT/index.html``.
    """
    out, studies = Path(out), collection.studies
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
        names = [study.name for study in studies]
        write_index(out, list(zip(names, results, strict=True)), collection.title)
    return results
