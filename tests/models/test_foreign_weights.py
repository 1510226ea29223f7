"""Checkpoints of other packages load, and give their own networks' outputs."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
import torchvision
from timm.layers.coord_attn import CoordAttn
from timm.layers.squeeze_excite import SEModule
from timm.models.resnet import Bottleneck
from timm.models.resnet import ResNet as TimmResNet
from torch import Tensor, nn

from blocklab import create_model, load_weights
from blocklab.errors import InputError

State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def randomise(model: nn.Module) -> nn.Module:
    """Give every norm, bias and zero-initialised weight a value that shows where it went."""
    generator = torch.Generator().manual_seed(5)
    for name, value in model.state_dict().items():
        if name.endswith("running_var") or (value.ndim == 1 and name.endswith("weight")):
            value.uniform_(0.5, 1.5, generator=generator)
        elif value.ndim == 1:
            value.normal_(0, 0.2, generator=generator)
        elif value.ndim > 1 and not value.any():
            value.normal_(0, 0.05, generator=generator)
    return model.eval()


def images() -> Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def assert_same_outputs(theirs: Tensor, ours: Tensor) -> None:
    assert theirs.std() > 0
    difference = (theirs - ours).abs().max() / theirs.abs().max()
    assert difference < 1e-5, f"relative difference {difference:.1e}"


def timm_resnet50(attention: Any) -> nn.Module:
    block_args = {"attn_layer": attention}
    block: Any = Bottleneck
    return TimmResNet(block, (1, 2, 1, 1), num_classes=10, block_args=block_args)


SHALLOW: dict[str, Any] = {"depths": (1, 2, 1, 1)}
SPLIT_SK = {"type": "selective_kernel", "groups": 1, "split_input": True}
DEEP = {"stem": {"type": "deep", "widths": (32, 32)}, "downsample": "avgpool"}
TEN: dict[str, Any] = {"num_classes": 10}
GC = {"type": "global_context", "reduction": 8, "norm_eps": 1e-6}

# Format -> who makes the network, our model and what fills its slots.
DESIGNS: dict[str, tuple[str, Callable[[], nn.Module], str, dict[str, Any]]] = {
    "torchvision resnet18": (
        "ResNet (torchvision, timm, blocklab)",
        lambda: torchvision.models.resnet18(**TEN),
        "resnet18",
        {},
    ),
    "torchvision resnet50": (
        "ResNet (torchvision, timm, blocklab)",
        lambda: torchvision.models.resnet50(**TEN),
        "resnet50",
        {},
    ),
    "torchvision resnext50_32x4d": (
        "ResNet (torchvision, timm, blocklab)",
        lambda: torchvision.models.resnext50_32x4d(**TEN),
        "resnext50_32x4d",
        {},
    ),
    "torchvision wide_resnet50_2": (
        "ResNet (torchvision, timm, blocklab)",
        lambda: torchvision.models.wide_resnet50_2(**TEN),
        "wide_resnet50_2",
        {},
    ),
    "timm resnext50_32x4d": (
        "ResNet (torchvision, timm, blocklab)",
        lambda: timm.create_model("resnext50_32x4d", **TEN),
        "resnext50_32x4d",
        {},
    ),
    "timm resnet50": (
        "ResNet (torchvision, timm, blocklab)",
        lambda: timm.create_model("resnet50", **TEN),
        "resnet50",
        {},
    ),
    "timm resnet50d": (
        "ResNet (torchvision, timm, blocklab)",
        lambda: timm.create_model("resnet50d", **TEN),
        "resnet50",
        DEEP,
    ),
    "timm res2net50": (
        "Res2Net (official, timm)",
        lambda: timm.create_model("res2net50_26w_4s", **TEN),
        "res2net50_26w_4s",
        {},
    ),
    "timm res2net50d with se": (
        "Res2Net (official, timm)",
        lambda: timm.create_model(
            "res2net50d",
            **TEN,
            layers=(1, 2, 1, 1),
            block_args={"scale": 4, "attn_layer": SEModule},
        ),
        "res2net50_26w_4s",
        {**DEEP, **SHALLOW, "attention": "se"},
    ),
    "timm seresnet50": (
        "ResNet with attention (timm)",
        lambda: timm.create_model("seresnet50", **TEN),
        "resnet50_se",
        {},
    ),
    "timm seresnet18": (
        "ResNet with attention (timm)",
        lambda: timm.create_model("seresnet18", **TEN),
        "resnet18",
        {
            "attention": [
                {"type": "se", "stages": 1, "reduction": 8},
                {"type": "se", "stages": [2, 3, 4]},
            ]
        },
    ),
    "timm skresnet50": (
        "SKNet (timm)",
        lambda: timm.create_model("skresnet50", **TEN),
        "resnet50_sk",
        {"mixer": {**SPLIT_SK, "min_hidden": 8, "hidden_divisor": 8}},
    ),
    "timm skresnet18": (
        "SKNet (timm)",
        lambda: timm.create_model("skresnet18", **TEN),
        "resnet18_sk",
        {"mixer": {**SPLIT_SK, "reduction": 8, "min_hidden": 16, "hidden_divisor": 16}},
    ),
    "timm gca": (
        "ResNet with attention (timm)",
        lambda: timm_resnet50("gca"),
        "resnet50",
        {**SHALLOW, "attention": GC},
    ),
    "timm gc": (
        "ResNet with attention (timm)",
        lambda: timm_resnet50("gc"),
        "resnet50",
        {**SHALLOW, "attention": {**GC, "fusion": "scale"}},
    ),
    "timm coord": (
        "ResNet with attention (timm)",
        lambda: timm_resnet50(partial(CoordAttn, rd_ratio=1 / 32, se_factor=1, bias=True)),
        "resnet50",
        {**SHALLOW, "attention": "coordinate"},
    ),
}


@pytest.mark.parametrize("design", DESIGNS)
def test_foreign_weights_give_foreign_outputs(design: str) -> None:
    source, build, name, slots = DESIGNS[design]
    theirs = randomise(build())
    ours = create_model(name, **TEN, **slots).eval()
    report = load_weights(ours, theirs.state_dict())
    assert report.source == source
    assert not report.problems()
    with torch.inference_mode():
        assert_same_outputs(theirs(images()), ours(images()))


def test_added_and_scaling_global_context_do_not_mix() -> None:
    ours = create_model("resnet50", **TEN, **SHALLOW, attention=GC)
    with pytest.raises(InputError, match="channel_add_conv"):
        load_weights(ours, timm_resnet50("gc").state_dict())


@pytest.mark.parametrize("release", ["root", "training"])
def test_triplet_attention_of_the_authors(release: str) -> None:
    model = randomise(create_model("resnet18_triplet", **TEN))
    renames = [(".attention.", ".triplet_attention.")]
    if release == "training":
        renames += [
            (".cw.conv.", ".ChannelGateH.spatial."),
            (".hc.conv.", ".ChannelGateW.spatial."),
        ]
        renames += [(".hw.conv.", ".SpatialGate.spatial.")]
    theirs: State = {}
    for name, value in model.state_dict().items():
        for ours, other in renames:
            name = name.replace(ours, other)
        theirs["module." + name] = value
    loaded = create_model("resnet18_triplet", **TEN)
    report = load_weights(loaded, {"epoch": 3, "arch": "resnet18", "state_dict": theirs})
    assert report.source == "Triplet Attention (official)"
    with torch.inference_mode():
        assert torch.equal(model(images()), loaded.eval()(images()))
