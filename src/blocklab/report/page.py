"""A study's results as a folder: one offline page, a page a row, its tables and its figures."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from blocklab.errors import InputError
from blocklab.files import remove_file, write_atomically
from blocklab.report.answer import answer, summary_sentence
from blocklab.report.columns import ACCURACY, Cell, Table
from blocklab.report.cost_figures import COSTS
from blocklab.report.curves import CURVES
from blocklab.report.drawing import Figure
from blocklab.report.figures import RATE, RATE_BY_STEP, SEEDS, figures, save_figures
from blocklab.report.forest import forest
from blocklab.report.metric import metric_of
from blocklab.report.rendering import Drawn, on_page, render
from blocklab.report.row_page import write_row_pages
from blocklab.report.table_files import csv, csv_text, latex, markdown_of_all
from blocklab.report.tables import CLAIM_HEADINGS, claim_lines, scatter_table, tables
from blocklab.report.what_ran import (
    SETUP_HEADINGS,
    SPEED_HEADINGS,
    flat,
    run_cells,
    run_headings,
    setups,
    speeds,
)
from blocklab.results.lines import RUN_COLUMNS
from blocklab.results.study_file import runs_of
from blocklab.results.study_results import StudyResults

PAGE, RUNS = "report.html", "runs.csv"


@dataclass(frozen=True)
class Live:
    """What a page says of a study that is running, and after how many seconds it reads itself."""

    text: str
    every: int


@dataclass(frozen=True)
class Line:
    """A row of the page's first table: its cells, and what scripts sort and filter it by."""

    name: str
    cells: list[Cell]
    word: str
    mean: str
    undertrained: str | None
    link: str | None


def check_a_page_stays(folder: Path, results: StudyResults) -> None:
    """Check that a page that was made of runs is not made of none, as these are gone.

    Raises:
        InputError: if it would be.
    """
    if any(row.runs or row.failed for row in results.rows) or not (folder / PAGE).exists():
        return
    with suppress(OSError):
        if (folder / RUNS).read_text(encoding="utf-8").count("\n") > 1:  # below the headings
            raise InputError(
                f"none of the runs of {folder} is in {runs_of(folder)} any more, and {PAGE} would "
                "become a page of none; put them back, or remove the page"
            )


def write_report(results: StudyResults, folder: Path, live: Live | None = None) -> Path:
    """Write report.html, rows/, table.md, tables in LaTeX, table.csv, runs.csv and figures/.

    The page needs no network, and but for the pages of its rows no other file. Of a study that is
    running (`live`) the pages alone are written. Returns the page's path. Results without a
    finished run give a page that says so.

    Raises:
        RunError: if the folder cannot be written.
    """
    made, drawn, page = tables(results), figures(results), folder / PAGE
    links = write_row_pages(results, folder)
    if live is None:
        _write_tables(results, made, folder)
        save_figures(drawn, folder / "figures")
    write_atomically(page, html(results, drawn, made, links, live))
    return page


def _write_tables(results: StudyResults, made: tuple[Table, ...], folder: Path) -> None:
    write_atomically(folder / "table.md", markdown_of_all(results, made))
    for table in made:
        write_atomically(folder / f"{table.name}.tex", latex(table))
    for name in {"verdicts", "uncertainty", "reported"} - {table.name for table in made}:
        remove_file(folder / f"{name}.tex")
    write_atomically(folder / "table.csv", csv(results))
    names = () if results.run_lines else RUN_COLUMNS
    write_atomically(folder / RUNS, csv_text(results.run_lines, names))


def html(
    results: StudyResults,
    drawn: tuple[Figure, ...] | None = None,
    made: tuple[Table, ...] | None = None,
    links: Mapping[str, str] | None = None,
    live: Live | None = None,
) -> str:
    """Return the page. All text from files is escaped; nothing in it is fetched.

    `drawn` are its figures and `made` its tables, if they have been made before; `links` lead to
    the pages of rows, by their names.
    """
    drawn = figures(results) if drawn is None else drawn
    made = tables(results) if made is None else made
    named = {table.name: table for table in made}
    words = Counter(one.word for one in results.comparisons.values())
    scatter = scatter_table(results)
    lead = _lead(named["table"], results, scatter)
    return render(
        "page.html.j2",
        results=results,
        answer=answer(results),
        summary=summary_sentence(results),
        metric=metric_of(results),
        live=live,
        lead=lead,
        less=_spared_on_paper(lead),
        forest=forest(results),
        rows=_lines(results, lead, links or {}),
        numbers={row.name: number for number, row in enumerate(results.rows)},
        scatter=scatter,
        words=words,
        chips=words.most_common() if len(words) > 1 else [],
        tables=named,
        claims=claim_lines(results),
        claims_title=_claims_title(results),
        claim_headings=CLAIM_HEADINGS,
        figures=_grouped(drawn),
        curves_of_accuracy=any(
            figure.name.startswith(("validation_accuracy", "test_accuracy")) for figure in drawn
        ),
        cost_names={cost.figure: cost.label for cost in COSTS},
        finished=sum(len(row.finished) for row in results.rows),
        planned=sum(len(row.planned_seeds) for row in results.rows),
        most_seeds=max((len(row.finished) for row in results.rows), default=0),
        # Those of the design stand where it says how sure this is.
        notes=[line for line in results.remarks if line not in results.design_notes],
        optimistic=any(row.best_top1 for row in results.rows),
        diagnosed=any(row.zeros_percent for row in results.rows),
        early=any(row.compared_early for row in results.rows),
        tuned=any(row.tuned for row in results.rows),
        setups=setups(results),
        setup_headings=SETUP_HEADINGS,
        speeds=speeds(results),
        speed_headings=SPEED_HEADINGS,
        run_headings=run_headings(results),
        runs=[run_cells(results, row, run) for row, run in results.runs],
        recipe=flat(results.recipe),
        data=flat(results.data),
    )


def _lead(table: Table, results: StudyResults, scatter: Table | None) -> Table:
    """Return the main table without names, what most readers want first standing first.

    The verdict, the gain, the accuracy and what it costs; more accuracies come last, and those of
    `scatter` stand beside the seeds.
    """
    elsewhere = scatter.headings if scatter else []
    rest = [c for c in table.columns[1:] if c.full_heading not in elsewhere]
    gain = f" minus {results.baseline}"
    first = [c for c in rest if c.heading == "verdict"] + [c for c in rest if gain in c.heading]
    first += [c for c in rest if c.heading == results.metric.column]
    more = [c for c in rest if c.group == ACCURACY and c not in first]
    others = [c for c in rest if c not in first and c not in more]
    return Table(table.name, table.title, (*first, *others, *more), table.rows)


def _spared_on_paper(lead: Table) -> list[int]:
    """Return which columns have no room on paper: accuracies but the first, and reasons."""
    headings = [column.heading for column in lead.columns]
    accuracies = [i for i, column in enumerate(lead.columns) if column.group == ACCURACY]
    return accuracies[1:] + [i for i, heading in enumerate(headings) if heading == "dominated"]


def _lines(results: StudyResults, lead: Table, links: Mapping[str, str]) -> list[Line]:
    lines = []
    for row, cells in zip(results.rows, lead.cells, strict=True):
        comparison = results.comparisons.get(row.name)
        gap = row.difference
        lines.append(
            Line(
                row.name,
                cells,
                comparison.word if comparison else "",
                "" if gap is None else f"{gap.mean:.6g}",
                row.undertrained,
                links.get(row.name),
            )
        )
    return lines


def _claims_title(results: StudyResults) -> str:
    judged = Counter(one.word for one in results.judgements)
    return f"Claims: {', '.join(f'{count} {word}' for word, count in judged.items())}"


def _grouped(drawn: tuple[Figure, ...]) -> dict[str, list[Drawn]]:
    """Return the figures by the part of the page that they stand in."""
    there = {figure.name for figure in drawn}
    curves = [curve.figure for curve in CURVES if curve.figure in there]
    # Beside the validation images (or the test images) the training ones, all else folded.
    first = [
        next((name for name in curves if name.startswith(kind)), None)
        for kind in (("validation_acc", "test_acc"), "train")
    ]
    parts = {
        "curves": [name for name in first if name is not None],
        "more": [name for name in curves if name not in first],
        "cost": [cost.figure for cost in COSTS],
        "seeds": [SEEDS],
        "rate": [RATE, RATE_BY_STEP],
    }
    by_name = {figure.name: figure for figure in drawn}
    return {
        part: [on_page(by_name[name]) for name in names if name in by_name]
        for part, names in parts.items()
    }
