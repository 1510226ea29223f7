"""Reading runs from wherever they are: tables, and folders of other programs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from blocklab.errors import InputError
from blocklab.files import name_beside
from blocklab.foreign.costs import counted_columns
from blocklab.foreign.folder_runs import runs_of_folders
from blocklab.foreign.foreign_run import ForeignRun, ForeignRuns, Signed, Wanted
from blocklab.foreign.run_folders import find_runs
from blocklab.foreign.table_file import ENDINGS, read_table
from blocklab.foreign.table_runs import runs_of_table


def read_runs(paths: Sequence[Path], wanted: Wanted) -> ForeignRuns:
    """Read tables, and folders of runs of other programs.

    Raises:
        InputError: if something that was named is not there, or a run is there twice.
    """
    parts = [_read(path, wanted) for path in paths]
    metrics = list(dict.fromkeys(part.metric for part in parts))
    if len(metrics) > 1 and wanted.metric is None:
        raise InputError(
            f"{paths[0]} and {paths[1]} have different figures, {' and '.join(metrics)}; "
            "name one with --metric"
        )
    runs = [run for part in parts for run in part.runs]
    seen: dict[tuple[str, int], ForeignRun] = {}
    for run in runs:
        other = seen.setdefault((run.row, run.seed), run)
        if other is not run:
            raise InputError(
                f"row '{run.row}' has seed {run.seed} twice: {other.source} and {run.source}; "
                "remove one, or name the column that tells them apart (--row, --seed, --epoch)"
            )
    notes = dict.fromkeys(note for part in parts for note in part.notes)
    origin = " and ".join(part.origin for part in parts)
    by = " or ".join(sorted({part.by for part in parts}))
    signed: set[Signed] = {part.signed for part in parts}
    all_signed: Signed = signed.pop() if len(signed) == 1 else "some"
    return ForeignRuns(tuple(runs), metrics[0], origin, tuple(notes), by, all_signed)


def _read(path: Path, wanted: Wanted) -> ForeignRuns:
    if path.is_dir():
        return runs_of_folders(find_runs(path), path, wanted)
    if not path.exists():
        remedy = name_beside(path) or "; name a table, or a folder of runs or of a study"
        raise InputError(f"there is no {path}{remedy}")
    if path.suffix.lower() not in ENDINGS:
        raise InputError(
            f"{path} is no table that is read here ({', '.join(ENDINGS)}); save it as one"
        )
    table = read_table(path)
    if not wanted.costs:
        wanted = replace(wanted, costs=counted_columns(table, wanted))
    return runs_of_table(table, wanted)
