"""What measuring takes of a GPU and gives back, and that no float64 is met there.

On a device that does nothing; where there is none, skipped with the reason.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS / "null_cuda"))
import null_device  # noqa: E402

REASON = null_device.missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"nothing to count with: {REASON}")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    built = tmp_path_factory.mktemp("null_cuda")
    null_device.build(built)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{null_device.HERE}:{_path_of_blocklab()}")
        script = Path(__file__).with_name("on_null_device.py")
        printed = null_device.run(script, [str(built / "runs")], built, timeout=900)
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


def test_no_float64_is_met_on_the_device(found: dict[str, Any]) -> None:
    """Apple's GPUs have none: what trains, evaluates, tunes, benches and diagnoses does without."""
    assert found["float64"] == []
