"""SIGKILL at random moments; the long form is ``python benchmarks/kills.py``."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kills.py"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")
def test_kills_at_random_moments_lose_nothing() -> None:
    command = [sys.executable, str(SCRIPT), "--kills", "3", "--epochs", "25", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr + done.stdout
    summary = json.loads(done.stdout)
    assert summary["clean"] and sum(summary["kills"].values()) == 3
    assert summary["runs_compared"] >= 6
