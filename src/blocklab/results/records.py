"""A study's records: all that its page is made of, without the weights, in one folder.

``STUDY/study.json`` and ``STUDY/runs/HASH/`` with run.json, log.jsonl, result.json, the predictions
and the diagnosis of each run that has ended. They are small enough to commit, the page is made from
them again by `blocklab report`, and each run can be trained again and compared by its checksums.
"""

from dataclasses import dataclass
from pathlib import Path

from blocklab.files import write_atomically, write_json
from blocklab.results.design_file import DESIGN, read_design
from blocklab.results.study_file import RECORDS, STUDY, read_study_file, runs_of
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
        InputError: if `folder` is not a study's.
        RunError: if study.json or design.json is damaged, or `to` cannot be written.
    """
    study = read_study_file(folder)
    runs, missing, size = 0, 0, 0
    for run_hash in (one for row in study.rows for one in row.runs.values()):
        reader = RunReader(runs_of(folder) / run_hash)
        if reader.result is None:
            missing += 1
            continue
        target = to / RECORDS / run_hash
        left_out = [name for name in LEFT_OUT if name in reader.result["files"]]
        names = [name for name in reader.result["files"] if name not in (*left_out, LOGITS)]
        if reader.diagnosis() is not None:
            names.append(DIAGNOSIS)
        write_json(target / RECORD, {"left_out": left_out})
        for name in (*names, RESULT):  # the result last, which makes the others count
            content = (reader.folder / name).read_bytes()
            size += len(content)
            write_atomically(target / name, content)
        runs += 1
    if read_design(folder) is not None:
        write_atomically(to / DESIGN, (folder / DESIGN).read_bytes())
    write_atomically(to / STUDY, (folder / STUDY).read_bytes())
    return KeptRecords(runs, missing, size)
