"""Where a run lies that a person names: its folder, or its row and seed in a study.

``ROW:SEED`` alone is of the study whose folder one is in; elsewhere the study's folder stands
before it, ``runs/my_study/plain:0``.
"""

import os
from pathlib import Path

from blocklab.errors import InputError, did_you_mean, shortened
from blocklab.results.study_file import STUDY, read_study_file, runs_of
from blocklab.study.schema import in_list
from blocklab.training.finished import FinishedRun

_HOW = "name a run's folder, or STUDY_DIR/ROW:SEED, such as runs/my_study/plain:0"


def find_run(given: str | Path) -> Path:
    """Return the folder of the run that is so named; what lies there is not looked at.

    Raises:
        InputError: if nothing is called that.
        RunError: if the study.json of the study is damaged.
    """
    path = Path(given)
    text = str(path)
    try:
        there = path.exists()
    except OSError as error:  # a name that is longer than any file's
        raise InputError(f"{shortened(text)}: {error.strerror or error}; {_HOW}") from None
    if there or ":" not in text:
        return path
    for folder in path.parents:  # a row's name may hold a slash
        if (folder / STUDY).exists():
            row = text if folder == Path() else text.removeprefix(str(folder)).lstrip("/\\")
            return _run_of(folder, *_parted(row))
    where = (
        "this is no study's folder" if path.parent == Path() else "no study's folder is before it"
    )
    raise InputError(f"there is no run '{text}', and {where}; {_HOW}")


def load_run(run: str | os.PathLike[str]) -> FinishedRun:
    """Open a finished run: its network with its weights, and what its images need.

    ``load_run("runs/my_study/plain:0").predict("cat.jpg")`` names the classes of an image.

    Args:
        run: its folder, or ``ROW:SEED`` after its study's folder.

    Raises:
        InputError: if there is no such run, it is not finished, or a block it needs is not
            registered.
        RunError: if a file of it is damaged.
    """
    if not isinstance(run, str | os.PathLike) or not str(run):
        raise InputError(f"load_run takes the name of a run, not {run!r}; {_HOW}")
    return FinishedRun.open(find_run(Path(run)))


def _parted(text: str) -> tuple[str, str]:
    row, _, seed = text.rpartition(":")
    return row, seed


def _run_of(folder: Path, row: str, seed: str) -> Path:
    folder = Path(os.path.abspath(folder))
    rows = {one.name: one.runs for one in read_study_file(folder).rows}
    if row not in rows and row[:1] == row[-1:] == '"':  # as a list of rows and a claim have it
        row = row[1:-1]
    if row not in rows:
        raise InputError(
            f"study '{folder.name}' has no row '{row}'{did_you_mean(row, rows) or '.'} "
            f"Rows: {', '.join(map(in_list, rows))}"
        )
    if seed not in rows[row]:
        raise InputError(
            f"row '{row}' of study '{folder.name}' has no seed {seed}; "
            f"its seeds: {', '.join(rows[row])}"
        )
    return runs_of(folder) / rows[row][seed]
