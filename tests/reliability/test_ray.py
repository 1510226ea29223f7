"""A study on a Ray cluster; the long form is ``python benchmarks/cluster.py``."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from blocklab.errors import InputError, RunError
from blocklab.execution.train_studies import train_studies
from blocklab.study.study import Study

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "cluster.py"


def test_no_ray_is_said_with_the_remedy(
    make_study: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="pip install"):
        train_studies((make_study(),), tmp_path, ray="auto")[0]


@pytest.mark.parametrize("how", ["address", "ray://", "RAY_ADDRESS", "left by a machine"])
def test_where_nobody_listens_there_is_an_answer_soon(
    how: str,
    make_study: Callable[..., Study],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("ray", reason="the ray extra is not installed")
    with socket.socket() as held:  # bound, and not listening
        held.bind(("127.0.0.1", 0))
        there = f"127.0.0.1:{held.getsockname()[1]}"
        address = {"address": there, "ray://": f"ray://{there}"}.get(how, "auto")
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        if how == "RAY_ADDRESS":
            monkeypatch.setenv("RAY_ADDRESS", there)
        if how == "left by a machine":
            monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
            (tmp_path / "ray").mkdir()
            (tmp_path / "ray" / "ray_current_cluster").write_text(there)
        monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray waits for a minute"))
        with pytest.raises(RunError, match=r"no Ray cluster at .*refused"):
            train_studies((make_study(),), tmp_path / "out", ray=address)


@pytest.mark.slow
def test_a_killed_worker_and_a_killed_node_lose_nothing() -> None:
    pytest.importorskip("ray", reason="the ray extra is not installed")
    command = [sys.executable, str(SCRIPT), "--seeds", "3", "--epochs", "60", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr + done.stdout
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["killed"] == ["worker", "node"]
    assert summary["lost"] == summary["runs_with_differing_bits"] == 0
