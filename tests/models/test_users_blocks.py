"""What a user's block says of itself is honoured in every form that a network takes."""

import copy
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from blocklab import cost, create_model, deploy, load_weights
from blocklab.blocks import plugins, registry
from blocklab.blocks.plugins import load_plugin
from blocklab.contract.report_card import check_block
from blocklab.errors import InputError
from blocklab.models.export import export_model
from blocklab.models.model_file import load_model

# A 3x3 and a 1x1 convolution side by side, which become one (as RepVGG's, arXiv:2101.03697).
PLUGIN = """\
import torch
from torch import nn
from torch.nn import functional as F

from blocklab import register_block


@register_block("two_kernels", kind="mixer")
class TwoKernels(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(in_channels, out_channels, 3, stride, 1)
        self.narrow = nn.Conv2d(in_channels, out_channels, 1, stride)
        self.one = None

    def forward(self, x):
        return self.wide(x) + self.narrow(x) if self.one is None else self.one(x)

    def merge(self):
        if self.one is None:
            self.one, self.wide, narrow, self.narrow = self.wide, None, self.narrow, None
            self.one.weight += F.pad(narrow.weight, [1] * 4)
            self.one.bias += narrow.bias
"""
TWICE = """\
def merge(self):
        if self.one is not None:
            self.one.bias += 1"""
ON_META = "self.one is None and not self.wide.weight.is_meta:\n        "
KERNELS = ("layer1.0.conv1", "layer2.0.conv1")


pytestmark = pytest.mark.usefixtures("registry_as_it_was", "one_thread_and_a_fixed_seed")


def build(folder: Path, was: str = "", becomes: str = "") -> Any:
    """A small network of the block, changed in one place."""
    file = folder / "two_kernels.py"
    file.write_text(PLUGIN.replace(was, becomes) if was else PLUGIN)
    load_plugin(file)
    slots = {"widths": (4, 8), "depths": (1, 1), "mixer": "two_kernels"}
    return create_model("resnet20", num_classes=5, **slots).eval()


def relative(outputs: Tensor, expected: Tensor) -> float:
    return ((outputs - expected).abs().max() / expected.abs().max()).item()


def images() -> Tensor:
    return torch.randn(3, 3, 32, 32)


def test_deployed_it_is_merged_once(tmp_path: Path) -> None:
    model = build(tmp_path)
    deployed: Any = deploy(model)
    assert deployed.deploy_report.merged == KERNELS
    assert "layer1.0.conv1.one.weight" in deployed.state_dict()
    assert "layer1.0.conv1.wide.weight" in model.state_dict()
    x = images()
    with torch.inference_mode():
        assert relative(deployed(x), model(x)) < 1e-5
    alone: Any = deploy(model.layer1[0].conv1)
    assert alone.deploy_report.merged == ("",) and alone.one is not None
    again: Any = deploy(deployed)
    assert again.deploy_report.merged == ()
    with torch.inference_mode():
        assert torch.equal(again(x), deployed(x))


def test_exported_it_is_merged_in_every_format(tmp_path: Path) -> None:
    model, x = build(tmp_path), images()
    with torch.inference_mode():
        expected = model(x)
    for format, name in (("safetensors", "m.safetensors"), ("hub", "hub")):
        done = export_model(model, tmp_path / name, format, 32, deploy=True)  # type: ignore[arg-type]
        loaded = load_model(done.path)
        assert "layer2.0.conv1.one.weight" in loaded.state_dict()
        assert not any(".narrow." in name for name in loaded.state_dict())
        with torch.inference_mode():
            assert relative(loaded(x), expected) < 1e-5
    convolutions = []
    for deployed in (False, True):
        done = export_model(model, tmp_path / f"{deployed}.onnx", "onnx", 32, deploy=deployed)
        nodes = [node.op_type for node in onnx.load(done.path).graph.node]
        convolutions.append(nodes.count("Conv"))
        session = onnxruntime.InferenceSession(str(done.path), providers=["CPUExecutionProvider"])
        outputs: Any = session.run(None, {"images": x.numpy()})
        assert relative(torch.from_numpy(outputs[0]), expected) < 1e-5
    assert convolutions[0] - convolutions[1] == len(KERNELS)


def test_its_cost_is_counted_merged(tmp_path: Path) -> None:
    model = build(tmp_path)
    value = {"base": "resnet20", "widths": [4, 8], "depths": [1, 1], "mixer": "two_kernels"}
    merged = cost(value, 32, num_classes=5, merged=True)
    assert merged.params == cost(value, 32, num_classes=5).params - 4 * 4 - 4 - 8 * 4 - 8
    assert merged == cost(load_merged(model), 32)


def load_merged(model: Any) -> Any:
    """A copy with its blocks merged and all else as it was."""
    merged = copy.deepcopy(model)
    with torch.no_grad():
        for name in KERNELS:
            merged.get_submodule(name).merge()
    return merged


def test_merged_weights_merge_the_model_that_takes_them(tmp_path: Path) -> None:
    model, x = build(tmp_path), images()
    state = load_merged(model).state_dict()
    other = build(tmp_path)
    load_weights(other, state)
    load_weights(other, state)  # into one that is merged
    with torch.inference_mode():
        assert relative(other(x), model(x)) < 1e-5
    other, names = build(tmp_path), set(model.state_dict())
    with pytest.raises(InputError, match=r"missing \(layer1.0.conv1.wide.weight"):
        load_weights(other, {k: v for k, v in state.items() if k != "layer1.0.conv1.one.bias"})
    assert set(other.state_dict()) == names  # a refused model is as it was
    load_weights(other, model.state_dict())
    assert set(other.state_dict()) == names


def test_the_card_tries_it(tmp_path: Path) -> None:
    build(tmp_path)
    assert check_block("mixer", "two_kernels", checks=["merge"]).passed


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("if self.one is None:\n", "if True:\n", "AttributeError"),
        ("def merge(self):", TWICE, "a second merge() changes the output"),
        ("self.one is None:\n        ", ON_META, "leaves other tensors on the meta device"),
        ("+= narrow.bias", "+= 2 * narrow.bias", "merge() changes the output"),
        ("one is None:\n", "one is None and float(self.wide.bias[0]) < 9:\n", "the meta device"),
    ],
)
def test_the_card_finds_faults_in_it(tmp_path: Path, was: str, becomes: str, said: str) -> None:
    build(tmp_path, was, becomes)
    card = check_block("mixer", "two_kernels", checks=["merge"])
    assert [result.check for result in card.failures] == ["merge"]
    assert said in card["merge"].detail and "\n" not in card["merge"].detail


def test_a_part_called_merge_is_a_part(tmp_path: Path) -> None:
    model, x = build(tmp_path, "def merge(self)", "def other(self)"), images()
    model.layer1[0].conv1.merge = nn.Conv2d(4, 4, 1)
    model.layer1[0].conv1.init_weights = nn.Conv2d(4, 4, 1)
    model.init_weights()
    deployed: Any = deploy(model)
    assert deployed.deploy_report.merged == ()
    done = export_model(model, tmp_path / "m.onnx", "onnx", 32, deploy=True)
    assert done.difference < 1e-4
    with torch.inference_mode():
        assert relative(deployed(x), model(x)) < 1e-5


def test_one_that_computes_otherwise_is_not_merged(tmp_path: Path) -> None:
    model, x = build(tmp_path), images()
    kernel: Any = type(model.layer1[0].conv1)

    class Twice(kernel):
        def forward(self, x: Tensor) -> Tensor:
            return self.wide(x) + 2 * self.narrow(x)

    model.layer1[0].conv1.__class__ = Twice
    deployed: Any = deploy(model)
    assert deployed.deploy_report.merged == KERNELS[1:]
    with torch.inference_mode():
        assert relative(deployed(x), model(x)) < 1e-5


class Scaled(nn.Module):
    """A convolution whose folded form is another module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.conv(x)

    def fold_norms(self) -> nn.Module:
        self.conv.weight *= self.scale
        assert self.conv.bias is not None
        self.conv.bias *= self.scale
        return nn.Sequential(self.conv)


def test_what_takes_a_parts_place_is_put_wherever_the_part_was() -> None:
    x, shared = images(), Scaled()
    for model, scales in (
        (Scaled(), ("scale",)),
        (nn.Sequential(shared, nn.ReLU(), shared), ("0.scale",)),
    ):
        deployed: Any = deploy(model)
        assert deployed.deploy_report.folded == scales
        assert not any(isinstance(part, Scaled) for part in deployed.modules())
        with torch.inference_mode():
            assert relative(deployed(x), model.eval()(x)) < 1e-5


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("if self.one is None:\n", "if self.none:\n", r"merge\(\) of TwoKernels fails: Attribute"),
        ("def merge(self)", "def merge(self, now)", r"merge\(\) of TwoKernels fails: TypeError"),
        ("def merge(self)", "def fold_norms(self, now)", r"fold_norms\(\) of TwoKernels fails"),
    ],
)
def test_faults_in_what_it_says_are_one_line(
    tmp_path: Path, was: str, becomes: str, said: str
) -> None:
    model = build(tmp_path, was, becomes)
    with pytest.raises(InputError, match=said) as caught:
        deploy(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ("def init_weights(self):\n        self.none()", r"init_weights\(\) of TwoKernels fails"),
        ("def inner_width(self, planes):\n        return planes", "'two_kernels' cannot be built"),
        ("inner_width = staticmethod(lambda planes: planes / 2)", r"gives 2.0; .* channels from 1"),
        ("inner_width = 3", "'int' object is not callable"),
    ],
)
def test_faults_in_how_it_is_built_are_one_line(tmp_path: Path, added: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        build(tmp_path, "    def merge(self)", f"    {added}\n\n    def merge(self)")
    assert "\n" not in str(caught.value)


def test_a_width_that_is_no_number_of_channels_is_refused() -> None:
    @registry.register_block("wide", kind="token_mixer")
    class Wide(nn.Conv2d):
        def __init__(self, channels: int) -> None:
            super().__init__(channels, channels, 1)
            self.out_channels = str(channels)  # type: ignore[assignment]

    with pytest.raises(InputError, match="out_channels of Wide is '8'; it is to be a number of"):
        create_model("van_b0", num_classes=5, mixer="wide", widths=(8,) * 4, depths=(1,) * 4)


def test_the_model_file_says_what_it_holds(tmp_path: Path) -> None:
    model = build(tmp_path)
    done = export_model(model, tmp_path / "m.safetensors", "safetensors", 32, deploy=True)
    plugins._LOADED.clear()
    registry._REGISTRY.pop(("mixer", "two_kernels"))
    with pytest.raises(InputError, match="--plugin FILE"):
        load_model(done.path)
