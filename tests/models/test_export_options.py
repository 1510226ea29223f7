"""Exports by option: free axes, opset, half precision, normalisation; what they say and replace."""

import json
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import blocklab
from blocklab import create_model
from blocklab.errors import InputError
from blocklab.models.deploy import deploy
from blocklab.models.expected_images import normalisation_of
from blocklab.models.export import export_model
from blocklab.models.hub import Card, from_pretrained, save_pretrained
from blocklab.models.model_file import KEY, load_model, read_description, save_model
from blocklab.models.spec import model_spec

MEAN, STD = (0.3, 0.4, 0.5), (0.2, 0.25, 0.3)
OURS = Card(mean=MEAN, std=STD)
ANY: dict[str, Any] = {"dynamic": ("batch", "height", "width")}
SIZES = ((1, 40, 72), (3, 64, 48), (3, 33, 57))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return create_model("resnet20_se", num_classes=4, depths=(1, 1)).eval()


def run_onnx(path: Path, images: Tensor) -> list[Tensor]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs: Any = session.run(None, {"images": images.numpy()})
    return [torch.from_numpy(output) for output in outputs]


def run_pt2(path: Path, images: Tensor) -> list[Tensor]:
    outputs = torch.export.load(path).module()(images)
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


RUN = {"onnx": run_onnx, "torch_export": run_pt2}


def onnx_metadata(path: Path) -> dict[str, Any]:
    entries = onnx.load(path).metadata_props
    return json.loads({entry.key: entry.value for entry in entries}[KEY])


def pt2_metadata(path: Path) -> dict[str, Any]:
    extra = {"blocklab.json": ""}
    torch.export.load(path, extra_files=extra)
    return json.loads(extra["blocklab.json"])


ABOUT = {"onnx": onnx_metadata, "torch_export": pt2_metadata, "safetensors": read_description}


@torch.inference_mode()
def assert_gives(got: list[Tensor], expected: Any, within: float = 1e-5) -> None:
    expected = [expected] if isinstance(expected, Tensor) else list(expected)
    assert [one.shape for one in got] == [one.shape for one in expected]
    for one, other in zip(got, expected, strict=True):
        assert ((one - other).abs().max() / other.abs().max()).item() < within


# ONNX's exporter begins with the graph that torch_export writes.
@pytest.mark.parametrize("format", ["onnx", pytest.param("torch_export", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "slots",
    [
        {"base": "van_b0", "depths": (1, 1), "widths": (8, 16), "ffn_ratios": (2, 2)},
        {
            "base": "resnet20",
            "depths": (1, 1),
            "attention": {"type": "triplet", "statistics": ["median", "l2"]},
            "mixer": "selective_kernel",
        },
    ],
)
def test_height_and_width_are_free(format: Any, slots: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model(slots, num_classes=4).eval()
    done = export_model(model, tmp_path / "m", format, (64, 96), **ANY)
    assert done.dynamic == ("batch", "height", "width") and done.input_size == (64, 96)
    for size in SIZES:
        images = torch.randn(size[0], 3, *size[1:])
        with torch.inference_mode():
            assert_gives(RUN[format](done.path, images), model(images))


def test_axes_have_names(model: Any, tmp_path: Path) -> None:
    def axes(name: str, dynamic: tuple[str, ...] | None) -> list[Any]:
        path = tmp_path / name
        export_model(model, path, "onnx", (16, 24), dynamic=dynamic)
        graph = onnx.load(path).graph
        shapes = [value.type.tensor_type.shape for value in (graph.input[0], graph.output[0])]
        return [[axis.dim_param or axis.dim_value for axis in shape.dim] for shape in shapes]

    assert axes("a", None) == [["batch", 3, 16, 24], ["batch", 4]]
    assert axes("b", ("width", "batch")) == [["batch", 3, 16, "width"], ["batch", 4]]
    assert axes("c", ()) == [[1, 3, 16, 24], [1, 4]]


def test_the_opset_is_chosen(model: Any, tmp_path: Path) -> None:
    for opset in (18, 21):
        done = export_model(model, tmp_path / f"{opset}", "onnx", opset=opset)
        assert [one.version for one in onnx.load(done.path).opset_import if not one.domain] == [
            opset
        ]


@pytest.mark.parametrize("format", RUN)
def test_a_graph_normalises_inside(model: Any, format: Any, tmp_path: Path) -> None:
    done = export_model(
        model, tmp_path / "m", format, (16, 24), card=OURS, normalized=True, deploy=True
    )
    assert "normalises inside" in str(done)
    pixels = torch.rand(3, 3, 16, 24)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    with torch.inference_mode():
        assert_gives(RUN[format](done.path, pixels), model((pixels - mean) / std))
    assert ABOUT[format](done.path)["normalizes"] is True


@pytest.mark.parametrize("format", RUN)
def test_half_precision_takes_and_gives_floats(model: Any, format: Any, tmp_path: Path) -> None:
    plain = export_model(model, tmp_path / "plain", format)
    done = export_model(model, tmp_path / "half", format, fp16=True)
    assert done.fp16 and 0 < done.difference < 1e-2
    assert done.path.stat().st_size < plain.path.stat().st_size
    images = torch.randn(3, 3, 32, 32)
    (logits,) = RUN[format](done.path, images)
    assert logits.dtype == torch.float32
    with torch.inference_mode():
        assert_gives([logits], model(images), within=1e-2)


@pytest.mark.parametrize("format", ["safetensors", "hub"])
def test_tensors_in_half_precision(model: Any, format: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    done = export_model(model, tmp_path / "m", format, fp16=True)
    file = done.path / "model.safetensors" if format == "hub" else done.path
    assert load_file(file)["conv1.weight"].dtype == torch.float16
    loaded: Any = load_model(done.path)
    assert torch.equal(loaded.conv1.weight, model.conv1.weight.half().float())


@pytest.mark.parametrize("format", ["onnx", "torch_export", "safetensors"])
def test_files_say_what_goes_in(model: Any, format: Any, tmp_path: Path) -> None:
    names = ["a", "b", "c", "d"]
    done = export_model(model, tmp_path / "m", format, (16, 24), class_names=names, card=OURS)
    about = ABOUT[format](done.path)
    assert about["mean"] == list(MEAN) and about["std"] == list(STD)
    assert about["input_size"] == [16, 24] and about["class_names"] == names
    assert about.get("normalizes", False) is False


def test_what_is_loaded_knows_what_goes_in(model: Any, tmp_path: Path) -> None:
    save_model(model, tmp_path / "m.safetensors", list("abcd"), (16, 24), MEAN, STD)
    save_pretrained(model, tmp_path / "hub", list("abcd"), OURS, (16, 24))
    for loaded in (load_model(tmp_path / "m.safetensors"), from_pretrained(tmp_path / "hub")):
        cfg = loaded.pretrained_cfg
        assert (cfg["mean"], cfg["std"], cfg["input_size"]) == (MEAN, STD, (3, 16, 24))
        assert cfg["label_names"] == list("abcd")
        assert timm.data.resolve_data_config(model=loaded)["mean"] == MEAN
        # It is what the next export says.
        done = export_model(loaded, tmp_path / "again.onnx", "onnx", normalized=True)
        assert done.input_size == (16, 24)
        assert onnx_metadata(done.path)["mean"] == list(MEAN)
    theirs: Any = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    assert tuple(timm.data.resolve_data_config(model=theirs)["input_size"]) == (3, 16, 24)
    with torch.inference_mode():
        images = torch.randn(3, 3, 16, 24)
        assert torch.equal(theirs(images), model(images))


def test_what_weights_say_is_what_the_next_export_says(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_model(model, path, list("abcd"), (16, 24), MEAN, STD)
    again: Any = create_model("resnet20_se", 4, depths=(1, 1), pretrained=path)
    cfg = again.pretrained_cfg
    assert (cfg["mean"], cfg["std"], cfg["input_size"]) == (MEAN, STD, (3, 16, 24))
    done = export_model(again, tmp_path / "again.onnx", "onnx", normalized=True)
    said = onnx_metadata(done.path)
    assert said["mean"] == list(MEAN) and said["class_names"] == list("abcd")
    assert said["input_size"] == [16, 24]
    # Names are of a head, and means of channels.
    save_model(again, tmp_path / "again.safetensors")
    assert load_model(tmp_path / "again.safetensors").pretrained_cfg["label_names"] == list("abcd")
    again.reset_classifier(4)
    done = export_model(again, tmp_path / "b", "safetensors")
    assert read_description(done.path)["class_names"] == []
    for other in ({"head": "fresh"}, {"first_conv": "adapt", "in_chans": 1, "head": "fresh"}):
        loaded: Any = create_model("resnet20_se", 4, depths=(1, 1), pretrained=path, **other)
        cfg = loaded.pretrained_cfg
        assert "label_names" not in cfg
        assert (cfg["mean"] == MEAN) is (other.get("in_chans") is None)


def test_a_hub_folder_of_other_channels_is_read_back(tmp_path: Path) -> None:
    model = create_model("resnet20", 4, in_chans=1).eval()
    export_model(model, tmp_path, "hub")
    cfg = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
    assert "mean" not in cfg and "std" not in cfg  # ImageNet's are of three
    x = torch.randn(2, 1, 32, 32)
    assert torch.equal(from_pretrained(tmp_path)(x), model(x))
    export_model(model, tmp_path, "hub", card=Card(mean=[0.5], std=[0.25]))
    assert from_pretrained(tmp_path).pretrained_cfg["mean"] == (0.5,)


def test_a_part_without_tensors_that_was_changed_is_refused(model: Any, tmp_path: Path) -> None:
    for part in model.modules():
        if hasattr(part, "act"):
            part.act = nn.GELU()
    for write, place in ((save_model, tmp_path / "m"), (save_pretrained, tmp_path)):
        with pytest.raises(InputError, match="computes something else than its specification"):
            write(model, place)
    assert not list(tmp_path.iterdir())


def test_what_a_file_says_of_itself_is_no_traceback(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    usual: dict[str, Any] = {"model": "resnet20", "num_classes": 4, "in_chans": 3}
    for said in ("[" * 100_000 + "]" * 100_000, json.dumps(usual), '{"model": 3}'):
        save_file(model.state_dict(), path, metadata={KEY: said})
        with pytest.raises(InputError):
            load_model(path)
        assert normalisation_of(path) is None
    usual["model"] = model_spec("resnet20_se", depths=(1, 1)).to_dict()
    save_file(model.state_dict(), path, metadata={KEY: json.dumps(usual | {"class_names": 5})})
    assert "label_names" not in load_model(path).pretrained_cfg


def test_config_json_is_what_counts(model: Any, tmp_path: Path) -> None:
    save_pretrained(model, tmp_path, card=OURS)
    config = json.loads((tmp_path / "config.json").read_text())
    config["pretrained_cfg"]["mean"] = [0.1, 0.2, 0.3]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert from_pretrained(tmp_path).pretrained_cfg["mean"] == (0.1, 0.2, 0.3)
    for bad in ("[]", "{", '{"pretrained_cfg": 3}', '{"pretrained_cfg": {"mean": [1]}}'):
        (tmp_path / "config.json").write_text(bad)
        with pytest.raises(InputError, match=r"config.json.*; export the network again"):
            from_pretrained(tmp_path)


@pytest.mark.parametrize("format", ["onnx", "torch_export", "safetensors", "hub"])
def test_random_states_are_as_before(model: Any, format: Any, tmp_path: Path) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]
    export_model(model, tmp_path / "m", format)
    if format in ("safetensors", "hub"):
        load_model(tmp_path / "m")
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # type: ignore[index]
    assert random.getstate() == states[2]


@pytest.mark.parametrize("format", RUN)
def test_no_path_of_this_machine_is_in_a_graph(model: Any, format: Any, tmp_path: Path) -> None:
    done = export_model(model, tmp_path / "m", format)
    content = [done.path.read_bytes()]
    if zipfile.is_zipfile(done.path):
        with zipfile.ZipFile(done.path) as archive:
            content = [archive.read(name) for name in archive.namelist()]
    for package in (blocklab, torch):
        folder = str(Path(package.__file__).parent).encode()
        assert not any(folder in part for part in content)


class _Theirs(nn.Module):
    """Somebody else's network: a list of maps, and a model of timm's within."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.last = nn.Conv2d(4, 8, 3, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(x)
        return x, self.last(x)


def other_network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "timm":
        return timm.create_model("resnet10t", num_classes=4).eval()
    if kind == "theirs":
        return _Theirs().eval()
    if kind == "features":
        return timm.create_model("blocklab_resnet20_se", features_only=True).eval()
    model: Any = create_model("resnet20_se", num_classes=4).eval()
    if kind == "deployed":
        return deploy(model)
    if kind == "pruned":
        model.prune_intermediate_layers(2)
        return model
    if kind == "no pool":
        model.reset_classifier(0, "")
        return model
    assert kind == "head"
    model.fc = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 7))
    return model


OTHERS = ("timm", "theirs", "features", "deployed", "pruned", "head")


# As above; one kind of the other will do.
GRAPHS = [
    pytest.param(
        kind, format, marks=() if format == "onnx" or kind == "deployed" else pytest.mark.slow
    )
    for kind in (*OTHERS, "no pool")
    for format in RUN
]


@pytest.mark.parametrize(("kind", "format"), GRAPHS)
def test_other_networks_have_graphs(kind: str, format: Any, tmp_path: Path) -> None:
    model = other_network(kind)
    done = export_model(model, tmp_path / "m", format, (64, 96))
    channels = 1 if kind == "theirs" else 3
    images = torch.randn(3, channels, 64, 96)
    with torch.inference_mode():
        assert_gives(RUN[format](done.path, images), model(images), within=1e-4)
    about = ABOUT[format](done.path)
    assert about["in_chans"] == channels
    assert "model" not in about
    classes = {"timm": 4, "deployed": 4, "head": 7}
    assert about["num_classes"] == classes.get(kind)


@pytest.mark.parametrize("format", ["safetensors", "hub"])
@pytest.mark.parametrize("kind", [*OTHERS, "no pool"])
def test_other_networks_have_no_file_of_tensors(kind: str, format: Any, tmp_path: Path) -> None:
    model: Any = other_network(kind)
    with pytest.raises(InputError, match=r"onnx or torch_export|whole one") as caught:
        export_model(model, tmp_path / "new" / "m", format, (64, 96))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    if kind in ("deployed", "head", "pruned", "no pool"):
        with pytest.raises(InputError):
            save_model(model, tmp_path / "m.safetensors")
        with pytest.raises(InputError):
            save_pretrained(model, tmp_path / "m")
        assert not list(tmp_path.iterdir())


class _Two(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class _Named(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"x": x}


@pytest.mark.parametrize(
    ("format", "options", "message"),
    [
        ("onnx", {"dynamic": ("depth",)}, "dynamic axes are batch, height, width, not 'depth'"),
        ("hub", {"dynamic": ("batch",)}, "dynamic is of graphs, onnx and torch_export; hub holds"),
        ("safetensors", {"normalized": True}, "normalized is of graphs"),
        ("torch_export", {"opset": 18}, "opset is ONNX's; torch_export has none"),
        ("onnx", {"opset": 17}, "opset is a number from 18 to .*, not 17"),
        ("onnx", {"opset": 999}, "opset is a number from 18 to .*, not 999"),
        ("onnx", {"card": Card(mean=(1,), std=(1,))}, "mean is a number for each of 3 channels"),
        ("hub", {"card": Card(mean=MEAN, std=(1, 0, 1))}, "std is a number above 0 for each of 3"),
        ("onnx", {"class_names": ["a"]}, "1 class names for 4 outputs"),
        ("onnx", {"input_size": (3, -4)}, "positive number of pixels"),
        ("onnx", {"model": _Two(), "input_size": 8}, "cannot take images of 8x8"),
        ("onnx", {"model": _Named(), "input_size": 8}, "a tensor or a list of them, not a dict"),
        ("onnx", {"model": nn.Conv2d(3, 4, 1)}, "does not say for which images it is"),
        ("onnx", {"model": nn.Conv2d(3, 4, 1), "input_size": 8, "normalized": True}, "not known"),
    ],
)
def test_wrong_options_are_one_line(
    model: Any, format: Any, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    options = {"model": model, **options}
    with pytest.raises(InputError, match=message) as caught:
        export_model(path=tmp_path / "new" / "m", format=format, **options)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_values_beyond_half_precision_are_said(model: Any, tmp_path: Path) -> None:
    model.bn1.running_var.fill_(1e6)
    with pytest.raises(InputError, match=r"1 tensors hold values .* \(bn1.running_var\)"):
        export_model(model, tmp_path / "m.onnx", "onnx", fp16=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["onnx", "torch_export", "safetensors"])
def test_a_file_of_somebody_else_stays(model: Any, format: Any, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_bytes(b"years of work")
    with pytest.raises(InputError, match=r"precious: it is there .* --force"):
        export_model(model, path, format)
    assert path.read_bytes() == b"years of work"
    export_model(model, path, format, force=True)
    export_model(model, path, format, fp16=True)  # our own
    assert sorted(path.name for path in tmp_path.iterdir()) == ["precious"]


def test_weights_that_training_wrote_stay(model: Any, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(model.state_dict(), tmp_path / "model.safetensors")
    before = (tmp_path / "model.safetensors").read_bytes()
    for format, path in (("hub", tmp_path), ("safetensors", tmp_path / "model.safetensors")):
        with pytest.raises(InputError, match=r"model.safetensors: it is there"):
            export_model(model, path, format)  # type: ignore[arg-type]
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("name", ["README.md", "config.json"])
def test_a_hub_folder_of_somebody_else_stays(model: Any, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("# My model\n")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=rf"{name}: it is there .* --force"):
        export_model(model, tmp_path, "hub")
    with pytest.raises(InputError, match=rf"{name}: it is there"):
        save_pretrained(model, tmp_path)
    assert (tmp_path / name).read_text() == "# My model\n"
    assert len(list(tmp_path.iterdir())) == 2
    export_model(model, tmp_path, "hub", force=True)
    export_model(model, tmp_path, "hub", card=OURS)  # our own
    (tmp_path / "README.md").write_text((tmp_path / "README.md").read_text() + "by me\n")
    with pytest.raises(InputError, match=r"README.md: it is there"):  # changed since
        export_model(model, tmp_path, "hub")
    assert (tmp_path / "notes.txt").read_text() == "mine"


class _LateFirst(nn.Module):
    """Registers what runs last first, so that its first convolution by name is not its first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.last = nn.Conv2d(6, 4, 1)
        self.first = nn.Conv2d(channels, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x))


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_a_graph_takes_the_channels_of_the_layer_that_runs_first(
    channels: int, tmp_path: Path
) -> None:
    path = tmp_path / "theirs.pt2"
    export_model(_LateFirst(channels), path, "torch_export", (8, 12))
    images = torch.rand(3, channels, 8, 12)
    assert torch.export.load(path).module()(images).shape == (3, 4, 8, 12)
