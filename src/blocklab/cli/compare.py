"""``blocklab compare``: runs that were trained elsewhere."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from blocklab.cli.app import app
from blocklab.cli.options import Json
from blocklab.cli.output import print_json, print_results
from blocklab.cli.study import lines_as_json
from blocklab.errors import InputError

PATHS = "Tables (CSV, TSV, JSON Lines), or folders of runs."


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
        bool | None,
        typer.Option("--lower-is-better/--higher-is-better", help="Which way is better."),
    ] = None,
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
        Path | None, typer.Option(metavar="FOLDER", help="Where the page and tables go.")
    ] = None,
    json: Json = False,
) -> None:
    """Compare runs trained elsewhere: the same tables, verdicts, claims and page as a study's."""
    from dataclasses import replace

    from blocklab.foreign.comparison import Asked, compare_runs
    from blocklab.foreign.costs import read_costs
    from blocklab.foreign.folder import claim_folder
    from blocklab.foreign.foreign_run import Wanted
    from blocklab.foreign.runs import read_runs
    from blocklab.report.page import write_report

    command = shlex.join(["blocklab", *sys.argv[1:]])
    table = Path(costs) if costs and Path(costs).is_file() else None
    beside = tuple(part.strip() for part in costs.split(",")) if costs and not table else ()
    if gain is not None and not 0 < gain < float("inf"):
        raise InputError(f"--gain is a number above 0, not {gain:g}")
    found = read_runs(paths, Wanted(row, seed, metric, epoch, name, beside))
    asked = Asked(
        baseline=baseline,
        higher_is_better=None if lower_is_better is None else not lower_is_better,
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
        print_json({"page": str(page), **lines_as_json(results)})
        return
    print_results(results)
    for line in results.advice:
        print(line)
    print(f"page: {page}")
