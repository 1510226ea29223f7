"""Checkpoints as programs write them: containers, wrappers' names, numbers beside tensors."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import blocklab
from blocklab.errors import InputError, RunError
from blocklab.files import file_sha256, write_checked_json

TINY = {"backbone": "resnet20", "widths": (4, 8, 8), "depths": (1, 1, 1)}


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return blocklab.create_model(TINY, num_classes=5)


class Holder(nn.Module):
    """A user's class with the network in it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.backbone = model


class WithHead(Holder):
    """A user's class that holds more than the network."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.projection = nn.Linear(5, 2)


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")  # type: ignore[return-value]


def holds_compiled(model: nn.Module) -> nn.Module:
    return Holder(compiled(model))


WRAPPERS: list[Callable[[nn.Module], nn.Module]] = [
    nn.DataParallel,
    AveragedModel,
    compiled,
    Holder,
    WithHead,
    holds_compiled,
    lambda model: nn.DataParallel(compiled(model)),
    lambda model: compiled(nn.DataParallel(Holder(model))),
]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_wrapped_network_loads_its_own_state_dict(wrap: Callable[..., nn.Module]) -> None:
    saved = wrap(network(1)).state_dict()
    model = wrap(network(0))
    report = blocklab.load_weights(model, saved)
    assert not report.problems()
    for name, value in saved.items():
        if name != "n_averaged":
            assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize("wrap", [w for w in WRAPPERS if w is not WithHead])
def test_wrapped_and_bare_networks_load_each_others(wrap: Callable[..., nn.Module]) -> None:
    one, bare = network(1), network(0)
    blocklab.load_weights(bare, wrap(copy.deepcopy(one)).state_dict())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), bare.parameters(), strict=True))
    wrapped = wrap(network(2))
    blocklab.load_weights(wrapped, one.state_dict())
    pairs = zip(one.parameters(), wrapped.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    "container",
    [
        *("state_dict", "model", "model_ema", "model_state_dict", "net", "module", "model_state"),
        *("network", "weights", "state_dict_ema"),
    ],
)
def test_containers_are_opened_and_named(container: str, tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    scalar = np.float64(76.5)  # best accuracies are often NumPy's
    torch.save({container: network(1).state_dict(), "best": scalar, "epoch": 3}, file)
    report = blocklab.load_weights(network(0), file)
    assert report.container == container
    assert f"tensors loaded from its '{container}'" in str(report)


def test_an_empty_average_gives_way_to_the_model() -> None:
    one, model = network(1), network(0)
    report = blocklab.load_weights(model, {"model_ema": {}, "model": one.state_dict()})
    assert report.container == "model"
    assert torch.equal(model.state_dict()["fc.bias"], one.state_dict()["fc.bias"])


def _renamed(rename: Callable[[str], str], **beside: Tensor) -> dict[str, Tensor]:
    return {rename(name): value for name, value in network(1).state_dict().items()} | beside


@pytest.mark.parametrize(
    "state",
    [
        _renamed(lambda name: f"head.{name}" if name.startswith("fc.") else f"backbone.{name}"),
        _renamed(
            lambda name: f"module.encoder_q.{name}",
            **{"module.encoder_k.fc.bias": torch.zeros(5), "module.queue": torch.zeros(4, 4)},
        ),
    ],
    ids=["mmpretrain", "MoCo"],
)
def test_names_of_other_programs(state: dict[str, Tensor]) -> None:
    one, model = network(1), network(0)
    blocklab.load_weights(model, {"state_dict": state})
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), model.parameters(), strict=True))


def test_a_state_dict_that_holds_itself_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["model"] = loop
    with pytest.raises(InputError, match="holds itself"):
        blocklab.load_weights(network(), loop)


def test_nothing_is_loaded_into_no_memory() -> None:
    state = network(1).state_dict()
    with torch.device("meta"):
        model = blocklab.create_model(TINY, num_classes=5)
    with pytest.raises(InputError, match="the model has no memory"):
        blocklab.load_weights(model, state)
    with pytest.raises(InputError, match="the state dict has no memory"):
        blocklab.load_weights(network(), model.state_dict())


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64], ids=str)
def test_a_cast_that_loses_values_is_refused(dtype: torch.dtype) -> None:
    state = network(1).state_dict()
    state["conv1.weight"] = (100 * state["conv1.weight"]).to(dtype)
    model = network(0)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=r"conv1\.weight is of torch"):
        blocklab.load_weights(model, state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_half_precision_is_loaded() -> None:
    state = {name: v.bfloat16() if v.ndim else v for name, v in network(1).state_dict().items()}
    model = network(0)
    blocklab.load_weights(model, state)
    assert torch.equal(model.state_dict()["fc.bias"], state["fc.bias"].float())


def test_weights_that_are_no_numbers_are_said() -> None:
    state = network(1).state_dict()
    state["fc.bias"][0] = float("nan")
    report = blocklab.load_weights(network(0), state)
    assert report.not_finite == ("fc.bias",)
    assert "1 not finite (fc.bias)" in str(report)


def test_a_flipped_bit_in_a_runs_weights_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({name: v.contiguous() for name, v in network(1).state_dict().items()}, file)
    files = {file.name: {"bytes": file.stat().st_size, "sha256": file_sha256(file)}}
    write_checked_json(tmp_path / "result.json", {"status": "finished", "files": files})
    blocklab.load_weights(network(0), tmp_path)
    content = bytearray(file.read_bytes())
    content[-3] ^= 0x40
    file.write_bytes(content)
    for source in (tmp_path, file):
        model = network(0)
        with pytest.raises(RunError, match="is damaged"):
            blocklab.load_weights(model, source)
