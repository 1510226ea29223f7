"""A study's records: all that its page is made of, without the weights, in one folder.

``STUDY/study.json`` and ``STUDY/runs/HASH/`` with run.json, log.jsonl, result.json, the predictions
and the diagnosis of each run that has ended. They are small enough to commit, the page is made from
them again by `blocklab report`, and each run can be trained again and compared by its checksums.
Of a collection there is a folder of each study, and one ``runs`` for all of them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from blocklab.errors import InputError, RunError
from blocklab.files import write_atomically, write_checked_json, write_json
from blocklab.results.collection_file import CollectionJson, write_collection_file
from blocklab.results.design_file import DESIGN, dropped_runs, read_design
from blocklab.results.study_file import (
    COLLECTION,
    RECORDS,
    STUDY,
    StudyJson,
    read_study_file,
    runs_of,
)
from blocklab.training.run_files import DIAGNOSIS, LEFT_OUT, LOGITS, RECORD, RESULT
from blocklab.training.run_reader import RunReader


@dataclass(frozen=True)
class KeptRecords:
    """How many runs were kept, how many have not ended or are damaged, and the bytes kept."""

    runs: int
    missing: int
    bytes: int


def keep_records(folder: Path, to: Path) -> KeptRecords:
    """Copy the records of a study's folder to another folder, which becomes one of the study.

    Records that lie there already stay, as a study may grow.

    Raises:
        InputError: if `folder` is not a study's, or `to` is it or holds another study's records.
        RunError: if study.json or design.json is damaged, or `to` cannot be written.
    """
    study = read_study_file(folder)
    _check_free(to, folder, study)
    kept = _keep_runs([(study, folder)], to / RECORDS)
    _keep_study(folder, to)
    return kept


def keep_collection(content: CollectionJson, out: Path, to: Path) -> KeptRecords:
    """Copy the records of a collection's studies, in folders of `out`, to one folder.

    Raises:
        InputError, RunError: as `keep_records`.
    """
    studies = [(read_study_file(out / name), out / name) for name in content.studies]
    if (to / RECORDS).resolve() == out.resolve():
        raise InputError(f"{to} has the studies' own runs in it; name another folder for records")
    _check_for_records(to, COLLECTION, {RECORDS, *content.studies})
    for study, folder in studies:
        _check_free(to / folder.name, folder, study)
    kept = _keep_runs(studies, to / RECORDS)
    for _, folder in studies:
        _keep_study(folder, to / folder.name)
    write_collection_file(to, content)
    return kept


def _check_free(to: Path, folder: Path, study: StudyJson) -> None:
    if to.resolve() == folder.resolve():
        raise InputError(f"{to} is the study's own folder; name another for its records")
    if (to / RECORDS).resolve() == runs_of(folder).resolve():
        raise InputError(f"{to} has the study's own runs in it; name another folder for records")
    _check_for_records(to, STUDY, {DESIGN, RECORDS})
    if (to / STUDY).exists() and (why := _lost_of(read_study_file(to), study)):
        raise InputError(f"{to} has the records of another study: {why}; name another folder")


def _lost_of(there: StudyJson, study: StudyJson) -> str:
    """Say what of the records that are there a study has not; nothing where it has grown."""
    for what in ("title", "baseline", "paired"):
        if getattr(there, what) != getattr(study, what):
            return f"its {what} is '{getattr(there, what)}'"
    rows = {row.name: row for row in study.rows}
    for row in there.rows:
        if row.name not in rows:
            return f"it has a row '{row.name}', which this one has not"
        runs = rows[row.name].runs
        if missing := [seed for seed in row.runs if seed not in runs]:
            return f"its row '{row.name}' has seed {missing[0]}, which this one's has not"
        if any(runs[seed] != run_hash for seed, run_hash in row.runs.items()):
            return f"its row '{row.name}' has other runs"
    return ""


def _check_for_records(to: Path, main: str, written_before: Collection[str]) -> None:
    """Check that a folder is new, or holds records: `main`, before which the others are written."""
    if to.exists() and not to.is_dir():
        raise InputError(f"{to} is a file; name a folder for the records")
    if not to.exists() or (to / main).exists():
        return
    if {path.name for path in to.iterdir()} - set(written_before):
        raise InputError(f"{to} holds other files; name a new folder for the records")


def _keep_study(folder: Path, to: Path) -> None:
    if read_design(folder) is not None:
        write_atomically(to / DESIGN, (folder / DESIGN).read_bytes())
    # Whose path the study's file had there says nothing where it goes on from its records.
    write_checked_json(to / STUDY, {**read_study_file(folder).model_dump(), "file": None})


def _keep_runs(studies: Sequence[tuple[StudyJson, Path]], to: Path) -> KeptRecords:
    found = {
        run_hash: runs_of(folder) / run_hash
        for study, folder in studies
        for row in study.rows
        for run_hash in row.runs.values()
    }
    asked = set(found)
    for _, folder in studies:  # those of rows that were dropped count in its tests
        dropped = dropped_runs(read_design(folder))
        found |= {run_hash: runs_of(folder) / run_hash for run_hash in dropped}
    runs, missing, size = 0, 0, 0
    for run_hash, folder in found.items():
        reader = RunReader(folder)
        if reader.result is None:
            missing += run_hash in asked
            continue
        target = to / run_hash
        left_out = [name for name in LEFT_OUT if name in reader.result["files"]]
        names = [name for name in reader.result["files"] if name not in (*left_out, LOGITS)]
        if _has_diagnosis(reader):
            names.append(DIAGNOSIS)
        write_json(target / RECORD, {"left_out": left_out})
        for name in (*names, RESULT):  # the result last, which makes the others count
            content = (reader.folder / name).read_bytes()
            size += len(content)
            write_atomically(target / name, content)
        runs += 1
    return KeptRecords(runs, missing, size)


def _has_diagnosis(reader: RunReader) -> bool:
    try:
        return reader.diagnosis() is not None
    except RunError as error:
        raise RunError(
            f"{reader.folder}: {error}; run its study again, where that asks for a diagnosis, or "
            "`blocklab diagnose`, which count again"
        ) from None
