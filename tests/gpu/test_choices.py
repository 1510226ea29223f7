"""What `auto` chooses on a GPU, on a device that does nothing: its memory is real, no time is."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NULL_CUDA = Path(__file__).parents[2] / "benchmarks" / "null_cuda"
sys.path.insert(0, str(NULL_CUDA))
import null_device  # noqa: E402

SCRIPT = Path(__file__).parent / "choose_on_null.py"
REASON = null_device.missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"nothing to choose on: {REASON}")

Choose = Callable[..., list[dict[str, Any]]]
MB = 10**6


@pytest.fixture(scope="module")
def choose(tmp_path_factory: pytest.TempPathFactory) -> Choose:
    built = tmp_path_factory.mktemp("null_cuda")
    null_device.build(built)

    def chosen(model: object, *varied: dict[str, Any], **given: Any) -> list[dict[str, Any]]:
        common = {"model": model, "recipe": {}, "size": 32, **given}
        tasks = [common | one for one in varied or ({},)]
        arguments = [json.dumps(tasks), str(NULL_CUDA)]
        printed = null_device.run(SCRIPT, arguments, built, timeout=900)
        return [json.loads(line) for line in printed.splitlines()]

    return chosen


def test_gates_are_lean_where_memory_is_short(choose: Choose) -> None:
    """A step of 512 images takes 740 MB with plain gates and 610 with lean ones."""
    kernels: dict[int, int] = {}
    recipe = {"batch_size": 512, "cuda_graph": "off"}
    frees = (10_000, 900, 700)
    given = [{"free": free * MB} for free in frees]
    for free, found in zip(frees, choose("resnet20_triplet", *given, recipe=recipe), strict=True):
        lean = free == 700
        assert found["choice"]["lean"] is lean, found["choice"]["note"]
        assert found["kept"] < 200 * MB  # what was measured is given back
        kernels[free] = found["counts"]["kernel"]
        assert ("gates: " in found["choice"]["note"]) == (free < 1_000)
    assert kernels[700] > 1.2 * kernels[900]  # the lean form is what runs


def test_contiguous_around_a_layer_reaches_pytorchs_own_kernel(choose: Choose) -> None:
    off = {"cuda_graph": "off", "memory_format": "channels_last"}
    both = [{"algorithm": "direct"}, {"algorithm": "contiguous"}]
    direct, contiguous = choose("van_b0_replk", *both, size=64, recipe=off)
    large = len(direct["choice"]["algorithms"])
    assert large > 10
    assert (direct["own_depthwise"], contiguous["own_depthwise"]) == (0, large)


DRAWS = """
import random
from torch import Tensor, nn
from blocklab.blocks.registry import register_block

@register_block("sometimes", kind="attention")
class Sometimes(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x if random.random() < 0.5 else 0.5 * x
"""


def test_no_graph_is_made_of_a_step_that_draws_in_python(choose: Choose, tmp_path: Path) -> None:
    """It would draw once, when it is captured, and repeat that number ever after."""
    (tmp_path / "sometimes.py").write_text(DRAWS)
    model = {"base": "resnet20", "attention": "sometimes"}
    given = {"blocks": str(tmp_path / "sometimes.py"), "recipe": {"cuda_graph": "on"}}
    choice = choose(model, **given)[0]["choice"]
    assert choice["graph"] is False
    assert "the state of Python's random numbers changes in each step" in choice["note"]


@pytest.mark.slow
def test_compiled_steps_are_measured_and_are_graphs(choose: Choose) -> None:
    row = {"base": "resnet18", "depths": [1], "widths": [16]}
    (found,) = choose(row, recipe={"compile": "auto", "epochs": 1000})
    assert found["choice"]["graph"]
    assert (
        "; compile: " in found["choice"]["note"] and " a step against " in found["choice"]["note"]
    )
    assert found["counts"]["GraphLaunch"] == 1
