"""What measuring takes of a GPU and gives back, and that no float64 is met there.

On a device that does nothing; where there is none, skipped with the reason.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from blocklab.measure.device import reset_peak

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS / "null_cuda"))
import null_device  # noqa: E402

REASON = null_device.missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"nothing to count with: {REASON}")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("null_cuda")
    null_device.build(folder)
    return folder


@pytest.fixture(scope="module")
def found(built: Path) -> dict[str, Any]:
    return printed_by(built)


def printed_by(built: Path, *arguments: str) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{null_device.HERE}:{_path_of_blocklab()}")
        script = Path(__file__).with_name("on_null_device.py")
        printed = null_device.run(script, [str(built / "runs"), *arguments], built, timeout=900)
    return json.loads(printed.splitlines()[-1])


def _path_of_blocklab() -> Path:
    import blocklab

    return Path(blocklab.__file__).parents[1]


def test_measuring_gives_its_memory_back(found: dict[str, Any]) -> None:
    assert "ms" in found["note"] and "CUDA graph" in found["note"], "it was measured"
    assert found["reserved"]["needs"] == 0
    assert found["reserved"]["bench"] <= 2 << 20, "what the run's loader counts with, and no more"


def test_what_a_run_needs_of_a_gpu_is_measured(found: dict[str, Any]) -> None:
    own = 600 << 20
    assert found["run"] > own + (1 << 20) and found["measuring"] > own + (1 << 20)
    assert len(found["free"]) == 1 and found["free"][0] > found["run"]


def test_a_run_begins_on_a_gpu_that_nothing_was_measured_on(
    built: Path, found: dict[str, Any]
) -> None:
    """As do those of a row whose setup another run has chosen."""
    assert found["note"], "chosen by the first run"
    assert printed_by(built, "1")["status"] == "finished"


def test_counters_are_begun_before_they_are_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch 2.11 refuses to reset the counters of a device that this process has not begun."""
    done: list[str] = []
    monkeypatch.setattr(torch.cuda, "init", lambda: done.append("begun"))
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda device: done.append(str(device))
    )
    reset_peak(torch.device("cuda", 1))
    assert done == ["begun", "cuda:1"]


def test_no_float64_is_met_on_the_device(found: dict[str, Any]) -> None:
    """Apple's GPUs have none: what trains, evaluates, tunes, benches and diagnoses does without."""
    assert found["float64"] == []
