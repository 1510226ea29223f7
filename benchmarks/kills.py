"""Kill a study at random moments, over and over, and count what is lost: it should be nothing.

    python benchmarks/kills.py [--kills 50] [--epochs 150] [--seeds 2] [--seconds 0] [--seed 0]
                               [--json]

Each kill is SIGKILL to a worker, to the study's process or to all of its processes, at a random
moment. After each it is checked that no process is left and that a checkpoint that opens has every
epoch of the log but those of the last so many seconds; then the same command is run again. A study
that has ended is compared with one that was never stopped, file by file, and started anew. The last
one is left to end.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from blocklab.execution.train_studies import train_studies
from blocklab.execution.verify import untimed
from blocklab.study.study import Study
from blocklab.training.checkpoints import SECONDS_VARIABLE
from blocklab.training.run import execute_run
from blocklab.training.run_files import CHECKPOINT, LOG, PREVIOUS
from blocklab.training.run_folder import RunFolder
from blocklab.training.run_reader import is_finished

TINY = {"backbone": "resnet20", "widths": [4, 8, 8], "depths": [1, 1, 1]}
STUDY: dict[str, Any] = {
    "title": "A study to be killed",
    "data": {"source": "digits", "train_images": 100, "test_images": 100},
    "recipe": {"base": "quick", "batch_size": 20},
    "varies": ["attention"],
    "rows": {
        "plain": TINY,
        "se": {**TINY, "attention": "se"},
        "coordinate": {**TINY, "attention": "coordinate"},
    },
}
TURNS = ("worker", "study", "group")
PATIENCE = 300.0  # seconds for anything to happen, on a busy machine


@dataclass
class Summary:
    """What was done and what was lost."""

    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TURNS, 0))
    studies_ended: int = 0
    runs_compared: int = 0
    results_lost: int = 0
    epochs_lost: int = 0
    runs_with_differing_bits: int = 0
    processes_left: int = 0
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        """Whether nothing was lost."""
        return not (
            self.results_lost
            or self.epochs_lost
            or self.runs_with_differing_bits
            or self.processes_left
        )


def train(study: dict[str, object], out: Path) -> None:
    """Train the study in a session of its own, so that its processes can be told from others."""
    os.setsid()
    results = train_studies((Study.parse(study, "killed"),), out, threads=1)
    sys.exit(any(row.failed or row.missing_seeds for row in results[0].rows))


def train_undisturbed(study: dict[str, object], out: Path) -> None:
    """Train its runs one after the other, in one process."""
    for run in Study.parse(study, "reference").plan():
        execute_run(run.definition, out, threads=1)


def start(does: Callable[..., None], study: dict[str, object], out: Path) -> Any:
    """Start a process that has imported everything: this one, forked, which computes nothing."""
    process = multiprocessing.get_context("fork").Process(target=does, args=(study, out))
    process.start()
    while does is train and process.is_alive() and os.getsid(process.pid) != process.pid:
        time.sleep(0.001)
    return process


def processes(session: int) -> Iterator[tuple[int, int]]:
    """Yield (process, parent) of a session, zombies left out."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                yield int(entry.name), int(fields[1])


def workers(session: int) -> list[int]:
    """Workers are children of the server that forks them, which is a child of the study."""
    parents = dict(processes(session))
    return [pid for pid, parent in parents.items() if parents.get(parent) == session]


def logged(out: Path) -> dict[str, int]:
    """Return how many epochs each run's log has."""
    return {log.parent.name: len(log.read_text().splitlines()) for log in out.glob(f"*/{LOG}")}


def kill_once(
    study: dict[str, object], out: Path, draw: random.Random, summary: Summary, whom: str
) -> bool:
    """Start the study and kill it at a random moment; return False if it ended before that."""
    before = sum(logged(out).values())
    child = start(train, study, out)
    deadline = time.monotonic() + PATIENCE
    if draw.random() < 0.85:  # most kills fall while runs train, the rest while things start
        while child.is_alive() and sum(logged(out).values()) <= before:
            assert time.monotonic() < deadline, "the study does nothing"
            time.sleep(0.005)
    wait_until = time.monotonic() + draw.uniform(0.0, 1.5)
    while time.monotonic() < wait_until and child.is_alive():
        time.sleep(0.001)
    victims = [child.pid]
    while whom == "worker" and not (victims := workers(child.pid)) and child.is_alive():
        time.sleep(0.01)
    if not child.is_alive() or not victims:
        child.join(PATIENCE)
        assert child.exitcode == 0, "the study fails by itself"
        return False
    finished = {folder.name for folder in out.glob("*") if is_finished(folder)}
    seen = logged(out)
    if whom == "group":
        os.killpg(child.pid, signal.SIGKILL)
    else:
        os.kill(draw.choice(victims), signal.SIGKILL)
    summary.kills[whom] += 1
    if whom == "worker":  # the study goes on without it: let it, for a moment
        time.sleep(draw.uniform(0.0, 1.0))
        os.killpg(child.pid, signal.SIGKILL)
    child.join(PATIENCE)
    check_state(child.pid, out, finished, seen, summary)
    return True


def check_state(
    session: int, out: Path, finished: set[str], seen: dict[str, int], summary: Summary
) -> None:
    """Check that all processes are gone, and that what was there before the kill still is."""
    gone = time.monotonic() + PATIENCE
    while list(processes(session)) and time.monotonic() < gone:
        time.sleep(0.02)
    left = [pid for pid, _ in processes(session)]
    summary.processes_left += len(left)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    summary.results_lost += sum(not is_finished(out / name) for name in finished)
    for name, epochs in seen.items():
        if name in finished:
            continue
        saved, _ = RunFolder(out / name).load_checkpoint(name)
        kept = saved["epochs_done"] if saved else 0
        # An epoch is in the log while its checkpoint is being written.
        summary.epochs_lost += max(0, epochs - kept - 1 - may_cost(out / name, kept))


def may_cost(folder: Path, kept: int) -> int:
    """Return how many epochs after those kept were trained within the seconds between writes."""
    seconds, epochs = float(os.environ[SECONDS_VARIABLE]), 0
    for line in (folder / LOG).read_text().splitlines()[kept:]:
        if seconds > 0:
            seconds -= json.loads(line)["train_seconds"]
            epochs += 1
    return epochs


def compare(reference: Path, out: Path, summary: Summary) -> None:
    """Compare every run of two studies that have ended, bit by bit (times and memory left out)."""
    for one in sorted(folder.parent for folder in reference.glob("*/run.json")):
        other = out / one.name
        summary.runs_compared += 1
        if not is_finished(other):
            summary.results_lost += 1
            continue
        same = all(
            (one / name).read_bytes() == (other / name).read_bytes()
            for name in ("model.safetensors", "predictions.npz")
        )
        logs = [
            [untimed(json.loads(line)) for line in (folder / LOG).read_text().splitlines()]
            for folder in (one, other)
        ]
        figures = [
            {**untimed(json.loads((folder / "result.json").read_text())), "files": 0, "sha256": 0}
            for folder in (one, other)
        ]
        leftovers = [*other.glob(".*.tmp"), *other.glob(PREVIOUS)]
        whole = not (other / CHECKPOINT).exists() and not leftovers
        if not (same and whole and logs[0] == logs[1] and figures[0] == figures[1]):
            summary.runs_with_differing_bits += 1


def torture(kills: int, epochs: int, seeds: int, seed: int, folder: Path) -> Summary:
    """Do it all; return what came of it."""
    study = {**STUDY, "recipe": {**STUDY["recipe"], "epochs": epochs}, "seeds": seeds}
    draw, summary, began = random.Random(seed), Summary(), time.monotonic()
    reference, out = folder / "reference", folder / "killed"
    undisturbed = start(train_undisturbed, study, reference)
    undisturbed.join()
    assert undisturbed.exitcode == 0, "the study fails by itself"
    while sum(summary.kills.values()) < kills:
        whom = TURNS[sum(summary.kills.values()) % 3]
        if not kill_once(study, out, draw, summary, whom):  # it ended first: a whole study
            compare(reference, out, summary)
            summary.studies_ended += 1
            shutil.rmtree(out, ignore_errors=True)
    last = start(train, study, out)
    last.join(PATIENCE * 2)
    assert last.exitcode == 0, "the study does not end after its kills"
    compare(reference, out, summary)
    summary.studies_ended += 1
    summary.seconds = time.monotonic() - began
    return summary


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=2, help="of each of three rows")
    parser.add_argument("--seconds", type=float, default=0.0, help="between two checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    os.environ[SECONDS_VARIABLE] = str(given.seconds)
    with tempfile.TemporaryDirectory(prefix="blocklab-kills-") as name:
        summary = torture(given.kills, given.epochs, given.seeds, given.seed, Path(name))
    if given.json:
        print(json.dumps({**asdict(summary), "clean": summary.clean}))
    else:
        print("| what | count |\n|---|---|")
        for whom, count in summary.kills.items():
            print(f"| SIGKILL to {whom} | {count} |")
        for name, value in asdict(summary).items():
            if name != "kills":
                print(f"| {name.replace('_', ' ')} | {value:,.0f} |")
    return 0 if summary.clean else 1


if __name__ == "__main__":
    sys.exit(main())
