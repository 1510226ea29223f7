"""Several studies of the same rows side by side: under other recipes, or on other images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from blocklab.errors import InputError
from blocklab.files import write_atomically
from blocklab.report.answer import listed
from blocklab.report.cell_text import ABSENT, difference, mean_and_sd
from blocklab.report.columns import Column, Table
from blocklab.report.page import PAGE
from blocklab.report.rendering import render
from blocklab.report.table_files import csv_text, latex, markdown
from blocklab.report.tables import VERDICT_LOOKS
from blocklab.report.what_ran import flat
from blocklab.results.ended_run import EndedRun
from blocklab.results.row_result import RowResult
from blocklab.results.study_results import StudyResults
from blocklab.statistics.family import TOO_FEW
from blocklab.study.schema import in_list

Studies = Mapping[str, StudyResults]
NAME = "side_by_side"


def side_by_side(studies: Studies) -> Table:
    """Return one table of all rows, with mean, difference and verdict in each study.

    Raises:
        InputError: if the studies are measured by different figures, or share no row.
    """
    first, *others = studies.values()
    for name, results in studies.items():
        if results.metric != first.metric:
            raise InputError(
                f"{name} is measured by {results.metric.title}, the first study by "
                f"{first.metric.title}; compare studies of one figure"
            )
    shared = {row.name for row in first.rows}.intersection(
        *({row.name for row in results.rows} for results in others)
    )
    if not shared:
        raise InputError(
            f"{listed(list(studies))} have no row in common; name studies of the same rows"
        )
    rows = {row.name: row for results in studies.values() for row in reversed(results.rows)}
    order = dict.fromkeys(row.name for results in studies.values() for row in results.rows)
    columns = [Column("row", lambda row: row.name)]
    for name, results in studies.items():
        columns += _columns(name, results)
    return Table(NAME, "Side by side", tuple(columns), tuple(rows[one] for one in order))


def _columns(name: str, results: StudyResults) -> list[Column]:
    metric, baseline = results.metric, results.baseline
    there = {row.name: row for row in results.rows}

    def of(shown: Callable[[RowResult], str]) -> Callable[[RowResult], str]:
        return lambda row: shown(there[row.name]) if row.name in there else ABSENT

    def word(row: RowResult) -> str:
        return results.comparisons[row.name].word if row.name in results.comparisons else ABSENT

    found = [Column(metric.heading, of(lambda row: mean_and_sd(row.score, metric)), name)]
    if baseline and results.comparisons:
        found += [
            Column(metric.minus(baseline), of(lambda row: difference(row, baseline)), name),
            Column(
                "verdict", of(word), name, of(lambda r: VERDICT_LOOKS.get(word(r), "open")), True
            ),
        ]
    return found


def _alone(table: Table, name: str) -> Table:
    """Return the columns of one study, for a screen that is too narrow for two."""
    of_study = [replace(column, group="") for column in table.columns if column.group == name]
    columns = (table.columns[0], *reversed(of_study))  # the verdict beside the name
    return Table(name, name, columns, table.rows)


def lines_side_by_side(studies: Studies) -> list[dict[str, Any]]:
    """Return one line for each row of each study, as numbers."""
    return [
        {"study": name, **line}
        for name, results in studies.items()
        for line in results.summary_lines
    ]


def agreement(studies: Studies) -> str:
    """Say in words of how many rows all studies say the same.

    A row with too few seeds in one of them, or none, has no verdict there.
    """
    words: dict[str, list[str]] = {}
    for results in studies.values():
        for name, one in results.comparisons.items():
            words.setdefault(name, []).append(one.word)
    there = {name: said for name, said in words.items() if len(said) == len(studies)}
    everywhere = {name: said for name, said in there.items() if TOO_FEW not in said}
    few = [in_list(name) for name in there if name not in everywhere]
    have = "has" if len(few) == 1 else "have"
    left_out = f" {listed(few)} {have} too few seeds in some of them." if few else ""
    if not everywhere:
        return f"No row is compared with a baseline in every one of these studies.{left_out}"
    alike = [name for name, said in everywhere.items() if len(set(said)) == 1]
    apart = [name for name in everywhere if name not in alike]
    count = len(everywhere)
    if count == 1:
        only = "has the same verdict in all" if alike else "has not the same verdict in all"
        sentence = f"The one row that is compared with a baseline in every study {only}"
    else:
        many = {0: "none has", 1: "one has", count: "all have"}.get(
            len(alike), f"{len(alike)} have"
        )
        sentence = (
            f"Of {count} rows that are compared with a baseline in every study, {many} the same "
            "verdict in each"
        )
    if apart:
        told = [f"{in_list(name)} ({', '.join(everywhere[name])})" for name in apart[:8]]
        more = f", and {len(apart) - 8} more" if len(apart) > 8 else ""
        sentence += f"; it differs for {listed(told)}{more}"
    return f"{sentence}.{left_out}"


def what_differs(studies: Studies) -> list[tuple[str, ...]]:
    """Return in which fields of recipe and data, seeds and ways to judge the studies differ."""
    fields = [
        dict(flat({"data": results.data, "recipe": results.recipe}))
        | {
            "seeds": f"{len(results.seeds)} ({_seeds(results.seeds)})",
            "seeds as blocks": "paired" if results.paired else "not paired",
            "margin": "none" if results.margin is None else f"{results.margin:g}",
        }
        for results in studies.values()
    ]
    names = dict.fromkeys(name for one in fields for name in one)
    return [
        (name, *(one.get(name, ABSENT) for one in fields))
        for name in names
        if len({one.get(name) for one in fields}) > 1
    ]


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) > 2 and [*seeds] == [*range(seeds[0], seeds[-1] + 1)]:
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def _said_of_images(run: EndedRun) -> tuple[object, ...]:
    return run.result.get("test_top1_percent"), run.per_image.bits if run.per_image else None


def what_is_shared(studies: Studies) -> str:
    """Say how the studies' seeds differ, and which runs more than one of them has; "" of neither.

    A run that two studies share is no second piece of evidence.
    """
    said = []
    counts = [len(results.seeds) for results in studies.values()]
    if len(set(counts)) > 1:
        said.append(f"Seeds: {' against '.join(map(str, counts))}.")
    runs = [{run.hash: run for _, run in results.runs} for results in studies.values()]
    everyone = set[str]().union(*runs)
    shared = again = 0
    for one in everyone:
        trained = [of[one] for of in runs if one in of]
        same = len({_said_of_images(run) for run in trained}) == 1
        shared += len(trained) > 1 and same
        again += not same
    if shared:
        noun = "run is" if shared == 1 else "runs are"
        said.append(
            f"{shared} of {len(everyone)} {noun} in more than one of these studies, which so far "
            "say one thing twice."
        )
    if again:
        noun = "run was" if again == 1 else "runs were"
        said.append(
            f"{again} of {len(everyone)} {noun} trained more than once, by the same recipe and "
            "from the same seed, with other results: see under which conditions."
        )
    return " ".join(said)


def notes_of(studies: Studies) -> list[str]:
    """Return what a reader must know before comparing one study with another."""
    notes = []
    baselines = {name: results.baseline for name, results in studies.items()}
    if len(set(baselines.values())) > 1:
        told = [f"{one} in {name}" for name, one in baselines.items()]
        notes.append(f"the baseline is not the same: {listed(told)}")
    models: dict[str, list[dict[str, Any]]] = {}
    for results in studies.values():
        for row in results.rows:
            models.setdefault(row.name, []).append(row.model)
    other = [name for name, found in models.items() if any(one != found[0] for one in found)]
    if other:
        names = listed([*map(in_list, other)])
        notes.append(f"the model under one name is not the same in all studies: {names}")
    for name, results in studies.items():
        planned = sum(len(row.planned_seeds) for row in results.rows)
        finished = sum(len(row.finished) for row in results.rows)
        if finished < planned:
            notes.append(f"{name}: {finished} of {planned} runs finished")
        notes += [f"{name}, {row}: {line}" for row, line in results.troubles]
    return notes


def write_side_by_side(
    studies: Studies, folder: Path, title: str | None = None, command: str | None = None
) -> Path:
    """Write the page of several studies, and its table as Markdown, LaTeX and CSV.

    Returns the page's path.

    Raises:
        InputError: as `side_by_side`.
        RunError: if the folder cannot be written.
    """
    table = side_by_side(studies)
    write_atomically(folder / "table.md", markdown(table))
    write_atomically(folder / f"{NAME}.tex", latex(table))
    lines = lines_side_by_side(studies)
    names = dict.fromkeys(name for line in lines for name in line)
    write_atomically(
        folder / "table.csv", csv_text([dict.fromkeys(names) | line for line in lines])
    )
    page = render(
        "side_by_side.html.j2",
        title=title or (listed(list(studies)) if len(studies) < 4 else f"{len(studies)} studies"),
        studies=[(name, results.title) for name, results in studies.items()],
        answer=agreement(studies),
        shared=what_is_shared(studies),
        table=replace(table, title="The studies side by side"),
        each=[_alone(table, name) for name in studies],
        numbers={row.name: number for number, row in enumerate(table.rows)},
        baseline=next(iter(studies.values())).baseline,
        differs=what_differs(studies),
        notes=notes_of(studies),
        command=command,
    )
    write_atomically(folder / PAGE, page)
    return folder / PAGE


def named_studies(folders: Sequence[Path], results: Sequence[StudyResults]) -> Studies:
    """Name studies by their folders: by as much of their paths as tells them apart.

    Raises:
        InputError: if a folder is there twice.
    """
    paths = [folder.resolve() for folder in folders]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return dict(zip(names, results, strict=True))
    raise InputError("one study is named twice; name different studies")
