"""What docs/results.md and the README say of studies stands in the records beside them."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from blocklab.report.table_files import markdown_of_all
from blocklab.report.tables import tables
from blocklab.results.row_result import RowResult
from blocklab.results.study_folder import read_study_folder
from blocklab.results.study_results import StudyResults

ROOT = Path(__file__).parents[2]
RESULTS, README = ROOT / "docs" / "results.md", ROOT / "README.md"
KEPT = ROOT / "results"
INTERVAL = re.compile(r"\[[+−]?\d+\.\d+, [+−]?\d+\.\d+\]")


def _by_seed(row: RowResult, figure: Callable[..., float | None], digits: int = 2) -> str:
    figures = [figure(run) for run in row.finished]
    return ", ".join(f"{value:.{digits}f}" for value in figures if value is not None)


# Columns that the document has and the page's first table has not: how they come of a row's runs.
OF_RUNS: dict[str, Callable[[RowResult], str]] = {
    "first epoch's training loss, by seed": lambda row: _by_seed(
        row, lambda run: run.log[0]["train_loss"]
    ),
    "zeros after the last block, by seed (%)": lambda row: _by_seed(
        row, lambda run: run.zeros_percent
    ),
    "channels zero for every image": lambda row: _by_seed(
        row, lambda run: run.diagnosis["last_block"]["channels_dead"], 0
    ),
    "validation top-1 after the last epoch (%)": lambda row: _by_seed(
        row, lambda run: run.log[-1]["validation_top1_percent"]
    ),
    "learning rate": lambda row: f"{_recipe(row)['lr']:g}",
    "batch": lambda row: str(_recipe(row)["batch_size"]),
    "weight decay": lambda row: f"{_recipe(row)['weight_decay']:.0e}".replace("e-0", "e-"),
}


def _recipe(row: RowResult) -> dict[str, object]:
    return row.finished[0].run["definition"]["recipe"]


def _parts(text: str) -> dict[str, str]:
    """Parts of a document by the study whose records they name.

    Of a collection each of its studies has a part of its own, headed by its name.
    """
    found = dict[str, str]()
    for section in re.split(r"^## |\n\n(?=On |And )", text, flags=re.MULTILINE):
        named = re.search(r"blocklab report results/([a-z]\w*)", section)
        whole, *parts = re.split(r"^### ", section, flags=re.MULTILINE)
        if named and (KEPT / named[1] / "collection.json").exists():
            assert not _table_lines(whole) and not INTERVAL.search(whole), "of which study?"
            found |= {f"{named[1]}/{part.split(':')[0]}": part for part in parts}
        elif named:
            found[named[1]] = section
    return found


def _folder(name: str) -> Path:
    """The records' folder, whose own name has the study's options behind it in a collection."""
    return next(iter(KEPT.glob(f"{name}+*")), KEPT / name)


def _table_lines(text: str) -> list[list[list[str]]]:
    """Split every table of a text into its lines and those into cells."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE)
    return [[_cells(line) for line in block.splitlines()] for block in blocks]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _differing(part: str, results: StudyResults) -> list[str]:
    """Cells of a document's tables that the records do not give, and columns nobody knows."""
    first = tables(results)[0]
    rows = {texts[0]: dict(zip(first.headings, texts, strict=True)) for texts in first.texts}
    ended, wrong = {row.name: row for row in results.rows}, list[str]()
    for heads, _, *lines in _table_lines(part):
        for name, *cells in lines:
            for head, cell in zip(heads[1:], cells, strict=True):
                right = rows[name][head] if head in first.headings else None
                if right is None:
                    right = OF_RUNS[head](ended[name]) if head in OF_RUNS else "no such column"
                if cell != right:
                    wrong.append(f"{name}, {head}: {cell}, not {right}")
    return wrong


PARTS = [
    (path.name, name, part)
    for path in (RESULTS, README)
    for name, part in _parts(path.read_text(encoding="utf-8")).items()
]


@pytest.mark.parametrize(("document", "name", "part"), PARTS, ids=[f"{d}-{n}" for d, n, _ in PARTS])
def test_tables_and_intervals_are_those_of_the_records(document: str, name: str, part: str) -> None:
    results = read_study_folder(_folder(name))
    assert not _differing(part, results)
    printed = markdown_of_all(results, tables(results))
    assert [one for one in INTERVAL.findall(part) if one not in printed] == []
    if document == RESULTS.name:
        assert _table_lines(part), "a study without a table"


def test_every_study_with_records_is_told_of() -> None:
    told = _parts(RESULTS.read_text(encoding="utf-8"))
    kept = {path.parent.name for path in KEPT.glob("*/study.json")}
    for path in KEPT.glob("*/*/study.json"):
        kept.add(f"{path.parents[1].name}/{path.parent.name.split('+')[0]}")
    assert kept == set(told)


def test_a_figure_that_no_record_has_is_seen() -> None:
    name = "kernels_c100"
    part = _parts(RESULTS.read_text(encoding="utf-8"))[name]
    results = read_study_folder(KEPT / name)
    lka = next(row for row in tables(results)[0].texts if row[0] == "lka")
    assert _differing(part.replace(lka[4], "99.99 ± 0.01"), results)
