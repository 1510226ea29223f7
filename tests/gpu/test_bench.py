"""`bench` on a CUDA device that computes nothing: which ways it takes, never how fast they are."""

import json
from pathlib import Path

import null_device
import pytest

REASON = null_device.missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"nothing to count with: {REASON}")


def test_a_gpu_is_measured_eager_and_as_graphs_and_its_memory_given_back(tmp_path: Path) -> None:
    null_device.build(tmp_path)
    script = null_device.HERE / "bench_null.py"
    found = json.loads(null_device.run(script, ["resnet20"], tmp_path, timeout=900))
    modes = {(one["work"], one["mode"]) for one in found["speeds"]}
    works = ("training", "inference", "inference, deployed")
    assert modes == {(work, mode) for work in works for mode in ("eager", "graph")}
    assert found["notes"] == [] and len(found["speeds"]) == 12 + 3
    assert found["captured"] == 3 + 2  # and of one image, of what infers
    assert found["replays"] >= 2 * found["captured"] - 3
    for one in found["speeds"]:
        assert one["images_per_second"] == pytest.approx(4000)  # events are a millisecond apart
        assert (one["memory_bytes"] is None) == (one["mode"] == "graph")
        assert one["latency_ms"] in (None, 1.0)
    assert found["memory_left"] == 0
    assert found["network_lives"], "a graph reads the weights and labels where they lay"
