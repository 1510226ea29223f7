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

Counts = Callable[..., list[dict[str, Any]]]
Steps = dict[str, dict[str, Any]]
MOST = {"resnet18": 330, "resnet50_triplet": 2000, "res2net50_celu_cd_st": 3600}


def small(model: str = "resnet20", **recipe: object) -> dict[str, Any]:
    return launches.step(model, recipe, 16, 32)


MEDIAN = "resnet20:attention={type: triplet, statistics: [avg, median]}"
AUGMENTED = {"random_resized_crop": {}, "trivial_augment": True, "random_erasing": 0.5}
OPTIMIZERS = {"adamw": 1, "adamp": 0, "lamb": 0, "lookahead_adamw": 0}  # name -> its graphs
# Steps that are counted together, by one process: PyTorch takes seconds to import.
STEPS = {
    "fp16": small("resnet20_se", precision="fp16"),
    "fp16 as a graph": small("resnet20_se", precision="fp16", cuda_graph="on"),
    "in parts": small("resnet20_se", accumulate=4),
    "usual": small("resnet20_se"),
    "deterministic": small("resnet20_se", deterministic=True),
    "median": small(MEDIAN, deterministic=True),
    "plain": small(crop_padding=0),
    "augmented": small(crop_padding=0, **AUGMENTED),
    "streamed": small(cuda_graph="off", streamed=True),
    **{name: small(optimizer=name, cuda_graph="on") for name in OPTIMIZERS},
    **{model: launches.step(model, {}, 128, 32) for model in MOST},
    **{
        f"{model} as a graph": launches.step(model, {"cuda_graph": "on"}, 128, 32) for model in MOST
    },
}


@pytest.fixture(scope="module")
def count(tmp_path_factory: pytest.TempPathFactory) -> Counts:
    built = tmp_path_factory.mktemp("null_cuda")
    null_device.build(built)

    def counts(*names: str) -> list[dict[str, Any]]:
        return launches.counted([launches.step(name, {}, 8, 32) for name in names], built)

    return counts


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Steps:
    """The counts of each of `STEPS`."""
    built = tmp_path_factory.mktemp("null_cuda")
    null_device.build(built)
    return dict(zip(STEPS, launches.counted(list(STEPS.values()), built), strict=True))


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
def test_no_step_waits_or_mixes_devices(count: Counts, names: list[str]) -> None:
    found = count(*names)
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


@pytest.mark.parametrize("model", MOST)
def test_a_step_has_few_launches(steps: Steps, model: str) -> None:
    assert asked(steps[model]) == 0
    assert steps[model]["counts"]["kernel"] <= MOST[model]


@pytest.mark.parametrize("model", MOST)
def test_a_step_is_one_launch_of_a_graph(steps: Steps, model: str) -> None:
    one = steps[f"{model} as a graph"]
    assert one["counts"].get("GraphLaunch") == 1
    assert asked(one) == 0  # what is left are the batch's: cropped, mixed, and copied to its place
    assert one["counts"]["kernel"] <= 40


@pytest.mark.parametrize("name", ["fp16", "fp16 as a graph", "in parts"])
def test_nor_does_one_in_fp16_or_in_parts(steps: Steps, name: str) -> None:
    assert asked(steps[name]) == 0
    assert steps[name]["counts"].get("GraphLaunch", 0) == ("graph" in name)


def test_a_deterministic_step_launches_no_more(steps: Steps) -> None:
    """Unless PyTorch fills each new tensor first, which nobody reads."""
    usual, fixed = steps["usual"], steps["deterministic"]
    assert fixed["counts"]["kernel"] == usual["counts"]["kernel"]
    assert asked(fixed) == 0


def test_a_median_has_a_deterministic_form(steps: Steps) -> None:
    assert steps["median"]["counts"]["kernel"] > 0
    assert asked(steps["median"]) == 0


def test_nor_do_augmentations_a_sample(steps: Steps) -> None:
    plain, one = steps["plain"], steps["augmented"]
    assert asked(one) == 0
    assert one["counts"]["kernel"] > plain["counts"]["kernel"] + 50  # they do take place


def test_images_that_a_gpu_does_not_hold_are_brought_without_a_wait(steps: Steps) -> None:
    counts = steps["streamed"]["counts"]
    assert launches.total(counts, "memcpy:H2D") == 1  # the next batch's pixels
    assert launches.total(counts, "bytes:H2D") == 16 * 3 * 32 * 32
    assert launches.total(counts, "sync", "memcpy:D2H", "memcpy:any") == 0


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_graph_never_keeps_an_old_learning_rate(steps: Steps, optimizer: str) -> None:
    """Of an optimizer that takes its rate as a number, a graph would repeat the first one."""
    one, graphs = steps[optimizer], OPTIMIZERS[optimizer]
    assert one["counts"].get("GraphLaunch", 0) == graphs
    assert (one["counts"]["kernel"] > 100) == (not graphs)
