"""A study on a Ray cluster of two nodes of which one is killed, and a worker before it.

    python benchmarks/cluster.py [--seeds 4] [--epochs 150] [--json]

Both nodes are on this machine (a raylet each, one CPU each). While runs train, the worker of a
run is killed, then the whole second node. The study is left to end, and each of its runs is
compared to the bit with the same run trained by this process alone.
With BLOCKLAB_STORAGE set, the run folders travel over that storage.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blocklab.execution.crew import Silent
from blocklab.execution.plan import Job
from blocklab.execution.train_studies import train_studies
from blocklab.execution.verify import compare_runs
from blocklab.study.study import Study
from blocklab.training.run import execute_run
from blocklab.training.run_reader import RunReader

TINY = {"backbone": "resnet20", "widths": [4, 8, 8], "depths": [1, 1, 1]}


class Watching(Silent):
    """Counts epochs, so that kills can fall while runs train; keeps what is said."""

    def __init__(self, kills: list[tuple[int, Callable[[], None]]]) -> None:
        self.kills, self.epochs, self.said = kills, 0, []

    def epoch(self, job: Job, record: dict[str, Any]) -> None:
        """Count it, and kill what is to be killed by now."""
        self.epochs += 1
        while self.kills and self.epochs >= self.kills[0][0]:
            threading.Thread(target=self.kills.pop(0)[1]).start()

    def note(self, job: Job, text: str) -> None:
        """Keep it."""
        self.said.append(f"{job.name}: {text}")

    def ended(self, job: Job, failure: str | None) -> None:
        """Keep a failure."""
        if failure:
            self.said.append(f"{job.name} failed: {failure}")


def trainers(hashes: set[str]) -> list[int]:
    """Processes that hold the lock of one of the runs."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target = os.readlink(entry)
        except OSError:
            continue
        if target.endswith("/lock") and Path(target).parent.name in hashes:
            found.append(int(entry.parts[2]))
    return found


def main() -> int:
    from ray.cluster_utils import Cluster

    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    study = Study.parse(
        {
            "title": "A study on two nodes",
            "data": {"source": "digits", "train_images": 100, "test_images": 100},
            "recipe": {"base": "quick", "epochs": given.epochs, "batch_size": 20},
            "seeds": given.seeds,
            "varies": [],
            "rows": {"plain": TINY},
        },
        "cluster",
    )
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    killed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="blocklab-cluster-") as name:
        out = Path(name) / "out"

        def kill_worker() -> None:
            for process in trainers({run.definition.hash for run in study.plan()})[:1]:
                os.kill(process, signal.SIGKILL)
                killed.append("worker")

        def kill_node() -> None:
            cluster.remove_node(second, allow_graceful=False)
            killed.append("node")

        watching = Watching(
            [(given.epochs // 3, kill_worker), (given.epochs, kill_node)]  # counted over all runs
        )
        began = time.perf_counter()
        (row,) = train_studies((study,), out, None, watching, threads=1, ray=cluster.address)[
            0
        ].rows
        seconds = time.perf_counter() - began
        cluster.shutdown()
        differing = 0
        for run in study.plan():
            here = execute_run(run.definition, Path(name) / "here", threads=1)
            there = RunReader(out / here.name)
            differing += compare_runs(RunReader(here), there)[0] is not None
    summary = {
        "killed": killed,
        "runs": given.seeds,
        "finished": len(row.finished),
        "lost": given.seeds - len(row.finished),
        "runs_with_differing_bits": differing,
        "said": watching.said,
        "seconds": round(seconds),
    }
    if given.json:
        print(json.dumps(summary))
    else:
        print("| what | |\n|---|---|")
        for what, value in summary.items():
            shown = "; ".join(value) if isinstance(value, list) else value
            print(f"| {what.replace('_', ' ')} | {shown} |")
    return 0 if summary["lost"] == differing == 0 and killed == ["worker", "node"] else 1


if __name__ == "__main__":
    sys.exit(main())
