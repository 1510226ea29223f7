"""``blocklab runs``: what lies in the folder of run folders, and taking some of it away."""

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blocklab.cli.app import app
from blocklab.cli.options import Json, Out
from blocklab.cli.output import print_json, print_table
from blocklab.errors import InputError, RunError

if TYPE_CHECKING:
    from blocklab.results.stored_runs import StoredRun

HEADINGS = ("run", "for", "seed", "status", "epochs", "test top-1 (%)", "studies", "age", "MB")


class Status(StrEnum):
    """How far a run is."""

    FINISHED = "finished"
    DIVERGED = "diverged"
    TRAINING = "training"
    UNFINISHED = "unfinished"
    FAILED = "failed"
    DAMAGED = "damaged"


@app.command()
def runs(
    out: Out = Path("runs"),
    study: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Of the studies so named, such as table_*")
    ] = None,
    no_study: Annotated[
        bool, typer.Option("--no-study", help="That no study in the folder has.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="Of the models, or for the rows, so named."),
    ] = None,
    status: Annotated[
        list[Status] | None, typer.Option(help="So far, or so ended; may be repeated.")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Unchanged for so long: 30m, 12h, 7d, 2w.")
    ] = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete the folders of those listed; asks first.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
    json: Json = False,
) -> int:
    """List the runs in a folder and the disk that they take; delete some of them.

    Deleting by --study keeps runs that another study has too, and the study's own page.
    """
    from blocklab.results.stored_runs import matching, stored_runs

    conditions = (study, model, status, older_than)
    if delete and not no_study and all(one is None for one in conditions):
        raise InputError(
            "--delete takes away what is listed; say which, by --study, --no-study, --model "
            "('*' for all), --status or --older-than"
        )
    if delete and not yes and (json or not sys.stdin.isatty()):
        raise InputError("--delete asks first, and here is nobody to answer; add --yes")
    stored = stored_runs(out)
    if unread := sorted({name for run in stored for name in run.unread}):
        print(
            f"warning: {', '.join(unread)}: its study.json or design.json cannot be read, so any "
            "run may be one of its runs; run the study again, or `blocklab report` says more",
            file=sys.stderr,
        )
    found = matching(
        stored,
        study=study,
        no_study=no_study,
        model=model,
        statuses=[one.value for one in status or ()],
        older_than=older_than,
    )
    if not delete:
        if json:
            size = sum(run.bytes for run in found)
            print_json({"runs": [run.to_dict() for run in found], "bytes": size})
        else:
            print_table(HEADINGS, map(_cells, found))
            print(_amount(found))
        return 0
    return _delete(found, study, yes, json)


def _delete(found: "Sequence[StoredRun]", study: str | None, yes: bool, json: bool) -> int:
    from blocklab.results.stored_runs import delete_run, shared_with_others

    shared = [] if study is None else [run for run in found if shared_with_others(run, study)]
    busy = [run for run in found if run.status == Status.TRAINING]
    going = [run for run in found if run not in shared and run not in busy]
    if not json:
        print_table(HEADINGS, map(_cells, going))
        for run in shared:
            print(f"kept: {run.folder}, which {', '.join(run.studies)} have")
        for run in busy:
            print(f"kept: {run.folder}, which is being trained")
    if going and not yes and not typer.confirm(f"delete {_amount(going)}?"):
        print("nothing is deleted")
        return 0
    deleted, failures = [], []
    for run in going:
        try:
            delete_run(run)
            deleted.append(run)
        except RunError as error:
            failures.append(str(error))
    for line in failures:
        print(f"error: {line}", file=sys.stderr)
    if json:
        names = {"deleted": deleted, "kept": [run for run in found if run not in deleted]}
        lists = {name: [str(run.folder) for run in some] for name, some in names.items()}
        print_json({**lists, "bytes": sum(run.bytes for run in deleted)})
    else:
        print(f"deleted {_amount(deleted)}")
    return 1 if failures else 0


def _amount(runs: "Sequence[StoredRun]") -> str:
    count = f"{len(runs):,} run{'' if len(runs) == 1 else 's'}"
    return f"{count}, {_megabytes(sum(run.bytes for run in runs))} MB"


def _cells(run: "StoredRun") -> tuple[str, ...]:
    from blocklab.report.cell_text import accuracy_percent

    return (
        run.folder.name,
        run.label,
        "" if run.seed is None else f"{run.seed}",
        run.status,
        f"{run.epochs}" if run.epochs_asked is None else f"{run.epochs} of {run.epochs_asked}",
        "" if run.top1 is None else accuracy_percent(run.top1),
        ", ".join(run.studies),
        _age(run.seconds),
        _megabytes(run.bytes),
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:,.0f} {unit}"
    return "now"
