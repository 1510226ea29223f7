"""A run on two processes is the run on one: batches, gradients, BatchNorm, metrics, files."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from safetensors.torch import load_file
from timm.layers import BatchNormAct2d
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

import blocklab
from blocklab.blocks.plugins import load_plugin
from blocklab.data.spec import DataSpec
from blocklab.errors import InputError, RunError
from blocklab.models.spec import model_spec
from blocklab.training.device import available_cores
from blocklab.training.distributed import check_shares, launch
from blocklab.training.finished import FinishedRun
from blocklab.training.recipe import Recipe, load_recipe
from blocklab.training.run_definition import RunDefinition
from blocklab.training.sync_norm import (
    SyncBatchNorm1d,
    SyncBatchNorm2d,
    SyncBatchNormAct2d,
    synchronise_batchnorm,
)

needs_two_cores = pytest.mark.skipif(available_cores() < 2, reason="needs two cores")


PEAKS = """
from torch import distributed
from blocklab.training import run

run.peak_memory = lambda device: 1000 + distributed.get_rank()
"""


def _definition(**changes: Any) -> RunDefinition:
    """207 images in batches of 50: the last has 7, 3 for one process and 4 for the other."""
    fields: dict[str, Any] = {
        "epochs": 1,
        "batch_size": 50,
        "drop_last": False,
        "sync_batchnorm": True,
        "precision": "fp32",
        "lr": 0.002,
        "schedule": "constant",
        "test_every_epoch": True,
        "crop_padding": 2,
        "label_smoothing": 0.1,
        "clip_grad_norm": 10.0,
        "ema_decay": 0.5,
    }
    return RunDefinition(
        # A smooth activation: at ReLU's kink, rounding would turn whole gradients on and off.
        model_spec({"base": "resnet20", "activation": "gelu"}),
        DataSpec(source="digits", image_size=16, train_images=207, test_images=101),
        Recipe.parse({**fields, **changes}),
        0,
    )


def _log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@needs_two_cores
def test_an_epoch_on_two_processes_is_that_on_one(tmp_path: Path) -> None:
    definition = _definition()
    told: list[dict[str, Any]] = []
    steps: list[tuple[int, int]] = []
    one = launch(definition, tmp_path / "one", threads=1)
    second_takes_more = tmp_path / "peak.py"
    second_takes_more.write_text(f"{PEAKS}{UNUSED}")  # a plugin is a file with a block
    two = launch(
        definition,
        tmp_path / "two",
        devices=2,
        threads=1,
        plugins=[str(second_takes_more)],
        on_epoch=told.append,
        on_step=lambda *step: steps.append(step),
    )
    assert told == _log(two)
    assert steps[-1] == (5, 5)
    for name, value in _log(one)[0].items():
        if name.endswith(("_loss", "_percent")) and "overhead" not in name:
            assert told[0][name] == pytest.approx(value, rel=1e-5), name
    result = json.loads((two / "result.json").read_text())
    assert result["status"] == "finished"
    assert result["peak_memory_bytes"] == 1001, "that of the process that took most"
    assert json.loads((two / "run.json").read_text())["devices"] == 2
    weights = load_file(one / "model.safetensors")
    for name, tensor in load_file(two / "model.safetensors").items():
        if name.endswith("num_batches_tracked"):
            continue
        torch.testing.assert_close(tensor, weights[name], rtol=1e-3, atol=1e-5, msg=name)
    # A second command finds the run finished, with however many devices.
    assert launch(definition, tmp_path / "two", devices=2) == two


@needs_two_cores
@pytest.mark.slow
def test_processes_of_torchrun_join_and_judge_one_network(tmp_path: Path) -> None:
    """Without synchronised BatchNorm their running statistics differ: the first one's count."""
    changes = {"sync_batchnorm": False, "ema_decay": None}
    script = tmp_path / "join.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "from test_distributed import _definition, launch\n"
        f"launch(_definition(**{changes}), Path(sys.argv[1]), devices=2, threads=1)\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
        *("--master-port", str(port), str(script), str(tmp_path)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / _definition(**changes).hash
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "finished"
    again = FinishedRun.open(folder).evaluate()
    for name in ("test_loss", "test_top1_percent", "test_top5_percent"):
        assert result[name] == pytest.approx(again[name], rel=1e-5), name


@needs_two_cores
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"optimizer": "sdg"}, "no optimizer 'sdg'"),
        ({"cutout": 99}, "cutout 99 is more than"),
        ({"freeze": ["nosuch"]}, "nosuch"),
    ],
)
def test_what_is_wrong_is_said_before_any_process_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr("blocklab.training.distributed._start", None)
    with pytest.raises(InputError, match=said) as caught:
        launch(_definition(**change), tmp_path, devices=2, threads=1)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())  # nothing was measured


@needs_two_cores
def test_what_is_damaged_of_a_finished_run_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = launch(_definition(), tmp_path, threads=1)
    (folder / "predictions.npz").write_bytes(b"damaged")
    for part in ("_choose", "_start"):
        monkeypatch.setattr(f"blocklab.training.distributed.{part}", MagicMock())
    said: list[str] = []
    launch(_definition(), tmp_path, devices=2, threads=1, on_note=said.append)
    assert said == ["predictions.npz is damaged; it is trained anew"]


REFUSES = """
from blocklab.errors import InputError
from blocklab.training import run

def refuse(*_, **__):
    raise InputError("only a process knows")

run.prepare = refuse
"""


@needs_two_cores
@pytest.mark.slow
def test_what_fails_in_a_process_is_said_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "refuses.py").write_text(UNUSED + REFUSES)
    plugins = [str(tmp_path / "refuses.py")]
    with pytest.raises(InputError, match="only a process knows"):
        launch(_definition(), tmp_path, devices=2, threads=1, plugins=plugins)
    assert capfd.readouterr().err == ""


UNUSED = """
from torch import Tensor, nn
from blocklab import register_block

@register_block("half_used")
class HalfUsed(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.used, self.unused = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.used(x).sigmoid()
"""


@pytest.fixture
def half_used(tmp_path: Path, registry_as_it_was: None) -> Callable[..., RunDefinition]:
    """Runs of a network whose block, of the file `half_used.py`, has a parameter without a use."""
    block = tmp_path / "half_used.py"
    block.write_text(UNUSED)
    load_plugin(block)
    model = model_spec({"base": "resnet20", "attention": "half_used"})
    data = DataSpec(source="digits", train_images=64, test_images=20)

    def make(**changes: Any) -> RunDefinition:
        recipe = load_recipe("quick", {"epochs": 1, "batch_size": 16, **changes})
        return RunDefinition(model, data, recipe, 0)

    return make


@needs_two_cores
def test_a_block_that_never_uses_a_parameter_trains_on_two(
    half_used: Callable[..., RunDefinition], tmp_path: Path
) -> None:
    plugins = [str(tmp_path / "half_used.py")]
    folder = launch(half_used(), tmp_path, devices=2, threads=1, plugins=plugins)
    assert json.loads((folder / "result.json").read_text())["status"] == "finished"


@needs_two_cores
def test_parts_of_a_batch_add_up_on_two(
    half_used: Callable[..., RunDefinition], tmp_path: Path
) -> None:
    """Also where a parameter is never used, whose gradient nobody waits for."""
    plugins = [str(tmp_path / "half_used.py")]
    one = launch(half_used(), tmp_path, threads=1, plugins=plugins)  # whose epoch is that of two
    two = launch(half_used(accumulate=2), tmp_path, devices=2, threads=1, plugins=plugins)
    assert _log(two)[0]["train_loss"] == pytest.approx(_log(one)[0]["train_loss"], rel=0.05)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A process group of this process only."""
    store = distributed.HashStore()
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_synchronised_batchnorm_alone_is_batchnorm(
    dtype: torch.dtype, affine: bool, momentum: float | None
) -> None:
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(5, momentum=momentum, affine=affine)
    model = nn.Sequential(nn.BatchNorm2d(5, momentum=momentum, affine=affine), nn.ReLU())
    if affine:
        nn.init.uniform_(plain.weight)
        nn.init.uniform_(plain.bias)
    model[0].load_state_dict(plain.state_dict())
    assert synchronise_batchnorm(model, torch.device("cpu")) is model
    synced = model[0]
    assert type(synced) is SyncBatchNorm2d
    for _ in range(3):
        first = (7 + 3 * torch.randn(4, 5, 3, 6)).to(dtype).requires_grad_()
        second = first.detach().clone().requires_grad_()
        expected, found = plain(first), synced(second)
        assert found.dtype == dtype
        torch.testing.assert_close(found, expected)
        expected.square().sum().backward()
        found.square().sum().backward()
        torch.testing.assert_close(second.grad, first.grad, rtol=2e-2, atol=1e-3)
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(synced.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)
    plain.eval()
    synced.eval()
    images = torch.randn(4, 5, 3, 6)
    torch.testing.assert_close(synced(images), plain(images))


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("make", "shape", "kind"),
    [
        (lambda: nn.BatchNorm1d(5), (6, 5), SyncBatchNorm1d),
        (lambda: nn.BatchNorm1d(5), (4, 5, 3), SyncBatchNorm1d),
        (lambda: BatchNormAct2d(5, act_layer="silu"), (4, 5, 3, 6), SyncBatchNormAct2d),
    ],
)
def test_other_batchnorms_are_synchronised_too(
    make: Callable[[], nn.Module], shape: tuple[int, ...], kind: type[nn.Module]
) -> None:
    torch.manual_seed(0)
    plain, model = make(), nn.Sequential(make())
    synchronise_batchnorm(model, torch.device("cpu"))
    assert type(model[0]) is kind
    for training in (True, True, False):
        first = (7 + 3 * torch.randn(shape)).requires_grad_()
        second = first.detach().clone().requires_grad_()
        expected, found = plain.train(training)(first), model.train(training)(second)
        torch.testing.assert_close(found, expected)
        expected.square().sum().backward()
        found.square().sum().backward()
        torch.testing.assert_close(second.grad, first.grad, rtol=1e-3, atol=1e-5)
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(model[0].state_dict()[name], tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["timm:test_efficientnet", "timm:levit_128s", "resnet20"])
def test_no_batchnorm_of_a_network_is_left_to_its_own_images(name: str) -> None:
    with torch.device("meta"):
        model = blocklab.create_model(name, num_classes=4)
    synced = synchronise_batchnorm(model, torch.device("cpu"))
    norms = [part for part in synced.modules() if isinstance(part, _BatchNorm)]
    kinds = (SyncBatchNorm1d, SyncBatchNorm2d, SyncBatchNormAct2d)
    assert norms and all(type(part) in kinds for part in norms)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_norm_that_stands_twice_stays_one(device: str) -> None:
    """On CUDA they are PyTorch's, with timm's for one with an activation; nothing is moved here."""
    model = nn.ModuleDict({"a": nn.BatchNorm2d(4), "act": BatchNormAct2d(4)})
    model["b"] = nn.Sequential(model["a"], model["act"])
    values = {name: value.clone() for name, value in model.state_dict().items()}
    weight = model["a"].weight
    synced = synchronise_batchnorm(model, torch.device(device))
    assert synced is model and model["a"] is model["b"][0] and model["act"] is model["b"][1]
    kinds = (SyncBatchNorm2d, nn.SyncBatchNorm)
    assert isinstance(model["a"], kinds[device == "cuda"])
    assert not any(type(part) in (nn.BatchNorm2d, BatchNormAct2d) for part in model.modules())
    assert model["a"].weight is weight and model.state_dict().keys() == values.keys()


def test_a_batchnorm_of_its_own_kind_is_refused_by_name() -> None:
    class Own(nn.BatchNorm2d):
        pass

    model = nn.Sequential(nn.Conv2d(3, 4, 1), Own(4))
    with pytest.raises(InputError, match="cannot take 1, a Own, over several devices"):
        synchronise_batchnorm(model, torch.device("cpu"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 2}, "need a batch_size of 4 or more"),
        ({"batch_size": 34, "drop_last": False}, "last batch of 3 images"),
        ({"batch_size": 34, "mixup": 0.2}, "multiple of 4"),
    ],
)
def test_shares_that_are_too_small_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_shares(Recipe.parse(changes), 207, 2)


@pytest.mark.parametrize(
    ("devices", "nodes", "message"),
    [
        (0, 1, "1 or more"),
        (1, -1, "1 or more"),
        (available_cores() + 1, 1, "set --devices from 1 to"),
        (1, 2, "torchrun --nnodes 2 --nproc-per-node 1"),
    ],
)
def test_devices_that_are_not_there_are_refused(
    tmp_path: Path, devices: int, nodes: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        launch(_definition(), tmp_path, devices=devices, nodes=nodes)
    assert not list(tmp_path.iterdir())


def test_other_processes_than_asked_for_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match="4 processes were started for 1 nodes of 1 devices"):
        launch(_definition(), tmp_path)


@needs_two_cores
def test_a_run_that_began_on_one_device_goes_on_on_one(tmp_path: Path) -> None:
    definition = _definition(epochs=2)

    def stop(_: object) -> None:
        raise RunError("enough")

    with pytest.raises(RunError, match="enough"):
        launch(definition, tmp_path, threads=1, on_epoch=stop)
    with pytest.raises(InputError, match="began on 1 devices, not 2"):
        launch(definition, tmp_path, devices=2)
    assert os.environ.get("LOCAL_RANK") is None
