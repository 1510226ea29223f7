"""What lies in a folder of run folders: which runs, of which studies, how far, and how large."""

import fnmatch
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from blocklab.errors import BlocklabError, InputError, RunError
from blocklab.models.names import list_models
from blocklab.models.spec import model_spec
from blocklab.results.design_file import dropped_runs, read_design
from blocklab.results.study_file import RECORDS, STUDY, read_study_file, runs_of
from blocklab.training.run_files import CHECKPOINT, LOCK, LOG, RUN
from blocklab.training.run_folder import RunFolder
from blocklab.training.run_reader import RunReader, is_busy, logged

Status = Literal["finished", "diverged", "training", "unfinished", "failed", "damaged"]
_RUN_NAME = re.compile("[0-9a-f]{16}")
_AGE = re.compile(r"(\d{1,6})\s*([mhdw])")
_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True)
class StoredRun:
    """A run's folder, seen from outside.

    Attributes:
        folder: where it lies.
        label: the row that it was first trained for, or the model.
        seed: None where run.json is damaged or gone, as are `model` and `label`.
        status: `training` where a process is at it now; `unfinished` where none is.
        epochs, epochs_asked: done, and in the recipe.
        top1: of the test set, in percent, of a run that finished.
        studies: those of the same folder that have it, each as ``STUDY/ROW``; a row that was taken
            out of the study's file is one of them, as it still counts.
        unread: names of studies that cannot be read, and may have it.
        bytes: of all its files.
        seconds: since one of them last changed.
        model: its specification, as run.json has it.
    """

    folder: Path
    label: str
    seed: int | None
    status: Status
    epochs: int
    epochs_asked: int | None
    top1: float | None
    studies: tuple[str, ...]
    bytes: int
    seconds: float
    model: Mapping[str, Any] | None
    unread: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON, the model left out."""
        fields = asdict(self) | {"folder": str(self.folder), "studies": list(self.studies)}
        fields["unread"] = list(self.unread)
        del fields["model"]
        return fields

    def of_study(self, pattern: str) -> bool:
        """Whether a study whose name matches a shell pattern has it."""
        return any(fnmatch.fnmatchcase(name, pattern) for name in self.study_names)

    @property
    def study_names(self) -> tuple[str, ...]:
        """The folders of the studies that have it."""
        return tuple(dict.fromkeys(one.partition("/")[0] for one in self.studies))


def stored_runs(out: Path) -> list[StoredRun]:
    """List the run folders of a folder, the one that changed last first.

    Raises:
        InputError: if there is no such folder.
    """
    if not out.is_dir():
        raise InputError(f"there is no folder {out}; give the folder of run folders with --out")
    studies, unread = _studies(out)
    now = time.time()
    runs = [
        _stored(folder, studies.get(folder.name, ()), unread, now) for folder in _run_folders(out)
    ]
    return sorted(runs, key=lambda run: (run.seconds, run.folder.name))


def matching(
    runs: Iterable[StoredRun],
    *,
    study: str | None = None,
    no_study: bool = False,
    model: str | None = None,
    statuses: Sequence[str] = (),
    older_than: str | None = None,
) -> list[StoredRun]:
    """Keep the runs that all of the given conditions hold of.

    Args:
        runs: of `stored_runs`.
        study: a shell pattern for the name of a study's folder.
        no_study: only runs that no study of the folder has, or may have.
        model: a shell pattern for the name of a model, or for a run's label.
        statuses: any of these.
        older_than: how long ago the run last changed, ``30m``, ``12h``, ``7d`` or ``2w``.

    Raises:
        InputError: for an age that cannot be read.
    """
    least = None if older_than is None else _age(older_than)
    named = [] if model is None else [model_spec(name).to_dict() for name in list_models(model)]
    return [
        run
        for run in runs
        if (study is None or run.of_study(study))
        and not (no_study and (run.studies or run.unread))
        and (model is None or fnmatch.fnmatchcase(run.label, model) or run.model in named)
        and (not statuses or run.status in statuses)
        and (least is None or run.seconds >= least)
    ]


def shared_with_others(run: StoredRun, pattern: str) -> bool:
    """Whether a study whose name does not match the pattern has the run too."""
    return not all(fnmatch.fnmatchcase(name, pattern) for name in run.study_names)


def delete_run(run: StoredRun) -> None:
    """Delete a run's folder, unless a process trains it.

    Raises:
        BusyError: if one does.
        RunError: if something of it cannot be deleted.
    """
    folder = RunFolder(run.folder)
    if not run.folder.is_dir():
        return
    with folder.locked():
        try:
            shutil.rmtree(run.folder)
        except OSError as error:
            raise RunError(f"cannot delete {error.filename}: {error.strerror or error}") from error


def _run_folders(out: Path) -> Iterator[Path]:
    for entry in os.scandir(out):
        folder = out / entry.name
        named = _RUN_NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
        if named and any((folder / name).exists() for name in (RUN, LOG, CHECKPOINT, LOCK)):
            yield folder


def _studies(out: Path) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Return which rows of which studies have each run, and which studies cannot be read."""
    found: dict[str, list[str]] = {}
    unread: list[str] = []
    above = out.resolve().parent  # of records: their study's folder, or their collection's
    around = [above / STUDY, *above.glob(f"*/{STUDY}")] if out.resolve().name == RECORDS else []
    owners = [
        file for file in around if file.exists() and runs_of(file.parent).resolve() == out.resolve()
    ]
    for file in sorted((*out.glob(f"*/{STUDY}"), *owners)):
        try:
            study, design = read_study_file(file.parent), read_design(file.parent)
        except BlocklabError:
            unread.append(file.parent.name)
            continue
        runs = {run_hash: row.name for row in study.rows for run_hash in row.runs.values()}
        for run_hash, row in {**dropped_runs(design), **runs}.items():
            found.setdefault(run_hash, []).append(f"{file.parent.name}/{row}")
    return {run_hash: tuple(rows) for run_hash, rows in found.items()}, tuple(unread)


def _stored(
    folder: Path, studies: tuple[str, ...], unread: tuple[str, ...], now: float
) -> StoredRun:
    reader = RunReader(folder)
    run, result = reader.run or {}, reader.result or {}
    definition = run.get("definition", {})
    epochs = result.get("epochs") or len(logged(folder))
    size, changed = _extent(folder)
    return StoredRun(
        folder,
        run.get("label", ""),
        definition.get("seed"),
        _status(reader),
        epochs,
        definition.get("recipe", {}).get("epochs"),
        result.get("test_top1_percent"),
        studies,
        size,
        max(0.0, now - changed),
        definition.get("model"),
        unread,
    )


def _status(reader: RunReader) -> Status:
    if is_busy(reader.folder):
        return "training"
    if reader.fault is not None:
        return "damaged"
    if reader.result is not None:
        return reader.result["status"]
    return "unfinished" if reader.failure is None else "failed"


def _extent(folder: Path) -> tuple[int, float]:
    """Return the bytes of a folder's files, and when one of them last changed.

    A lock is touched by whoever looks whether it is held.
    """
    size, changed = 0, 0.0
    for path in folder.rglob("*"):
        try:
            found = path.lstat()
        except OSError:  # it went meanwhile
            continue
        size += found.st_size
        if path.name != LOCK:
            changed = max(changed, found.st_mtime)
    return size, changed or folder.stat().st_mtime


def _age(text: str) -> float:
    read = _AGE.fullmatch(text.strip())
    if read is None:
        raise InputError(f"an age is such as 30m, 12h, 7d or 2w, not '{text[:40]}'")
    return int(read[1]) * _SECONDS[read[2]]
