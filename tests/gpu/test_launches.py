"""What a step asks of a GPU, counted on a device that does nothing: no waits, few launches.

Where PyTorch has no CUDA, or there is no compiler, these are skipped, with the reason.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blocklab.models.names import list_models

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS / "null_cuda")]
import launches  # noqa: E402
import null_device  # noqa: E402

REASON = null_device.missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"nothing to count with: {REASON}")

Count = Callable[..., list[dict[str, Any]]]
MOST = {"resnet18": 330, "resnet50_triplet": 2000, "res2net50_celu_cd_st": 3600}


@pytest.fixture(scope="module")
def count(tmp_path_factory: pytest.TempPathFactory) -> Count:
    built = tmp_path_factory.mktemp("null_cuda")
    null_device.build(built)

    def counts(models: list[str], batch: int = 128, **recipe: object) -> list[dict[str, Any]]:
        return launches.counted(models, recipe, batch, 32, built)

    return counts


def asked(found: dict[str, Any]) -> int:
    """Return the waits and the copies between devices of a step."""
    assert found["device"] == "cuda" and found["counts"]["kernel"] > 0, found
    return launches.total(found["counts"], "sync", "memcpy:H2D", "memcpy:D2H", "memcpy:any")


ATTENTIONS = ["cbam", "bam", "eca", "simam", "ema", "shuffle", "ela", "gather_excite"]
MORE = ["fca", "gct", "non_local", "scsa", "mlca", "lsk", "caa"]
MIXERS = ["grouped", "partial", "involution", "odconv"]
TOKEN_MIXERS = ["pooling", "inception_depthwise", "dilated_reparam", "slak"]
NEW = [
    *(f"resnet20:attention={name}" for name in MORE),
    *(f"resnet20:mixer={name}" for name in MIXERS),
    *(f"convnextv2_atto:mixer={name},stem=cifar" for name in TOKEN_MIXERS),
]
FAMILIES = ["resnet20_se", "res2net50_celu_cd_st", "skresnet18", "van_b0", "van_b0_replk"]
FAMILIES += ["convnextv2_atto", "poolformer_s12", "mambaout_femto"]


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(FAMILIES, id="a row a family"),
        pytest.param([f"resnet20:attention={name}" for name in ATTENTIONS], id="attentions"),
        pytest.param(NEW, id="blocks"),
        pytest.param(list_models(), id="every named row", marks=pytest.mark.slow),
    ],
)
def test_no_step_waits_or_mixes_devices(count: Count, names: list[str]) -> None:
    found = count(names, batch=8)
    assert [one["model"] for one in found] == names
    assert {one["model"]: asked(one) for one in found if asked(one)} == {}


# Under autocast norms are wide; what comes of them is brought back to the map's type, and its
# gradient back to theirs.
CASTS = {"shuffle": 2, "ela": 3}


def test_an_attention_launches_no_more_than_its_plain_formulation(tmp_path: Path) -> None:
    null_device.build(tmp_path)
    lines = null_device.run(null_device.HERE / "count_blocks.py", [], tmp_path, timeout=900)
    found = [json.loads(line) for line in lines.splitlines()]
    assert {one["block"] for one in found} >= set(ATTENTIONS)
    for one in found:
        casts = CASTS.get(one["block"], 0) if one["precision"] == "torch.bfloat16" else 0
        assert 0 < one["ours"]["kernel"] <= one["plain"]["kernel"] + casts, one
        assert launches.total(one["ours"], "sync", "memcpy:H2D", "memcpy:D2H", "memcpy:any") == 0


def test_a_step_has_few_launches(count: Count) -> None:
    for one in count(list(MOST)):
        assert asked(one) == 0
        assert one["counts"]["kernel"] <= MOST[one["model"]], one["model"]


def test_a_step_is_one_launch_of_a_graph(count: Count) -> None:
    steps = count(list(MOST), cuda_graph="on")
    assert {one["counts"].get("GraphLaunch") for one in steps} == {1}
    for one in steps:  # what is left are the batch's: cropped, mixed, and copied to its place
        assert asked(one) == 0
        assert one["counts"]["kernel"] <= 40


@pytest.mark.parametrize(
    "changes",
    [{"precision": "fp16"}, {"precision": "fp16", "cuda_graph": "on"}, {"accumulate": 4}],
    ids=str,
)
def test_nor_does_one_in_fp16_or_in_parts(count: Count, changes: dict[str, object]) -> None:
    (one,) = count(["resnet20_se"], batch=16, **changes)
    assert asked(one) == 0
    assert one["counts"].get("GraphLaunch", 0) == ("cuda_graph" in changes)


def test_a_deterministic_step_launches_no_more(count: Count) -> None:
    """Unless PyTorch fills each new tensor first, which nobody reads."""
    usual, fixed = (count(["resnet20_se"], batch=16, deterministic=on) for on in (False, True))
    assert fixed[0]["counts"]["kernel"] == usual[0]["counts"]["kernel"]
    assert asked(fixed[0]) == 0


def test_a_median_has_a_deterministic_form(count: Count) -> None:
    model = "resnet20:attention={type: triplet, statistics: [avg, median]}"
    (one,) = count([model], batch=16, deterministic=True)
    assert one["counts"]["kernel"] > 0
    assert asked(one) == 0


AUGMENTED = {"random_resized_crop": {}, "trivial_augment": True, "random_erasing": 0.5}


def test_nor_do_augmentations_a_sample(count: Count) -> None:
    (plain,) = count(["resnet20"], batch=16, crop_padding=0)
    (one,) = count(["resnet20"], batch=16, crop_padding=0, **AUGMENTED)
    assert asked(one) == 0
    assert one["counts"]["kernel"] > plain["counts"]["kernel"] + 50  # they do take place


def test_images_that_a_gpu_does_not_hold_are_brought_without_a_wait(count: Count) -> None:
    (one,) = count(["resnet20"], batch=16, cuda_graph="off", streamed=True)
    assert one["counts"].get("memcpy:H2D", 0) <= 2  # the next batch's pixels, and no more
    assert launches.total(one["counts"], "sync", "memcpy:D2H", "memcpy:any") == 0


@pytest.mark.parametrize(
    ("optimizer", "graphs"), [("adamw", 1), ("adamp", 0), ("lamb", 0), ("lookahead_adamw", 0)]
)
def test_a_graph_never_keeps_an_old_learning_rate(
    count: Count, optimizer: str, graphs: int
) -> None:
    """Of an optimizer that takes its rate as a number, a graph would repeat the first one."""
    (one,) = count(["resnet20"], batch=16, optimizer=optimizer, cuda_graph="on")
    assert one["counts"].get("GraphLaunch", 0) == graphs
    assert (one["counts"]["kernel"] > 100) == (not graphs)
