"""A backbone of a user's own: what is added to it, what is refused in a line, and its check."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import blocklab
from blocklab.blocks import registry
from blocklab.blocks.plugins import load_plugin
from blocklab.contract.backbones import BACKBONE_CHECKS
from blocklab.contract.report_card import check_block
from blocklab.errors import InputError
from blocklab.models.export import export_model
from blocklab.models.hub import from_pretrained
from blocklab.models.model_file import load_model
from blocklab.models.spec import ModelSpec, model_spec

NET = """\
import torch
from timm.layers import DropPath
from torch import nn

from blocklab import register_backbone


class Block(nn.Module):
    def __init__(self, before, width, stride, rate):
        super().__init__()
        self.conv = nn.Conv2d(before, width, 3, stride, 1)
        self.bn = nn.BatchNorm2d(width)
        self.drop_path = DropPath(rate)

    def forward(self, x):
        x = self.bn(self.conv(x)).relu()
        return x + self.drop_path(x)


@register_backbone("my_net")
class MyNet(nn.Module):
    native_size = 32

    def __init__(self, in_chans, drop_path_rate, *, width: int = 8, gelu: bool = False):
        super().__init__()
        self.stem = nn.Conv2d(in_chans, width, 3, padding=1)
        self.stages = nn.ModuleList([
            Block(width, width, 1, 0.0),
            nn.Sequential(Block(width, 2 * width, 2, drop_path_rate), *[nn.GELU()] * gelu),
        ])
        self.norm = nn.BatchNorm2d(2 * width)
"""

Load = Callable[..., Any]


pytestmark = pytest.mark.usefixtures("registry_as_it_was")


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Write the file with some text replaced, and load it."""

    def call(old: str = "", new: str = "") -> Any:
        assert old in NET
        path = tmp_path / "my_net.py"
        path.write_text(NET.replace(old, new, 1) if old else NET)
        return load_plugin(path)[0]

    return call


def test_it_is_a_model_by_name_with_its_options_as_slots(load: Load) -> None:
    info = load()
    network: Any = blocklab.create_model("my_net", num_classes=7, in_chans=1, width=4)
    names = {name.partition(".")[0] for name, _ in network.named_parameters()}
    assert names == {"stem", "stages", "norm", "head"}
    assert network(torch.zeros(2, 1, 20, 24)).shape == (2, 7)
    assert (network.num_features, network.feature_info.reduction()) == (8, [1, 2])
    cfg = network.pretrained_cfg
    assert cfg["input_size"] == (1, 32, 32) and cfg["pool_size"] == (16, 16)
    assert (cfg["first_conv"], cfg["classifier"]) == ("stem", "head")
    said = model_spec("my_net:width=4").to_dict()
    assert said == {
        "family": f"my_net@{info.digest}", "drop_rate": 0.0, "drop_path_rate": 0.0,
        "width": 4, "gelu": False, "attention": [],
    }  # fmt: skip
    assert ModelSpec.from_dict(said) == model_spec({"backbone": "my_net", "width": 4})
    assert model_spec({"base": {"base": "my_net", "width": 4}, "gelu": True}).slots == tuple(
        key for key in said if key != "family"
    )


def test_its_values_are_its_parts_and_the_head(load: Load) -> None:
    load()
    network: Any = model_spec("my_net").build(5).eval()
    x = torch.randn(2, 3, 16, 20)
    with torch.no_grad():
        by_hand = network.stem(x)
        for stage in network.stages:
            by_hand = stage(by_hand)
        expected = network.head(network.norm(by_hand).mean((2, 3)))
        assert torch.equal(network(x), expected)


def test_attention_stands_after_its_stages(load: Load) -> None:
    load()
    spec = model_spec("my_net", attention={"type": "se", "stages": [2]})
    network: Any = spec.build(5)
    kinds = [type(part).__name__ for part in network.attentions]
    assert kinds == ["Identity", "SqueezeExcitation"]
    with pytest.raises(InputError, match="stages are numbers from 1 to 2, not 3"):
        model_spec("my_net", attention={"type": "se", "stages": [3]})


def test_an_attention_option_of_its_own_takes_the_slots_place(load: Load) -> None:
    load(", gelu: bool = False", ", gelu: bool = False, attention: str = 'own'")
    assert model_spec("my_net").to_dict()["attention"] == "own"


def test_the_same_seed_gives_the_same_start(load: Load) -> None:
    load()
    states = []
    for _ in range(2):  # before its anatomy is known, and after
        torch.manual_seed(0)
        states.append(model_spec("my_net", width=12).build(5).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_its_start_and_what_does_not_decay_are_its_own(load: Load) -> None:
    own = (
        "        self.norm = nn.BatchNorm2d(2 * width)\n\n"
        "    def init_weights(self):\n        nn.init.zeros_(self.stem.bias)\n\n"
        "    def no_weight_decay(self):\n        return {'stem.weight'}\n"
    )
    load("        self.norm = nn.BatchNorm2d(2 * width)\n", own)
    network = blocklab.create_model("my_net", num_classes=3)
    assert not network.stem.bias.any() and network.stages[0].conv.bias.any()
    assert network.no_weight_decay() == {"stem.weight"}
    again = copy.deepcopy(network)
    torch.nn.init.ones_(again.stem.bias)
    again.init_weights()
    assert not again.stem.bias.any() and "_made" not in str(list(again.state_dict()))
    load("        self.norm = nn.BatchNorm2d(2 * width)\n", own.replace("zeros_", "zeroes_"))
    with pytest.raises(InputError, match=r"init_weights\(\) of MyNet fails: AttributeError"):
        blocklab.create_model("my_net", num_classes=3)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("self.stages = ", "self.steps = ", "has no stages; give it some: self.stages = nn.Modul"),
        ("nn.ModuleList([", "list([", "has no stages; give it some"),
        ("self.stem = ", "self.stam = ", "has no stem; give it one"),
        ("self.norm = nn.BatchNorm2d", "self.last = nn.BatchNorm2d", "last.weight is in none of"),
        ("self.norm =", "self.act = nn.ReLU()\n        self.norm =", "act is in none of"),
        (
            "        self.norm = nn.BatchNorm2d(2 * width)\n",
            "        self.norm = nn.BatchNorm2d(2 * width)\n\n"
            "    def forward(self, x):\n        return self.stem(x)\n",
            "backbone 'my_net': a forward of its own is not run; what runs is stem, stages, norm",
        ),
        (
            "nn.ModuleList([",
            "type('Twice', (nn.ModuleList,), {'forward': lambda self, x: x})([",
            "the stages of backbone 'my_net': a forward of its own is not run",
        ),
        ("Block(width, 2 * width, 2", "Block(width + 1, 2 * width, 2", "stage 2 of my_net cannot"),
        ("return x + self.drop_path(x)", "return x.mean((2, 3))", "stage 1 of my_net gives (2, 8)"),
        ("return x + self.drop_path(x)", "return x, x", "stage 1 of my_net gives tuple; it is"),
        ("nn.BatchNorm2d(2 * width)", "nn.Conv2d(2 * width, 3, 1)", "changes the map's shape"),
        ("native_size = 32", "native_size = 'x'", "native_size of my_net is pixels of a side"),
        ("super().__init__()\n        self.stem", "self.stem", "cannot be built with"),
        ("in_chans, drop_path_rate,", "in_channels, drop_path_rate,", "asks for 'in_channels'"),
        ("width: int = 8,", "width=8,", "option 'width' of block 'my_net' needs a type"),
        ("width: int = 8,", "drop_rate: float = 0.0,", "cannot have an option 'drop_rate'"),
        ("in_chans, drop_path_rate, *", "in_chans, *args", "takes *args or **kwargs"),
        ('"my_net"', '"resnet20"', "is a model of blocklab's; register yours under another"),
        ('"my_net"', '"my net"', "cannot be called 'my net'"),
        ("class MyNet(nn.Module):", "class MyNet:", "a backbone is a class of nn.Module"),
    ],
)  # fmt: skip
def test_what_is_no_backbone_is_refused_in_a_line(
    load: Load, old: str, new: str, said: str
) -> None:
    with pytest.raises(InputError) as error:
        load(old, new)
        blocklab.cost("my_net", 32)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("my_nett", "no model 'my_nett'; did you mean 'my_net'?"),
        ("my_net:widht=3", "my_net has no slot 'widht'; did you mean 'width'?"),
        ({"backbone": "my_nett"}, "no backbone 'my_nett'; did you mean 'my_net'?"),
        ("my_net:width=x", "width"),
    ],
)
def test_what_is_misspelt_is_refused(load: Load, model: Any, said: str) -> None:
    load()
    with pytest.raises(InputError) as error:
        model_spec(model)
    assert said in str(error.value)


def test_stochastic_depth_is_refused_where_it_takes_none(load: Load) -> None:
    load(
        "in_chans, drop_path_rate, *, width: int = 8",
        "in_chans, *, drop_path: float = 0.0, width: int = 8",
    )
    with pytest.raises(InputError, match="my_net has no stochastic depth"):
        model_spec("my_net", drop_path_rate=0.1)


def test_a_changed_file_is_another_model(load: Load) -> None:
    load()
    said = model_spec("my_net").to_dict()
    load("relu()", "tanh()")
    assert model_spec("my_net").to_dict()["family"] != said["family"]
    with pytest.raises(InputError, match="its file has changed"):
        ModelSpec.from_dict(said)
    registry._REGISTRY.pop(("backbone", "my_net"))
    with pytest.raises(
        InputError, match=r"the file that it comes from: --plugin FILE, or blocklab\.load_plugin"
    ):
        ModelSpec.from_dict(said)


def test_files_rebuild_it(load: Load, tmp_path: Path) -> None:
    load()
    network = model_spec("my_net", attention="se").build(5).eval()
    x = torch.randn(2, 3, 32, 32)
    export_model(network, tmp_path / "a.safetensors", "safetensors")
    export_model(network, tmp_path / "hub", "hub")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    for again in (
        load_model(tmp_path / "a.safetensors"),
        from_pretrained(tmp_path / "hub"),
        theirs,
    ):
        assert torch.equal(again(x), network(x))


def test_features_only(load: Load) -> None:
    load()
    features: Any = blocklab.create_model("my_net", features_only=True, out_indices=(0,))
    assert [tuple(m.shape) for m in features(torch.zeros(1, 3, 16, 20))] == [(1, 8, 16, 20)]
    assert not hasattr(features.model.stages, "1")


def test_intermediates_end_as_features_do(load: Load) -> None:
    load()
    network: Any = blocklab.create_model("my_net").eval()
    torch.nn.init.constant_(network.norm.bias, 2.0)
    x = torch.randn(2, 3, 16, 20)
    last, maps = network.forward_intermediates(x, norm=True)
    assert torch.equal(last, network.forward_features(x)) and torch.equal(last, maps[-1])
    plain = network.forward_intermediates(x, intermediates_only=True)[-1]
    assert not torch.equal(plain, last) and torch.equal(network.norm(plain), last)
    network.prune_intermediate_layers((0,), prune_norm=True)
    assert torch.equal(network.forward_intermediates(x, norm=True)[0], maps[0])


# Its check.
@pytest.fixture
def failures(load: Load) -> Load:
    def call(old: str = "", new: str = "") -> dict[str, str]:
        load(old, new)
        card = check_block("backbone", "my_net")
        assert [result.check for result in card.results] == list(BACKBONE_CHECKS)
        return {result.check: result.detail for result in card.failures}

    return call


def test_a_sound_backbone_keeps_timms_conventions(failures: Load) -> None:
    assert failures() == {}


@pytest.mark.parametrize(
    ("old", "new", "check", "said"),
    [
        ("*[nn.GELU()] * gelu", "", "options", "gelu=True changes nothing"),
        ("DropPath(rate)", "nn.Identity()", "slots", "drop_path_rate drops nothing"),
        (
            "x + self.drop_path(x)", "nn.functional.dropout2d(x, 0.1, self.training)", "slots",
            "drop_path_rate drops nothing",
        ),
        ("x = self.bn", "x = x + x.mean(0)\n        x = self.bn", "samples", "changes with the"),
        ("self.conv(x)).relu()", "self.conv(x)).detach()", "gradients", "gets no gradient"),
        ("self.drop_path(x)", "torch.rand_like(x)", "deterministic", "differ in evaluation"),
        (
            "x + self.drop_path(x)", "nn.functional.adaptive_avg_pool2d(x, 8)", "features_only",
            "a stage is to shrink all images alike",
        ),
        ("x = self.bn", "assert x.shape[2] != 35\n        x = self.bn", "shape", "35x39 images"),
    ],
)  # fmt: skip
def test_a_fault_fails_the_check_that_is_for_it(
    failures: Load, old: str, new: str, check: str, said: str
) -> None:
    assert said in failures(old, new)[check]
