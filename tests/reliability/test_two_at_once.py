"""Two studies at one folder: no run is trained twice, or written by two."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from blocklab.execution import crew
from blocklab.execution.crew import Silent
from blocklab.execution.train_studies import train_studies
from blocklab.study.study import Study
from blocklab.training.run import execute_run
from blocklab.training.run_definition import RunDefinition
from blocklab.training.run_folder import BusyError
from blocklab.training.run_reader import is_busy, is_finished

CHILD = """
import json, sys
from pathlib import Path
from blocklab.execution.crew import Silent
from blocklab.execution.train_studies import train_studies
from blocklab.study.study import Study

class Counting(Silent):
    def __init__(self):
        self.epochs, self.ended_, self.failed = 0, 0, []
    def epoch(self, job, record):
        self.epochs += 1
    def ended(self, job, failure):
        self.ended_ += 1
        if failure:
            self.failed.append(failure)

counting = Counting()
study = Study.parse(json.loads(sys.argv[1]), sys.argv[3])
results = train_studies((study,), Path(sys.argv[2]), 1, counting, threads=1)[0]
finished = sum(len(row.finished) for row in results.rows)
print(json.dumps([counting.epochs, counting.ended_, counting.failed, finished]))
"""
TINY = {"backbone": "resnet20", "widths": [4, 8, 8], "depths": [1, 1, 1]}


def test_the_same_runs_in_two_studies_are_trained_once(tmp_path: Path) -> None:
    fields = {
        "title": "Twice",
        "data": {"source": "digits", "train_images": 60, "test_images": 50},
        "recipe": {"base": "quick", "epochs": 5, "batch_size": 20},
        "seeds": 4,
        "varies": [],
        "rows": {"plain": TINY},
    }
    command = [sys.executable, "-c", CHILD, json.dumps(fields), str(tmp_path / "runs")]
    children = [
        subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True)
        for name in ("one", "one")  # the same study, and so the same study.json
    ]
    said = [json.loads(child.communicate(timeout=900)[0]) for child in children]
    assert all(child.returncode == 0 for child in children)
    assert sum(epochs for epochs, *_ in said) == 4 * 5, "each epoch of each run once"
    for _, ended, failed, finished in said:
        assert ended <= 4 and failed == [] and finished == 4


class Noting(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, job: Any, text: str) -> None:
        self.notes.append(text)


def test_a_run_that_another_trains_is_left_and_looked_at_again(
    make_study: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study()
    folder = tmp_path / next(study.plan()).definition.hash
    folder.mkdir()
    looks = 0

    def look(path: Path) -> bool:
        nonlocal looks
        looks += 1
        if looks == 3:  # by number, not by time: a loaded machine is slow to get here
            other.release()
        return is_busy(path)

    monkeypatch.setattr(crew, "is_busy", look)
    watching, other = Noting(), FileLock(folder / "lock", thread_local=False)
    other.acquire()
    with pytest.raises(BusyError, match="another process is training"):
        execute_run(next(study.plan()).definition, tmp_path)
    (row,) = train_studies((study,), tmp_path, 1, watching, threads=1)[0].rows
    assert len(row.finished) == 1
    assert watching.notes == ["is being trained by another process; left to it"]
    assert looks == 3, "it looks until the run is free, and no more"


def test_the_lock_of_a_dead_process_is_free(definition: RunDefinition, tmp_path: Path) -> None:
    folder = tmp_path / definition.hash
    folder.mkdir()
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from filelock import FileLock; lock = FileLock(sys.argv[1]);"
            "lock.acquire(); print('held', flush=True); time.sleep(600)",
            str(folder / "lock"),
        ],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    assert is_busy(folder)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    assert not is_busy(folder)
    assert is_finished(execute_run(definition, tmp_path, threads=1))
