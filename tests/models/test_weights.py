"""Where weights are read from, what is refused, and what a refusal says."""

import argparse
import copy
import os
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from blocklab import LoadReport, create_model, load_weights
from blocklab.errors import InputError

TEN: dict[str, Any] = {"num_classes": 10}


def assert_equal_states(one: nn.Module, other: nn.Module) -> None:
    expected, got = one.state_dict(), other.state_dict()
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        assert torch.equal(value, got[name]), name


@pytest.mark.parametrize("kind", ["folder", "unfinished", "safetensors", "ckpt", "pth", "pth.tar"])
def test_files_and_run_folders(kind: str, tmp_path: Path) -> None:
    model = create_model("resnet20_se", **TEN)
    averaged = {f"module.{name}": value for name, value in model.state_dict().items()}
    checkpoint = {
        "model": create_model("resnet20_se", **TEN).state_dict(),
        "average": {"n_averaged": torch.tensor(7), **averaged},
        "args": argparse.Namespace(lr=0.1),
        "epochs_done": 2,
    }
    given = tmp_path / "last.ckpt"
    if kind in ("folder", "safetensors"):
        save_file(model.state_dict(), tmp_path / "model.safetensors")
        given.write_bytes(b"not read")
    elif kind in ("unfinished", "ckpt"):
        torch.save(checkpoint, given)
    else:
        given = tmp_path / f"weights.{kind}"
        torch.save({"state_dict": averaged}, given)
    if kind in ("folder", "unfinished"):
        given = tmp_path
    elif kind == "safetensors":
        given = tmp_path / "model.safetensors"
    loaded = create_model("resnet20_se", **TEN)
    report = load_weights(loaded, str(given))
    assert report.source == "ResNet with blocks (blocklab)"
    assert set(report.loaded) == model.state_dict().keys()
    assert_equal_states(model, loaded)


def test_a_run_without_averaging_keeps_its_model(tmp_path: Path) -> None:
    model = create_model("resnet20", **TEN).eval()
    torch.save({"model": model.state_dict(), "average": None}, tmp_path / "last.ckpt")
    loaded = create_model("resnet20", **TEN)
    load_weights(loaded, tmp_path)
    assert_equal_states(model, loaded)


def test_weights_older_than_the_count_of_batches() -> None:
    state = torchvision.models.resnet18(**TEN).state_dict()
    state = {name: v for name, v in state.items() if not name.endswith("num_batches_tracked")}
    assert not load_weights(create_model("resnet18", **TEN), state).problems()


def test_features_only_takes_the_whole_networks_weights() -> None:
    model: Any = create_model("resnet20", **TEN).eval()
    features: Any = create_model("resnet20", **TEN, features_only=True).eval()
    load_weights(features, model.state_dict())
    with torch.inference_mode():
        images = torch.randn(2, 3, 16, 24)
        assert torch.equal(model.forward_features(images), features(images)[-1])


def test_a_head_of_other_classes() -> None:
    state = create_model("resnet20", num_classes=7).state_dict()
    model = create_model("resnet20", **TEN)
    before = copy.deepcopy(model)
    with pytest.raises(InputError, match=r"head has 7 classes, the model's 10.*num_classes=7"):
        load_weights(model, state)
    assert_equal_states(before, model)
    report = load_weights(model, state, strict=False)
    assert report.mismatched == ("fc.weight", "fc.bias")
    assert report.missing == report.unexpected == ()
    assert torch.equal(model.state_dict()["fc.weight"], before.state_dict()["fc.weight"])
    assert torch.equal(model.state_dict()["conv1.weight"], state["conv1.weight"])
    with pytest.raises(InputError, match=r"head has 7 classes, the model's none"):
        load_weights(create_model("resnet20", num_classes=0), state)
    headless = create_model("resnet20", num_classes=0).state_dict()
    with pytest.raises(InputError, match="has no head"):
        load_weights(model, headless)


def test_what_does_not_fit_is_named() -> None:
    state = create_model("resnet20_se", **TEN).state_dict()
    state["extra.weight"] = torch.zeros(3)
    state["conv1.weight"] = torch.zeros(16, 1, 3, 3)
    del state["bn1.bias"]
    model = create_model("resnet20_se", **TEN)
    before = copy.deepcopy(model)
    with pytest.raises(InputError) as caught:
        load_weights(model, state)
    message = str(caught.value)
    assert "\n" not in message
    assert "1 missing (bn1.bias), 1 left over (extra.weight), 1 of another shape" in message
    assert "conv1.weight: (16, 1, 3, 3) for (16, 3, 3, 3)" in message
    assert "strict=False" in message
    assert_equal_states(before, model)
    report = load_weights(model, state, strict=False)
    assert (report.missing, report.unexpected) == (("bn1.bias",), ("extra.weight",))
    assert report.mismatched == ("conv1.weight",)


def test_many_names_are_counted_and_the_first_shown() -> None:
    state = timm.create_model("seresnet18", **TEN).state_dict()
    with pytest.raises(
        InputError, match=r"\d\d left over \(layer1\.0\.se\.fc1\.weight, .*\.\.\.\)"
    ):
        load_weights(create_model("resnet18", **TEN), state)


@pytest.mark.parametrize("strict", [True, False])
def test_nothing_that_fits_is_always_refused(strict: bool) -> None:
    state = torch.nn.Sequential(nn.Linear(3, 4)).state_dict()
    with pytest.raises(InputError, match="none of its 2 tensors fits"):
        load_weights(create_model("resnet20", **TEN), state, strict=strict)


def test_a_report_in_one_line() -> None:
    report = LoadReport("RepLKNet", ("a", "b"), ("c",), ("d", "e", "f", "g"), ())
    assert str(report) == (
        "RepLKNet: 2 of 3 tensors loaded, 1 missing (c), 4 left over (d, e, f, ...)"
    )


class _RunsCode:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def _write_bad_file(kind: str, folder: Path) -> Path:
    path = folder / ("bad.safetensors" if "safetensors" in kind else "bad.pth")
    state = create_model("resnet20", **TEN).state_dict()
    if kind == "truncated safetensors":
        save_file(state, path)
        path.write_bytes(path.read_bytes()[:50_000])
    elif kind == "truncated":
        torch.save(state, path)
        path.write_bytes(path.read_bytes()[:50_000])
    elif kind == "text":
        path.write_text("<html>404 not found</html>")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "code":
        torch.save({"state_dict": state, "more": _RunsCode(folder / "ran")}, path)
    elif kind == "list":
        torch.save([1, 2], path)
    elif kind == "no tensors":
        torch.save({"epoch": 3}, path)
    elif kind == "no checkpoint in the folder":
        return folder
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no file .*bad.pth; check the path"),
        ("truncated", "damaged"),
        ("truncated safetensors", "damaged"),
        ("text", "damaged or no checkpoint"),
        ("empty", "damaged or no checkpoint"),
        ("code", r"holds a Python object \(.*mkdir\)"),
        ("list", "holds a list"),
        ("no tensors", "holds no tensors"),
        ("no checkpoint in the folder", "neither model.safetensors nor last.ckpt"),
    ],
)
def test_bad_files_are_refused_in_one_line(kind: str, message: str, tmp_path: Path) -> None:
    path = _write_bad_file(kind, tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        load_weights(create_model("resnet20", **TEN), path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_other_things_are_refused() -> None:
    with pytest.raises(InputError, match="not a ResNet"):
        load_weights(create_model("resnet20"), create_model("resnet20"))  # type: ignore[arg-type]


def test_an_old_file_whose_tensors_name_others_is_refused(tmp_path: Path) -> None:
    model, path = create_model("resnet20", num_classes=10), tmp_path / "old.pth"
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    found = re.search(rb"\d{9,}", content)  # the first tensor's key
    assert found is not None
    key = found[0]
    path.write_bytes(content.replace(key, key[:-1] + (b"1" if key[-1:] != b"1" else b"2"), 1))
    with pytest.raises(InputError, match=r"is damaged or no checkpoint"):
        load_weights(model, path)
