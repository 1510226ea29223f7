"""One page for several studies: what each is about, how far it is, and what it found."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from blocklab.files import write_atomically
from blocklab.report.answer import verdict_counts
from blocklab.report.cell_text import ABSENT, chance, mean_and_sd
from blocklab.report.over_datasets import claim_lines, headings, lines, write_over_datasets
from blocklab.report.page import PAGE, check_a_page_stays, write_report
from blocklab.report.rendering import on_page, render
from blocklab.results.collection_file import CollectionJson, folder_in, over_datasets
from blocklab.results.over_datasets import OverDatasets
from blocklab.results.study_folder import read_study_folder
from blocklab.results.study_results import StudyResults, judged_together

INDEX = "index.html"


@dataclass(frozen=True)
class _Entry:
    name: str
    link: str
    title: str
    state: str
    best: str
    verdicts: str
    claims: str


def write_index(
    folder: Path,
    entries: Sequence[tuple[str, StudyResults]],
    title: str = "Studies",
    over: OverDatasets | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write index.html to `folder`, with a link to each study's page; return its path.

    Args:
        folder: one beside the studies' folders, or around them.
        entries: each study's name, which is its folder's, and its results.
        title: what the studies are, together.
        over: what holds over the data sets, where they are one study on several.
        notes: what of the collection is left out.

    Raises:
        RunError: if the folder cannot be written.
    """
    runs = {run.hash: run for _, results in entries for _, run in results.runs}
    count = f"{len(entries)} stud{'y' if len(entries) == 1 else 'ies'}"
    finished = sum(not run.diverged for run in runs.values())
    ranks = write_over_datasets(over, folder) if over else None
    page = render(
        "index.html.j2",
        title=title,
        summary=f"{count}, {finished:,} finished run{'' if finished == 1 else 's'} in all.",
        notes=notes,
        entries=[_entry(folder, name, results) for name, results in entries],
        claims=_claims(entries),
        test_sets=test_sets(entries),
        over=over,
        ranks=on_page(ranks) if ranks else None,
        over_headings=headings(over) if over else [],
        over_lines=lines(over) if over else [],
        over_claims=claim_lines(over) if over else [],
    )
    write_atomically(folder / INDEX, page)
    return folder / INDEX


def write_collection(
    folder: Path, content: CollectionJson
) -> list[tuple[Path, StudyResults, Path]]:
    """Write the page of a collection, and of each study, from their folders alone.

    Returns:
        Each study's folder, results and page.

    Raises:
        InputError, RunError: as `read_study_folder`, if a folder cannot be written, or a page would
            be lost.
    """
    folders = [folder_in(folder, name) for name in content.studies]
    found = [(one, read_study_folder(one)) for one in folders]
    for one, results in found:
        check_a_page_stays(one, results)
    pages = [(one, results, write_report(results, one)) for one, results in found]
    results = tuple(results for _, results in found)
    entries = list(zip(content.studies, results, strict=True))
    over = over_datasets(content, results)
    write_index(folder, entries, content.title, over, content.notes)
    return pages


def _entry(folder: Path, name: str, results: StudyResults) -> _Entry:
    best = results.best.row if results.best else None
    tied = len(results.best.tied) - 1 if results.best else 0
    names = f"{best.name}{f' and {tied} more' if tied else ''}" if best else ""
    judged = Counter(one.word for one in results.judgements)
    return _Entry(
        name=name,
        link=f"{'' if folder_in(folder, name).parent == folder else '../'}{quote(name)}/{PAGE}",
        title=results.title,
        state=_state(results),
        best=f"{names}: {mean_and_sd(best.score, results.metric)}" if best else ABSENT,
        verdicts=verdict_counts(results) if best else ABSENT,
        claims=", ".join(f"{count} {word}" for word, count in judged.items()) or ABSENT,
    )


def test_sets(entries: Sequence[tuple[str, StudyResults]]) -> list[tuple[str, str, int, int]]:
    """Return each test set that was read: its source, images, and how many studies and runs did.

    A run that several studies share has read it once. Images of one source that were chosen
    otherwise are another test set.
    """
    readers: dict[tuple[Any, ...], tuple[set[str], set[str]]] = {}
    for name, results in entries:
        for run in (run for _, run in results.runs if not run.diverged):
            data = run.run["definition"]["data"]
            which = str(data.get("source")), run.run.get("data_fingerprint")
            how_many = run.run.get("test_images", 0), run.run.get("test_images_left_out")
            studies, runs = readers.setdefault((*which, *how_many), (set(), set()))
            studies.add(name)
            runs.add(run.hash)
    return [
        (source, f"{images:,}", len(studies), len(runs))
        for (source, _, images, _), (studies, runs) in readers.items()
    ]


def _claims(entries: Sequence[tuple[str, StudyResults]]) -> list[tuple[str, ...]]:
    """Return each claim of each study, judged among its study's and among all."""
    together = judged_together([results for _, results in entries])
    return [
        (
            *(name, one.claim, one.word, chance(one.p_holm)),
            *(one.word_in_collection, chance(one.p_holm_collection), one.numbers),
        )
        for (name, _), judged in zip(entries, together, strict=True)
        for one in judged
    ]


def _state(results: StudyResults) -> str:
    planned = sum(len(row.planned_seeds) for row in results.rows)
    finished = sum(len(row.finished) for row in results.rows)
    diverged = sum(len(row.diverged) for row in results.rows)
    parts = [f"{finished} of {planned} runs finished" if finished < planned else "finished"]
    if diverged:
        parts.append(f"{diverged} diverged")
    if failed := sum(len(row.failed) for row in results.rows):
        parts.append(f"{failed} failed")
    return ", ".join(parts)
