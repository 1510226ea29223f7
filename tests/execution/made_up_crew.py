"""Studies whose runs are made up in no time, from a YAML file to their results."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from blocklab.execution import train_studies as training
from blocklab.execution.crew import Silent
from blocklab.execution.plan import Job
from blocklab.results.design_file import DesignJson, read_design, write_design
from blocklab.results.study_results import StudyResults
from blocklab.study.study import Study
from blocklab.training.run_folder import forget_failure, note_failure
from blocklab.training.run_reader import is_finished

MakeRun = Callable[..., Path]
TINY = "{backbone: resnet20, widths: [4, 8, 8], depths: [1, 1, 1]}"
FILE = f"""
title: Looks
data: {{source: digits, train_images: 60, test_images: 50}}
recipe: {{base: quick, epochs: 1, batch_size: 20}}
seeds: {{until_decided: {{looks: [3, 5, 8]}}}}
varies: [attention]
rows:
  plain: {TINY}
  se: {TINY[:-1]}, attention: se}}
  eca: {TINY[:-1]}, attention: eca}}
  gct: {TINY[:-1]}, attention: gct}}
claims: [se > plain]
"""
MEANS = {"plain": 80.0, "se": 84.0, "eca": 80.0, "gct": 80.55, "simam": 80.0, "ela": 76.0}


class Told(Silent):
    """Keeps what is said of looks."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def looked(self, study: str, text: str) -> None:
        self.said.append(text)


class MadeUp:
    """In place of a crew: writes results by MEANS, and stops before the run of number `dies_at`.

    Rows of `fails` fail, and from the run of number `fails_from` on all do.
    """

    made = 0
    dies_at: int | None = None
    fails: tuple[str, ...] = ()
    fails_from: int | None = None
    meanwhile: Callable[[], object] | None = None  # what another process does while this one trains
    make_run: MakeRun

    def __init__(self, out: Path, *_: object) -> None:
        self.out = out

    def train(self, jobs: Sequence[Job]) -> Mapping[str, str]:
        failures = {}
        if meanwhile := MadeUp.meanwhile:
            MadeUp.meanwhile = None
            meanwhile()
        jobs = [job for job in jobs if not is_finished(self.out / job.hash)]
        for job in jobs:
            if MadeUp.made == MadeUp.dies_at:
                raise KeyboardInterrupt
            MadeUp.made += 1
            number = MadeUp.made
            if job.label in self.fails or number >= (MadeUp.fails_from or number + 1):
                failures[job.hash] = "no memory"
                folder = self.out / job.hash
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "lock").touch()
                note_failure(folder, failures[job.hash])
                continue
            forget_failure(self.out / job.hash)
            seed = job.definition.seed
            noise = np.random.default_rng([seed, sum(map(ord, job.label))]).normal()
            row = job.label.partition(" at lr")[0].rpartition(": ")[2]
            top1 = MEANS[row] + 0.3 * noise
            definition = job.definition.to_dict()
            result = {"validation_top1_percent": top1}
            MadeUp.make_run(
                self.out, job.label, seed, top1, epochs=1, definition=definition, result=result
            )
        return failures


LATE = f"  simam: {TINY[:-1]}, attention: simam}}\n  ela: {TINY[:-1]}, attention: ela}}\n"


def run(file: Path, told: Told | None = None, **changes: Any) -> StudyResults:
    study = Study.load(file, **changes)
    return training.train_studies((study,), file.parent / "runs", 1, told)[0]


def design(file: Path, name: str = "looks") -> DesignJson:
    found = read_design(file.parent / "runs" / name)
    assert found is not None
    return found


def of_another_file(file: Path, row: str) -> None:
    """Make a row's runs on record those of another file of its block."""
    folder = file.parent / "runs" / "looks"
    found = design(file)
    runs = {seed: run[::-1] for seed, run in found.rows[row].runs.items()}
    other = found.rows[row].model_copy(update={"runs": runs})
    write_design(folder, found.model_copy(update={"rows": {**found.rows, row: other}}))


def undated(file: Path) -> list[dict[str, Any]]:
    return [one.model_dump(exclude={"at"}) for one in design(file).looks]


def words(results: StudyResults) -> dict[str, str]:
    return {row: one.word for row, one in results.comparisons.items()}


def rewrite(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
