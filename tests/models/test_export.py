"""Exports: what is written gives the network's outputs, and what cannot be written is said."""

import copy
import importlib.util
import json
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import timm
import torch
from huggingface_hub import ModelCard
from torch import Tensor, nn

from blocklab import create_model, list_models
from blocklab.blocks.protocol import mixed_by
from blocklab.errors import InputError, RunError
from blocklab.models.export import Exported, export_model
from blocklab.models.hub import Card, from_pretrained, save_pretrained
from blocklab.models.model_file import load_model, save_model
from blocklab.models.names import declared_params
from blocklab.models.spec import model_spec
from blocklab.models.use import set_use, use_of_run

TEN: dict[str, Any] = {"num_classes": 10}
# Each family, and each block in one of them; every named model is exported in the slow test.
ONE_EACH: dict[str, dict[str, Any]] = {
    "resnet20_sk": {
        "depths": (1, 1),
        "attention": [
            "se",
            "coordinate",
            "global_context",
            {"type": "triplet", "statistics": ["avg", "max", "median", "l1", "l2"]},
        ],
    },
    "res2net20_se": {"depths": (2,), "stem": "deep", "downsample": "avgpool"},
    "van_b0": {"depths": (1, 1), "widths": (16, 24), "ffn_ratios": (2, 2)},
    "replknet_31n": {"depths": (1, 1), "widths": (8, 16), "kernels": (31, 13)},
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def build(name: str, **slots: Any) -> Any:
    """Build a network whose norms do more than nothing, so that a lost one shows.

    Their statistics are those of a batch, as after training: with others, deep networks magnify
    float32's rounding until outputs are noise.
    """
    torch.manual_seed(0)
    model = create_model(name, **TEN, **slots)
    for key, value in model.state_dict().items():
        if value.ndim == 1 and key.endswith("bias"):
            value.normal_(0, 0.1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches, of which there is one
    with torch.no_grad():
        model.train()(torch.randn(8, 3, size_of(model), size_of(model)))
    return model.eval()


def size_of(model: Any) -> int:
    return 32 if model.config.native_size == 32 else 64


def assert_onnx_at_batch_3(path: Path, model: nn.Module, size: int, within: float = 1e-5) -> None:
    images = torch.randn(3, 3, size, size)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs: Any = session.run(None, {"images": images.numpy()})
    with torch.inference_mode():
        expected: Tensor = model(images)
    assert_close(torch.from_numpy(outputs[0]), expected, model, images, within)


def assert_close(
    outputs: Tensor, expected: Tensor, model: nn.Module, images: Tensor, within: float = 1e-5
) -> None:
    """Check the largest difference relative to the largest output.

    A deep network of random weights may magnify float32's rounding beyond `within`: then as far as
    it is itself from its outputs in float64, four times over.
    """
    found = relative(outputs, expected)
    if found >= within:
        with torch.inference_mode():
            exact = copy.deepcopy(model).double()(images.double())
        within = max(within, 4 * relative(expected.double(), exact))
    assert found < within, f"relative difference {found:.1e}, where {within:.1e} is rounding"


def relative(outputs: Tensor, expected: Tensor) -> float:
    return ((expected - outputs).abs().max() / expected.abs().max()).item()


def check_onnx(model: Any, folder: Path) -> None:
    size = size_of(model)
    before = copy.deepcopy(model.state_dict())
    done = export_model(model, folder / "model.onnx", "onnx", size)
    assert_onnx_at_batch_3(done.path, model, size)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def check_torch_export(model: Any, folder: Path) -> None:
    size = size_of(model)
    done = export_model(model, folder / "model.pt2", "torch_export", size)
    program = torch.export.load(done.path).module()
    images = torch.randn(5, 3, size, size)
    with torch.inference_mode():
        assert_close(program(images), model(images), model, images)


def check_hub_and_safetensors(model: Any, folder: Path) -> None:
    assert export_model(model, folder / "hub", "hub", size_of(model)).difference == 0
    assert export_model(model, folder / "m.safetensors", "safetensors").difference == 0


CHECKS = [check_onnx, check_torch_export, check_hub_and_safetensors]


@pytest.mark.parametrize("name", [name for name in ONE_EACH if name != "replknet_31n"])
def test_onnx_gives_the_same_at_another_batch(name: str, tmp_path: Path) -> None:
    check_onnx(build(name, **ONE_EACH[name]), tmp_path)


def test_both_forms_of_large_kernels_give_the_same(tmp_path: Path) -> None:
    model = build("replknet_31n", **ONE_EACH["replknet_31n"])
    done = export_model(model, tmp_path / "m.onnx", "onnx", 32, deploy=True)
    assert done.deployed
    assert_onnx_at_batch_3(done.path, model, 32, within=1e-4)
    graph = onnx.load(done.path).graph
    plain = export_model(model, tmp_path / "p.onnx", "onnx", 32).path
    assert_onnx_at_batch_3(plain, model, 32)
    assert len(graph.node) < len(onnx.load(plain).graph.node)


@pytest.mark.parametrize("name", ["van_b0"])
def test_torch_export_gives_the_same_at_another_batch(name: str, tmp_path: Path) -> None:
    check_torch_export(build(name, **ONE_EACH[name]), tmp_path)


@pytest.mark.parametrize("name", ONE_EACH)
def test_a_file_and_a_folder_give_the_same(name: str, tmp_path: Path) -> None:
    check_hub_and_safetensors(build(name, **ONE_EACH[name]), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_every_named_model_is_exported(name: str, tmp_path: Path) -> None:
    # Of the four largest (more than 400 million parameters) one block a stage.
    slots = {"depths": (1, 1, 1, 1)} if declared_params(name) > 400_000_000 else {}
    model = build(name, **slots)
    if mixed_by(model):  # which has no graph, as tests of its own say
        return
    for check in CHECKS:
        check(model, tmp_path)


def test_onnx_says_what_it_is(tmp_path: Path) -> None:
    model = build("resnet20", depths=(1,))
    names = [f"class {index}" for index in range(10)]
    done = export_model(model, tmp_path / "a" / "m.onnx", "onnx", class_names=names)
    assert done == Exported(done.path, "onnx", 32, False, done.difference, ("batch",))
    assert str(done).startswith(f"{tmp_path}/a/m.onnx (onnx, training form, 32x32 (free: batch); ")
    graph = onnx.load(done.path)
    about = json.loads({entry.key: entry.value for entry in graph.metadata_props}["blocklab"])
    assert about["class_names"] == names
    assert about["model"] == model_spec("resnet20", depths=(1,)).to_dict()
    batch = graph.graph.input[0].type.tensor_type.shape.dim[0]
    assert batch.dim_param == "batch"
    assert sorted(path.name for path in done.path.parent.iterdir()) == ["m.onnx"]


@pytest.mark.parametrize("format", ["safetensors", "hub"])
def test_merged_kernels_keep_their_names(format: Any, tmp_path: Path) -> None:
    model = build("replknet_31n", **ONE_EACH["replknet_31n"])
    done = export_model(model, tmp_path / "out", format, deploy=True)
    assert done.deployed
    loaded = load_model(done.path)
    assert any("lkb_reparam" in name for name in loaded.state_dict())
    assert not any("lkb_reparam" in name for name in model.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(model(images), loaded(images), rtol=1e-4, atol=1e-4)


def test_a_file_rebuilds_its_network(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = create_model("resnet20_se", num_classes=3, in_chans=1, attention="triplet")
    save_model(model, tmp_path / "m.safetensors", ["a", "b", "c"])
    loaded = load_model(tmp_path / "m.safetensors")
    assert loaded.config == model.config
    assert (loaded.num_classes, loaded.in_chans, loaded.training) == (3, 1, False)
    images = torch.randn(2, 1, 16, 24)
    with torch.inference_mode():
        assert torch.equal(loaded(images), model.eval()(images))


def test_a_hub_folder(tmp_path: Path) -> None:
    model = build("resnet20_se")
    names = [f"digit {index}" for index in range(10)]
    card = Card(
        name="resnet20_se on digits",
        dataset="digits",
        results={"test_top1_percent": 97.254, "test_top5_percent": 100.0},
        training={"recipe": "quick", "epochs": 3, "seed": 0},
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        license="apache-2.0",
    )
    save_pretrained(model, tmp_path / "hub", names, card)
    assert sorted(path.name for path in (tmp_path / "hub").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    config = json.loads((tmp_path / "hub" / "config.json").read_text())
    assert config["label_names"] == names
    assert config["pretrained_cfg"]["mean"] == [0.5, 0.5, 0.5]
    assert config["pretrained_cfg"]["input_size"] == [3, 32, 32]
    text = (tmp_path / "hub" / "README.md").read_text()
    assert "| top-1 accuracy (%) | 97.25 |" in text
    assert "| epochs | 3 |" in text
    data = ModelCard.load(tmp_path / "hub" / "README.md").data
    assert data.license == "apache-2.0"
    assert data.eval_results is not None
    assert [result.metric_value for result in data.eval_results] == [97.254, 100.0]
    images = torch.randn(2, 3, 32, 32)
    theirs = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    with torch.inference_mode():
        expected = model(images)
        assert torch.equal(from_pretrained(tmp_path / "hub")(images), expected)
        assert torch.equal(theirs(images), expected)
    assert timm.data.resolve_data_config(model=theirs)["mean"] == [0.5, 0.5, 0.5]
    other: Any = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True, num_classes=4)
    assert other.num_classes == 4
    assert torch.equal(other.conv1.weight, model.conv1.weight)
    features: Any = timm.create_model(
        f"local-dir:{tmp_path / 'hub'}", pretrained=True, features_only=True, out_indices=(0, 2)
    )
    assert [m.shape[1] for m in features(images)] == [16, 64]


def _bad(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    model = build("resnet20")
    if kind == "format":
        return export_model(model, folder / "m", "onx")  # type: ignore[arg-type]
    if kind == "size":
        return export_model(model, folder / "m.onnx", "onnx", 0)
    if kind == "size that a block cannot take":
        model = create_model("resnet20", in_chans=3, attention="se").eval()
        monkeypatch.setattr(type(model), "forward_head", _too_small)
        return export_model(model, folder / "m.onnx", "onnx", 8)  # type: ignore[arg-type]
    if kind == "parent is a file":
        (folder / "file").touch()
        return export_model(model, folder / "file" / "m.onnx", "onnx")
    if kind == "path is a folder":
        return export_model(model, folder, "torch_export")
    if kind == "hub is a file":
        (folder / "file").touch()
        return export_model(model, folder / "file", "hub")
    if kind == "class names":
        return export_model(model, folder / "m.safetensors", "safetensors", class_names=["one"])
    if kind == "no extras":
        found = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: None if "onnx" in name else found(name)
        )
        return export_model(model, folder / "m.onnx", "onnx")
    if kind == "pruned":
        model.prune_intermediate_layers(1)
        return export_model(model, folder / "m.safetensors", "safetensors")
    if kind == "results of nothing":
        return Card(results={"test_top1_percent": 3})
    if kind == "no folder":
        return from_pretrained(folder / "absent")
    if kind == "no file":
        return load_model(folder / "absent.safetensors")
    if kind == "not a file of ours":
        from safetensors.torch import save_file

        save_file(model.state_dict(), folder / "m.safetensors")
        return load_model(folder / "m.safetensors")
    assert kind == "damaged"
    (folder / "m.safetensors").write_bytes(b"<html>")
    return load_model(folder / "m.safetensors")


def _too_small(self: Any, x: Tensor, pre_logits: bool = False) -> Tensor:
    return torch.nn.functional.max_pool2d(x, 9)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("format", "no format 'onx'; formats: safetensors, onnx, torch_export, hub"),
        ("size", "input_size must be a positive number of pixels, .*, not 0"),
        ("size that a block cannot take", "cannot take images of 8x8 .* such as 32"),
        ("parent is a file", "cannot write into .*file: .*; name another path"),
        ("path is a folder", "is a folder; name a file in it"),
        ("hub is a file", "is a file; name a folder"),
        ("class names", "1 class names for 10 outputs; give one for each"),
        ("no extras", r"ONNX needs onnx, onnxscript, onnxruntime: pip install 'blocklab\[onnx\]'"),
        ("pruned", "pruned to some stages; take the whole one"),
        ("results of nothing", "give the card a dataset"),
        ("no folder", "has not both config.json and model.safetensors"),
        ("no file", "no file .*absent.safetensors; check the path"),
        ("not a file of ours", "does not say what network it holds; create that with"),
        ("damaged", "is damaged or no .safetensors file"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    kind: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        _bad(kind, tmp_path, monkeypatch)
    assert "\n" not in str(caught.value)


class _Unusual(nn.Module):
    """Passes its input on, by way of something that a graph or ONNX has not."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "branch":
            return x * 2 if x.sum().item() > 0 else x
        return x + torch.special.bessel_j0(x)


@pytest.mark.parametrize(
    ("kind", "format", "message"),
    [
        ("branch", "torch_export", r"cannot be traced \(.*\); export it as safetensors"),
        ("branch", "onnx", r"cannot be traced \(.*\); export it as safetensors"),
        ("bessel", "onnx", r"no form in ONNX \(.*bessel.*\); export it as torch_export"),
    ],
)
def test_blocks_that_are_no_graph(kind: str, format: Any, message: str, tmp_path: Path) -> None:
    model = build("resnet20", depths=(1,))
    model.layer1[0].attention = _Unusual(kind)
    with pytest.raises(RunError, match=message) as caught:
        export_model(model, tmp_path / "out", format)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_other_outputs_are_not_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("resnet20")
    monkeypatch.setattr("blocklab.models.export.load_model", lambda path: build("resnet20_se"))
    with pytest.raises(RunError, match=r"differ from the network's by .* it is taken away"):
        export_model(model, tmp_path / "new" / "m.safetensors", "safetensors")
    assert not list(tmp_path.iterdir())


def test_what_a_run_says_of_its_images_of_older_versions_too() -> None:
    said: dict[str, Any] = {"class_names": ["a", "b"], "image_size": 32}
    said |= {"data_mean": [0.1] * 3, "data_std": [0.2] * 3}
    said["definition"] = {"recipe": {}, "data": {"kept_size": 40}}
    model = build("resnet20")
    set_use(model, use_of_run(said), "a run")
    cfg = model.pretrained_cfg
    assert (cfg["mean"], cfg["std"], cfg["crop_pct"]) == ((0.1,) * 3, (0.2,) * 3, 0.8)
    said["definition"] = {"recipe": {"normalize": "half"}, "data": {}}
    assert (use_of_run(said)["mean"], use_of_run(said)["crop_pct"]) == ([0.5] * 3, 1.0)
    del said["image_size"]
    assert use_of_run(said) == {"class_names": ["a", "b"]}
