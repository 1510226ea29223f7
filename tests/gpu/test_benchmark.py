"""`benchmarks/gpu.py`, as far as it can be gone through without a GPU."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import null_device
import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def run(out: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(SCRIPT), "--out", str(out), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


def lines(out: Path) -> list[dict[str, Any]]:
    return json.loads(out.read_text())


def test_it_goes_through_all_loops(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = run(out, "--device", "cpu", "--quick", "--models", "resnet18", "--batches", "4")
    assert done.returncode == 0, done.stderr
    *rates, weights = lines(out)
    assert [line["loop"] for line in rates] == ["eager", "plain", "timm, best flags"]
    for line in rates:
        assert line["images_per_second"] > 0 and line["roofline_percent"] > 0, line
        assert f"{line['loop']} " in done.stdout
    assert weights["loop"] == "weights" and weights["differing"] == []


def test_what_the_minutes_do_not_suffice_for_is_named(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    few = ("--device", "cpu", "--quick", "--models", "resnet18,van_b0_replk", "--minutes", "0.01")
    assert run(out, *few).returncode == 0
    skipped = [(line["model"], line["skipped"]) for line in lines(out)]
    assert skipped == [(name, "the minutes were over") for name in ("resnet18", "van_b0_replk")]


def test_without_a_gpu_a_line_says_so(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = run(tmp_path / "out.json")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: PyTorch sees no CUDA device here; --device null counts")


@pytest.mark.skipif(null_device.missing() is not None, reason=str(null_device.missing()))
def test_counts_without_a_gpu(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = run(out, "--device", "null", "--models", "resnet18", "--batches", "8")
    assert done.returncode == 0, done.stderr
    eager, graph = lines(out)
    assert (eager["loop"], graph["loop"]) == ("eager", "graph")
    assert eager["counts"]["kernel"] > 100 and graph["counts"]["GraphLaunch"] == 1
