"""SIGKILL at random moments; the long form is ``python benchmarks/kills.py``."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kills.py"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")
def test_a_kill_at_a_random_moment_loses_nothing() -> None:
    """To a worker, after which all are killed; to the study alone: `tests/cli/test_stopping.py`."""
    few = ["--kills", "1", "--seeds", "1", "--epochs", "12", "--seed", "26"]
    command = [sys.executable, str(SCRIPT), *few, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr + done.stdout
    summary = json.loads(done.stdout)
    assert summary["clean"] and summary["kills"] == {"worker": 1, "study": 0, "group": 0}
    assert summary["runs_compared"] >= 3
