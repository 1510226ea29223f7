"""Runs in the folders of other programs: which row and seed each is, and its figures."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blocklab.errors import InputError
from blocklab.foreign.foreign_run import (
    ForeignRun,
    ForeignRuns,
    Wanted,
    by_epoch,
    costs_of,
    counted_by,
    empty_after,
    named,
    row_name,
)
from blocklab.foreign.run_folders import FoundRun
from blocklab.foreign.settings import settings_of
from blocklab.foreign.table_file import choices, find_name, whole_number

_SEED_IN_NAME = re.compile(r"(?P<row>.+?)[^A-Za-z0-9]*seed[^A-Za-z0-9]*(?P<seed>\d+)(?:/.*)?")
_TIMESTAMP = re.compile(r"[\d_-]{8,}|version_\d+")


def runs_of_folders(found: Sequence[FoundRun], root: Path, wanted: Wanted) -> ForeignRuns:
    if wanted.name and (wanted.row or wanted.seed):
        raise InputError("--name tells a run's row and seed; leave --row and --seed out")
    kinds = dict.fromkeys(run.kind.name for run in found)
    metric = wanted.metric or _usual_metric(found, root)
    columns = list(dict.fromkeys(column for run in found for column in run.columns))
    if metric not in columns:
        raise InputError(f"no run in {root} has '{metric}'{choices(metric, columns)}")
    runs = []
    for run in found:
        row, seed = _row_and_seed(run, wanted)
        epoch = wanted.epoch or run.kind.epoch
        if wanted.epoch and wanted.epoch not in run.columns:
            raise InputError(f"{run.folder} has no '{epoch}'{choices(wanted.epoch, run.columns)}")
        column = epoch if epoch in run.columns else None
        figures = by_epoch(run.records, metric, column)
        trouble = None if figures else f"no {metric} in {run.folder}"
        costs = costs_of(run.configuration, wanted, str(run.folder))
        empty = empty_after(run.records, figures, column)
        settings = settings_of(run.configuration)
        runs.append(
            ForeignRun(row, seed, str(run.folder), figures, costs, trouble, empty, settings)
        )
    word = "run" if len(runs) == 1 else "runs"
    # Of mmengine's lines a step is an epoch, as it says itself of what it validates by epochs.
    by = {
        counted_by(wanted.epoch or (None if run.kind.name == "mmpretrain" else run.kind.epoch))
        for run in found
    }
    origin = f"{len(runs)} {word} of {' and '.join(kinds)} in {root}"
    notes = tuple(run.note for run in found if run.note)
    return ForeignRuns(tuple(runs), metric, origin, notes, " or ".join(sorted(by)))


def _usual_metric(found: Sequence[FoundRun], root: Path) -> str:
    usual = found[0].kind.metric
    if usual is None:
        columns = list(dict.fromkeys(column for run in found for column in run.columns))
        raise InputError(
            f"name what the runs in {root} are compared by with --metric{choices('', columns)}"
        )
    return usual


def _row_and_seed(run: FoundRun, wanted: Wanted) -> tuple[str, int]:
    fields, place = run.configuration, str(run.folder)
    if wanted.name:
        return named(wanted.name, run.path, place)
    guessed = _SEED_IN_NAME.fullmatch(run.path)
    row = _field(fields, wanted.row, run.kind.row, "--row", place)
    if row is None:
        parts = [part for part in run.path.split("/") if not _TIMESTAMP.fullmatch(part)]
        row = guessed["row"] if guessed else "/".join(parts) or run.folder.resolve().parent.name
    seed = _field(fields, wanted.seed, run.kind.seed, "--seed", place)
    if seed is None and guessed:
        seed = guessed["seed"]
    if seed is None:
        raise InputError(
            f"no seed is said in {place}, nor by its name; say how names tell it, such as "
            "--name '{row}_s{seed}'"
        )
    return row_name(row, place), whole_number(seed, place, wanted.seed or run.kind.seed)


def _field(
    fields: Mapping[str, Any], given: str | None, usual: str | None, option: str, place: str
) -> Any:
    """Return a field of a run's configuration; None where only the usual one is missing."""
    if given is None:
        return fields.get(usual) if usual else None
    found = find_name(given, list(fields))
    if found is None:
        raise InputError(
            f"{place} has no field '{given}' for {option}{choices(given, list(fields))}"
            if fields
            else f"{place} has no configuration that could say '{given}'; use --name in place of "
            f"{option}"
        )
    return fields[found]
