"""A study's results as a folder: one offline page, its tables and its figures."""

import json
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from blocklab.errors import printable
from blocklab.files import remove_file, write_atomically
from blocklab.report.cell_text import ABSENT, accuracy_percent, square
from blocklab.report.columns import Table
from blocklab.report.drawing import ON_PAGE, Figure
from blocklab.report.figures import figures, save_figures, svg
from blocklab.report.table_files import csv, csv_text, latex, markdown_of_all
from blocklab.report.tables import CLAIM_HEADINGS, claim_lines, tables
from blocklab.results.ended_run import EndedRun
from blocklab.results.lines import RUN_COLUMNS, run_line
from blocklab.results.row_result import RowResult
from blocklab.results.study_results import StudyResults
from blocklab.statistics.family import BETTER, TOO_FEW, WORSE

PAGE = "report.html"
# A stretch of Hebrew, Arabic and their kin, with what stands between its words.
_LETTERS = "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]"
RIGHT_TO_LEFT = re.compile(f"{_LETTERS}+(?:[^\\w<>&]+{_LETTERS}+)*")
RUNS_SHOWN_OPEN = 30  # longer lists start folded


def write_report(results: StudyResults, folder: Path) -> Path:
    """Write report.html, table.md, tables in LaTeX, table.csv, runs.csv and figures/ to `folder`.

    The page needs no other file and no network. Returns its path. Results without a finished run
    give a page that says so.

    Raises:
        RunError: if the folder cannot be written.
    """
    made = tables(results)
    write_atomically(folder / "table.md", markdown_of_all(results, made))
    for table in made:
        write_atomically(folder / f"{table.name}.tex", latex(table))
    for name in {"verdicts", "uncertainty", "reported"} - {table.name for table in made}:
        remove_file(folder / f"{name}.tex")
    write_atomically(folder / "table.csv", csv(results))
    lines = [run_line(row, run) for row, run in results.runs]
    write_atomically(folder / "runs.csv", csv_text(lines, RUN_COLUMNS))
    drawn = figures(results)
    save_figures(drawn, folder / "figures")
    page = folder / PAGE
    write_atomically(page, html(results, drawn, made))
    return page


def html(
    results: StudyResults,
    drawn: tuple[Figure, ...] | None = None,
    made: tuple[Table, ...] | None = None,
) -> str:
    """Return the page. All text from files is escaped; nothing in it is fetched.

    `drawn` are its figures and `made` its tables, if they have been made before.
    """
    drawn = figures(results) if drawn is None else drawn
    made = tables(results) if made is None else made
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            results=results,
            summary=summary_sentence(results),
            glance=at_a_glance(results),
            tables={table.name: table for table in made},
            claims=claim_lines(results),
            claim_headings=CLAIM_HEADINGS,
            figures=[(figure, Markup(svg(figure, ON_PAGE))) for figure in drawn],
            specifications=_specifications(drawn),
            theme=ON_PAGE,
            bundle=_bundle() if drawn else "",
            finished=sum(len(row.finished) for row in results.rows),
            planned=sum(len(row.planned_seeds) for row in results.rows),
            most_seeds=max((len(row.finished) for row in results.rows), default=0),
            optimistic=any(row.best_top1 for row in results.rows),
            diagnosed=any(row.zeros_percent for row in results.rows),
            tuned=any(row.tuned for row in results.rows),
            speeds=[_speed(row) for row in results.rows if row.finished],
            setups=_setups(results),
            run_headings=_run_headings(results),
            runs=[_run_cells(row.name, run, results.shows_top5) for row, run in results.runs],
            runs_open=len(results.runs) <= RUNS_SHOWN_OPEN,
            recipe=_flat(results.recipe),
            data=_flat(results.data),
        )
    )


@cache
def environment() -> Environment:
    """The templates of this folder, with everything escaped."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=page_text,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page_text(value: object) -> object:
    """Return text as a page may show it, and anything else as it is.

    Control characters are written as escapes; letters that run from right to left are isolated
    (as by `<bdi>`), so that no name turns the figures beside it around.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    shown = "".join(c if c in "\n\t" else printable(c) for c in value)
    return RIGHT_TO_LEFT.sub("\u2068\\g<0>\u2069", shown)


def at_a_glance(results: StudyResults) -> list[tuple[str, str]]:
    """Return what most readers want first, each with its name: the best row and the verdicts."""
    found = []
    if best := best_row(results):
        assert best.top1 is not None
        spread = f" \u00b1 {best.top1.sd:.2f}" if best.top1.sd is not None else ""
        found.append(("highest mean top-1", f"{best.name}: {best.top1.mean:.2f}{spread} %"))
    if best and results.comparisons:
        found.append((f"against {results.baseline}", verdict_counts(results)))
    if plan := results.planning:
        alone = "more than 10,000" if plan.seeds_alone is None else f"{plan.seeds_alone:,}"
        among = "more than 10,000" if plan.seeds_among_all is None else f"{plan.seeds_among_all:,}"
        needed = f"{alone} alone" + (f", {among} among {plan.rows} rows" if plan.rows > 1 else "")
        found.append(("seeds that show 0.5 points", needed))
    return found


def verdict_counts(results: StudyResults) -> str:
    """Count the verdicts in words."""
    words = Counter(one.word for one in results.comparisons.values())
    if sum(words.values()) == words[TOO_FEW]:
        return "too few seeds for a verdict" if words else ABSENT
    shown = [f"{words[word]} {word}" for word in (BETTER, WORSE) if words[word]]
    rest = sum(words.values()) - words[BETTER] - words[WORSE]
    return ", ".join([*shown, *([f"{rest} not shown to differ"] if rest else [])])


def best_row(results: StudyResults) -> RowResult | None:
    """Return the row of the highest mean top-1; None where no run has finished."""
    finished = [row for row in results.rows if row.top1 is not None]
    return max(finished, key=lambda row: row.top1.mean if row.top1 else 0.0, default=None)


def summary_sentence(results: StudyResults) -> str:
    """Say in one sentence what was compared: data, recipe, seeds, images, epochs."""
    run = results.runs[0][1].run if results.runs else {}
    images = ""
    validation = "validation"
    if results.data.get("vary_split"):
        validation = "validation (others from each seed)"
    if "train_images" in run:
        counts = [
            f"{run[f'{split}_images']:,} {name}"
            for split, name in (("train", "training"), ("validation", validation))
            if run.get(f"{split}_images")
        ]
        counts = f"{', '.join(counts)} and {run.get('test_images', 0):,} test images"
        if left_out := run.get("test_images_left_out"):
            counts += f", without {left_out:,} that have a copy in the training split"
        shape = f"{square(run.get('image_size', 0))}, {len(run.get('class_names', ()))} classes"
        images = f" ({counts}, {shape})"
    source = results.data.get("source", "the data")
    epochs = results.recipe.get("epochs")
    length = f", {epochs} epoch{_s(epochs)}" if isinstance(epochs, int) else ""
    seeds = len(results.seeds)
    varies = f"; rows differ in {' and '.join(results.varies)} only" if results.varies else ""
    baseline = f"; the baseline is {results.baseline}" if results.baseline else ""
    return (
        f"{len(results.rows)} model{_s(len(results.rows))} on {source}{images}, each trained by "
        f"the recipe {results.recipe_name}{length}, from {seeds} seed{_s(seeds)}"
        f"{varies}{baseline}."
    )


@cache
def _bundle() -> Markup:
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    # It goes in whole, as script; the one text that could end the script early is split.
    return Markup(script.replace("</script", r"<\/script"))


def _specifications(drawn: tuple[Figure, ...]) -> dict[str, dict[str, Any]]:
    return {figure.name: figure.specification for figure in drawn}


def _speed(row: RowResult) -> list[str]:
    """Return what a row ran on and how fast: one cell where its runs agree, else all they say."""
    memory = row.over_seeds("peak_memory_bytes")
    seconds, speed = row.over_seeds("train_seconds"), row.over_seeds("images_per_second")
    return [
        row.name,
        *(_distinct(row, name) for name in ("memory_format", "precision", "threads")),
        f"{seconds.mean:,.0f}" if seconds else ABSENT,
        f"{speed.mean:,.0f}" if speed else ABSENT,
        f"{memory.mean / 1e6:,.0f}" if memory else ABSENT,
    ]


def _distinct(row: RowResult, name: str) -> str:
    return ", ".join(sorted({str(run.run.get(name, ABSENT)) for run in row.finished}))


def _setups(results: StudyResults) -> list[list[str]]:
    """Return the machines and versions in use, each with the number of runs made on it."""
    counts: Counter[tuple[str, ...]] = Counter()
    for _, run in results.runs:
        machine, versions = run.run.get("machine") or {}, run.run.get("versions") or {}
        cells = [machine.get(name, ABSENT) for name in ("device", "cpu", "cores")]
        cells += [versions.get(name, ABSENT) for name in ("blocklab", "torch", "timm", "python")]
        counts[tuple(map(str, cells))] += 1
    return [[*setup, str(count)] for setup, count in counts.most_common()]


def _run_headings(results: StudyResults) -> list[str]:
    accuracies = ["top-1 (%)", *(["top-5 (%)"] if results.shows_top5 else [])]
    return ["row", "seed", "status", "epochs", *accuracies, "training (s)", "started", "folder"]


def _run_cells(row: str, run: EndedRun, top5: bool) -> list[str]:
    seconds = run.figure("train_seconds")
    return [
        row,
        str(run.seed),
        run.result["status"],
        str(run.epochs or ABSENT),
        accuracy_percent(run.figure("test_top1_percent")),
        *([accuracy_percent(run.figure("test_top5_percent"))] if top5 else []),
        ABSENT if seconds is None else f"{seconds:,.0f}",
        str(run.run.get("started", ABSENT)),
        f"{run.folder.parent.name}/{run.folder.name}",
    ]


def _flat(fields: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested fields as ``a.b`` and their values as text."""
    found = []
    for name, value in fields.items():
        if isinstance(value, dict) and value:
            found += _flat(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            found.append((f"{prefix}{name}", {"null": "none"}.get(text, text)))
    return found


def _s(count: int) -> str:
    return "" if count == 1 else "s"
