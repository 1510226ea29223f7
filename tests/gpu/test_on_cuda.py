"""Training and using networks on a GPU that computes: bits, waits, precisions, memory, exports."""

import copy
from pathlib import Path
from typing import Any

import gpu_steps
import pytest
import torch

from blocklab import create_model
from blocklab.data.spec import DataSpec
from blocklab.execution.verify import compare_runs
from blocklab.measure.numerics import arithmetic
from blocklab.measure.speed import bench
from blocklab.models.deploy import deploy
from blocklab.models.export import export_model
from blocklab.models.spec import model_spec
from blocklab.training.autotune import choose
from blocklab.training.distributed import launch
from blocklab.training.recipe import Recipe
from blocklab.training.run import execute_run
from blocklab.training.run_definition import RunDefinition
from blocklab.training.run_reader import RunReader
from blocklab.training.step import TrainingStep
from blocklab.training.workload import Workload

pytestmark = pytest.mark.cuda

FAMILIES = ["resnet20_se", "resnet50_triplet", "res2net50_celu_cd_st", "skresnet18", "van_b0"]
FAMILIES += ["van_b0_replk"]
TINY = "resnet20:widths=[4,4,8],depths=[1,1,1]"


def definition(**changes: Any) -> RunDefinition:
    fields = {"epochs": 3, "batch_size": 16, "lr": 0.05, "deterministic": True, **changes}
    data = DataSpec.parse({"source": "digits", "train_images": 96, "test_images": 40})
    return RunDefinition(model_spec(TINY), data, Recipe.parse(fields), 0)


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precisions_learn(precision: str, mode: str) -> None:
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("this GPU has no bf16")
    plain = {"mixup": 0.0, "cutout": 0, "crop_padding": 0, "flip": False, "label_smoothing": 0.0}
    recipe = gpu_steps.recipe_of(32, 40, precision=precision, **plain)
    state, records = gpu_steps.train("resnet20", recipe, mode, gpu_steps.made_up(64, 32))
    losses = [record["train_loss"] for record in records]
    assert losses[-1] < losses[0] / 2, "it learns 64 images by heart"
    assert all(parameter.dtype == torch.float32 for parameter in state.model.parameters())
    assert ("loss_scale" in records[-1]) == (precision == "fp16")


@pytest.mark.parametrize("model", FAMILIES)
def test_a_graph_gives_the_weights_of_eager_steps(model: str) -> None:
    one, other = (gpu_steps.weights_after(model, mode, 32, 20, 32) for mode in ("eager", "graph"))
    assert gpu_steps.differing(one, other) == []


@pytest.mark.parametrize("model", FAMILIES)
def test_two_deterministic_runs_have_the_same_bits(model: str) -> None:
    one, other = (gpu_steps.weights_after(model, "eager", 32, 6, 32) for _ in range(2))
    assert gpu_steps.differing(one, other) == []


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("model", FAMILIES)
def test_no_step_waits(model: str, mode: str) -> None:
    assert gpu_steps.waits_in_a_step(model, mode, 32, 32) is None


def test_nor_does_a_step_in_fp16() -> None:
    assert gpu_steps.waits_in_a_step("resnet20_se", "eager", 32, 32, precision="fp16") is None


def test_a_wait_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests above would say of one."""
    update = TrainingStep._update

    def waiting(step: TrainingStep) -> None:
        float(step.loss_sum)
        update(step)

    monkeypatch.setattr(TrainingStep, "_update", waiting)
    assert "synchronizing" in (gpu_steps.waits_in_a_step("resnet20", "eager", 32, 32) or "")


@pytest.mark.parametrize(
    "changes", [{"cuda_graph": "on"}, {"ema_decay": 0.9}, {"precision": "fp16"}], ids=str
)
def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, changes: dict[str, Any]) -> None:
    def stop(record: dict[str, Any]) -> None:
        if record["epoch"] == 1:
            raise KeyboardInterrupt

    run = definition(**changes)
    whole = execute_run(run, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        execute_run(run, tmp_path / "stopped", on_epoch=stop)
    resumed = execute_run(run, tmp_path / "stopped")
    assert compare_runs(RunReader(whole), RunReader(resumed))[0] is None


def test_batchnorm_over_two_gpus_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("this machine has one GPU")
    run = definition(sync_batchnorm=True, precision="fp32", epochs=1)
    one = RunReader(execute_run(run, tmp_path / "one")).weights()
    two = RunReader(launch(run, tmp_path / "two", devices=2)).weights()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_measuring_gives_its_memory_back() -> None:
    before = torch.cuda.memory_allocated()
    bench("resnet20", 32, 16, rounds=1, compiled=False)
    assert torch.cuda.memory_allocated() <= before
    recipe = gpu_steps.recipe_of(32, 100)
    work = Workload(model_spec("resnet20"), recipe, 32, 100, 32 * 100, 1)
    choose(work, gpu_steps.setup_of(recipe, "eager").precision)
    assert torch.cuda.memory_allocated() <= before + (1 << 20)


@pytest.mark.parametrize("model", FAMILIES)
def test_a_deployed_network_is_the_model(model: str) -> None:
    torch.manual_seed(0)
    network = create_model(model, num_classes=10).cuda()
    images = torch.randn(4, 3, 64, 64, device="cuda")
    with torch.no_grad(), arithmetic(images.device, deterministic=True):  # without TF32
        network.train()(images)  # running statistics of its own
        outputs = network.eval()(images)
        deployed = deploy(network, 64)(images)
    scale = outputs.abs().max()
    torch.testing.assert_close(deployed / scale, outputs / scale, rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize("model", ["resnet20_se", "van_b0_replk"])
def test_what_is_exported_from_a_gpu_is_the_model(model: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = create_model(model, num_classes=10).cuda().eval()
    path = tmp_path / "network.pt2"
    export_model(network, path, "torch_export", 32)
    images = torch.randn(3, 3, 32, 32)
    program: Any = torch.export.load(path).module()
    with torch.no_grad():
        wanted = copy.deepcopy(network).cpu()(images)
        found = program(images)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    assert next(network.parameters()).is_cuda, "the network stays where it was"
