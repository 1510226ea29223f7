"""``blocklab compare``: runs that were trained elsewhere, or several studies side by side."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from blocklab.cli.app import app
from blocklab.cli.options import Json, check_folder
from blocklab.cli.output import print_json, print_results, print_table, printable
from blocklab.cli.study import results_as_json
from blocklab.errors import InputError

PATHS = "Studies' folders; or tables (CSV, TSV, JSON Lines) and folders of runs."


@app.command()
def compare(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help=PATHS)],
    row: Annotated[
        str | None, typer.Option(metavar="NAME", help="What tells rows apart: a column or field.")
    ] = None,
    seed: Annotated[
        str | None, typer.Option(metavar="NAME", help="The column or field of the seed.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(metavar="NAME", help="The figure that rows are compared by.")
    ] = None,
    epoch: Annotated[
        str | None, typer.Option(metavar="NAME", help="The column of the epoch, if there is one.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="How names of runs tell both: '{row}_s{seed}'."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="ROW", help="Compare with it, not with the first row.")
    ] = None,
    costs: Annotated[
        str | None,
        typer.Option(metavar="FILE|NAMES", help="A table of rows' costs, or columns beside."),
    ] = None,
    lower_is_better: Annotated[
        bool, typer.Option("--lower-is-better", help="Less of the figure is better.")
    ] = False,
    higher_is_better: Annotated[
        bool, typer.Option("--higher-is-better", help="More of the figure is better.")
    ] = False,
    unit: Annotated[str | None, typer.Option(help="The figure's unit, such as %.")] = None,
    gain: Annotated[
        float | None, typer.Option(help="The least difference that is worth seeds.")
    ] = None,
    claim: Annotated[
        list[str] | None, typer.Option(help="A claim to judge, such as 'se > plain by 0.5'.")
    ] = None,
    best_epoch: Annotated[
        bool, typer.Option("--best-epoch", help="Each run's best epoch: optimistic, and said so.")
    ] = False,
    title: Annotated[str | None, typer.Option(help="The page's title.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where the page and tables go.", callback=check_folder),
    ] = None,
    json: Json = False,
) -> None:
    """Show studies side by side; or compare runs trained elsewhere, with a study's tables and page.

    Of runs trained elsewhere --metric is the figure that rows are compared by.
    """
    from dataclasses import replace

    from blocklab.foreign.comparison import compare_runs
    from blocklab.foreign.costs import read_costs
    from blocklab.foreign.folder import claim_folder
    from blocklab.foreign.foreign_run import Wanted
    from blocklab.foreign.metric import Asked
    from blocklab.foreign.runs import read_runs
    from blocklab.report.page import write_report
    from blocklab.results.study_file import STUDY

    command = shlex.join(["blocklab", *sys.argv[1:]])
    if studies := [path for path in paths if (path / STUDY).exists()]:
        given = (row, seed, metric, epoch, name, baseline, costs, unit, gain)
        flags = (claim, best_epoch, lower_is_better, higher_is_better)
        if any(one is not None for one in given) or any(flags):
            raise InputError("studies side by side take no options but --title, --out and --json")
        _side_by_side(paths, studies, title, out, command, json)
        return
    if lower_is_better and higher_is_better:
        raise InputError(
            "--lower-is-better and --higher-is-better say opposite things of the figure; keep one"
        )
    table = Path(costs) if costs and Path(costs).is_file() else None
    beside = tuple(part.strip() for part in costs.split(",")) if costs and not table else ()
    if gain is not None and not 0 < gain < float("inf"):
        raise InputError(f"--gain is a number above 0, not {gain:g}")
    found = read_runs(paths, Wanted(row, seed, metric, epoch, name, beside))
    asked = Asked(
        baseline=baseline,
        higher_is_better=higher_is_better if higher_is_better or lower_is_better else None,
        unit=unit,
        gain=gain,
        best_epoch=best_epoch,
        claims=tuple(claim or ()),
        command=command,
    )
    rows = list(dict.fromkeys(run.row for run in found.runs))
    results = compare_runs(found, asked, read_costs(table, rows, row) if table else None)
    if title:
        results = replace(results, title=title)
    folder = out or Path("runs") / f"compare_{paths[0].resolve().stem}"
    claim_folder(folder, command)
    page = write_report(results, folder)
    if json:
        print_json({"page": str(page), **results_as_json(results, results.judgements)})
        return
    print_results(results)
    better, other = ("more", "lower") if results.metric.higher_is_better else ("less", "higher")
    print(f"of {results.metric.name} {better} is better (--{other}-is-better turns it round)")
    for line in results.notes:
        print(f"note: {printable(line)}")
    for line in results.advice:
        print(f"next: {line}")
    print(f"page: {page}")


def _side_by_side(
    paths: list[Path],
    studies: list[Path],
    title: str | None,
    out: Path | None,
    command: str,
    json: bool,
) -> None:
    from blocklab.files import name_beside
    from blocklab.foreign.folder import claim_folder
    from blocklab.report.side_by_side import (
        agreement,
        lines_side_by_side,
        named_studies,
        notes_of,
        side_by_side,
        what_is_shared,
        write_side_by_side,
    )
    from blocklab.results.study_folder import read_study_folder

    if len(studies) < len(paths):
        other = next(path for path in paths if path not in studies)
        if not other.exists():
            raise InputError(f"there is no {other}{name_beside(other) or '; check the path'}")
        raise InputError(f"{other} is no study's folder, and {studies[0]} is; compare one kind")
    if len(studies) < 2:
        raise InputError(f"name a study to compare {studies[0]} with")
    named = named_studies(studies, [read_study_folder(path) for path in studies])
    table = side_by_side(named)
    folder = out or Path("runs") / f"compare_{'_'.join(path.resolve().name for path in studies)}"
    claim_folder(folder, command)
    page = write_side_by_side(named, folder, title, command)
    notes = notes_of(named)
    if json:
        print_json({"page": str(page), "rows": lines_side_by_side(named), "notes": notes})
        return
    print_table(table.headings, table.texts, title)
    print(agreement(named))
    if shared := what_is_shared(named):
        print(shared)
    for note in notes:
        print(printable(note))
    print(f"page: {page}")
