"""Folders in which other programs leave runs: which there are, and what they hold.

| program | the file that shows it | its configuration |
|---|---|---|
| timm | ``summary.csv`` | ``args.yaml`` |
| Ultralytics | ``results.csv``, beside ``args.yaml`` | ``args.yaml`` |
| Lightning | ``metrics.csv`` | ``hparams.yaml`` |
| mmpretrain | ``vis_data/scalars.json`` | ``vis_data/config.py``, or the one .py above |
| TensorBoard | ``events.out.tfevents.*`` | ``hparams.yaml`` or ``args.yaml``, if there is one |
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blocklab.errors import InputError
from blocklab.foreign.configurations import read_configuration
from blocklab.foreign.event_files import EVENTS, read_events
from blocklab.foreign.table_file import Record, read_table

MOST_FOLDERS = 200_000
OWN_PLACES = ("vis_data",)  # where a run's own figures lie, once more


@dataclass(frozen=True)
class Kind:
    """A program, and what its runs call things. `shown_by` is the pattern of a file's path."""

    name: str
    shown_by: str
    configurations: tuple[str, ...]
    row: str | None
    seed: str
    metric: str | None
    epoch: str
    beside: str | None = None  # a file without which the other is anybody's


KINDS = (
    Kind("timm", "summary.csv", ("args.yaml",), "model", "seed", "eval_top1", "epoch"),
    Kind(
        *("Ultralytics", "results.csv", ("args.yaml",), "model", "seed"),
        *("metrics/accuracy_top1", "epoch", "args.yaml"),
    ),
    Kind("Lightning", "metrics.csv", ("hparams.yaml",), "model", "seed", None, "epoch"),
    Kind(
        *("mmpretrain", "vis_data/scalars.json", ("vis_data/config.py", "*.py", "../*.py")),
        *(None, "randomness.seed", "accuracy/top1", "step"),
    ),
    Kind("TensorBoard", EVENTS, ("hparams.yaml", "args.yaml"), "model", "seed", None, "step"),
)


@dataclass(frozen=True)
class FoundRun:
    """A run's folder, read: `path` from the folder that was given, and its lines of figures.

    `note` says what lies deeper in it, and is not read.
    """

    kind: Kind
    folder: Path
    path: str
    configuration: dict[str, Any]
    columns: tuple[str, ...]
    records: tuple[Record, ...]
    note: str | None = None


def find_runs(root: Path) -> list[FoundRun]:
    """Read every run that some program has left in a folder, however deep.

    Raises:
        InputError: if there is none, or a file of one cannot be read.
    """
    found = [_read(kind, folder, root) for kind, folder in _folders(root)]
    if not found:
        shown = ", ".join(f"{kind.shown_by} ({kind.name})" for kind in KINDS)
        raise InputError(f"{root} holds no runs: none of {shown}; name a table, or another folder")
    return found


def _folders(root: Path) -> Iterator[tuple[Kind, Path]]:
    for visited, (place, folders, files) in enumerate(os.walk(root)):
        if visited > MOST_FOLDERS:
            raise InputError(f"{root} holds more than {MOST_FOLDERS:,} folders; name one in it")
        folders.sort()
        folder = Path(place)
        for kind in KINDS:
            first, _, rest = kind.shown_by.partition("/")
            names = folders if rest else files
            if kind.beside and kind.beside not in files:
                continue
            if any(Path(name).match(first) for name in names) and list(folder.glob(kind.shown_by)):
                folders.clear()  # what lies deeper is this run's
                yield kind, folder
                break


def _read(kind: Kind, folder: Path, root: Path) -> FoundRun:
    configuration: dict[str, Any] = {}
    for pattern in kind.configurations:
        base = folder
        if pattern.startswith("../"):
            base, pattern = folder.parent, pattern[3:]
        files = sorted(base.glob(pattern))
        if len(files) == 1 and files[0].is_file():
            configuration = read_configuration(files[0])
            break
    columns, records = _LINES[kind.name](kind, folder)
    path = folder.relative_to(root).as_posix()
    named = folder.resolve().name if path == "." else path
    note = _deeper(folder)
    return FoundRun(kind, folder, named, configuration, tuple(columns), tuple(records), note)


def _deeper(folder: Path) -> str | None:
    """Say which runs lie in a run's folder: add_scalars writes such, and so may an experiment."""
    below = [
        where
        for part in sorted(folder.iterdir())
        if part.is_dir() and not part.is_symlink()
        for _, where in _folders(part)
    ]
    # mmpretrain and Lightning with TensorBoard beside: figures of this very run.
    below = [where for where in below if where.name not in OWN_PLACES]
    if not below:
        return None
    many = f", and {len(below) - 1} more," if len(below) > 1 else ""
    return (
        f"{folder} is read as one run, and what lies in {below[0].relative_to(folder)}{many} is "
        "not: if those are runs, name their folders, or move away what lies above them"
    )


Lines = tuple[tuple[str, ...], list[Record]]


def _of_table(kind: Kind, folder: Path) -> Lines:
    table = read_table(folder / kind.shown_by, log=True)
    return table.columns, list(table.records)


def _of_json_lines(kind: Kind, folder: Path) -> Lines:
    path = folder / kind.shown_by
    table = read_table(path, lines=True, log=True)
    return table.columns, list(table.records)


def _of_events(kind: Kind, folder: Path) -> Lines:
    tags, lines = read_events(folder)
    return (*tags, "step"), [Record(line, str(folder)) for line in lines]


_LINES: dict[str, Callable[[Kind, Path], Lines]] = {
    "timm": _of_table,
    "Ultralytics": _of_table,
    "Lightning": _of_table,
    "mmpretrain": _of_json_lines,
    "TensorBoard": _of_events,
}
