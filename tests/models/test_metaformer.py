"""MetaFormer's rows: the designs of others, by their weights and by their published counts."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig

from blocklab import cost, create_model, deploy, load_weights
from blocklab.backbones.registry import BACKBONES
from blocklab.errors import InputError
from blocklab.measure.description import describe
from blocklab.models.spec import model_spec

pytestmark = pytest.mark.usefixtures("one_thread_and_a_fixed_seed")
WIDTHS, DEPTHS = (16, 24, 32, 48), (2, 1, 3, 1)
NARROW: dict[str, Any] = {"widths": WIDTHS, "depths": DEPTHS, "num_classes": 7}


def timms(name: str) -> Callable[[], nn.Module]:
    # Of PoolFormer timm takes no sizes.
    sizes: Any = {} if name.startswith("poolformer") else {"dims": WIDTHS, "depths": DEPTHS}
    return lambda: timm.create_model(name, num_classes=7, **sizes)


def torchvisions() -> nn.Module:
    following = [*WIDTHS[1:], None]
    blocks = [CNBlockConfig(*one) for one in zip(WIDTHS, following, DEPTHS, strict=True)]
    return torchvision.models.ConvNeXt(blocks, num_classes=7)


DESIGNS: dict[str, tuple[str, Callable[[], nn.Module], str]] = {
    "torchvision": ("ConvNeXt (torchvision)", torchvisions, "convnext_tiny"),
    **{
        name: (source, timms(name), name)
        for name, source in {
            "convnext_tiny": "ConvNeXt, PoolFormer (timm)",
            "convnextv2_tiny": "ConvNeXt, PoolFormer (timm)",
            "convnextv2_atto": "ConvNeXt, PoolFormer (timm)",
            "inception_next_tiny": "InceptionNeXt (timm)",
            "inception_next_atto": "InceptionNeXt (timm)",
            "poolformer_s12": "ConvNeXt, PoolFormer (timm)",
            "mambaout_tiny": "MambaOut (timm)",
        }.items()
    },
}


@torch.no_grad()
def randomise(model: nn.Module) -> nn.Module:
    """Give every tensor values that show where it went."""
    for name, value in model.state_dict().items():
        if name.endswith("running_var") or ("weight" in name and value.ndim == 1):
            value.uniform_(0.5, 1.5)
        elif value.is_floating_point():
            value.normal_(0, 0.3 if value.numel() == max(value.shape) else 0.1)
    return model.eval()


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(2, 3, 64, 96, dtype=dtype)


def assert_same(theirs: Tensor, ours: Tensor, least: float = 1e-5) -> None:
    assert theirs.std() > 0
    assert (theirs - ours).abs().max() / theirs.abs().max() < least


@pytest.mark.parametrize("design", DESIGNS)
def test_foreign_weights_give_foreign_logits(design: str) -> None:
    source, build, name = DESIGNS[design]
    theirs = randomise(build())
    sizes: Any = {"num_classes": 7} if name.startswith("poolformer") else NARROW
    ours = create_model(name, **sizes).eval()
    report = load_weights(ours, theirs.state_dict())
    assert report.source == source
    assert not report.problems()
    x = images()
    with torch.inference_mode():
        assert_same(theirs(x), ours(x))


@pytest.mark.parametrize("name", [name for name in DESIGNS if name != "torchvision"])
def test_a_row_is_timms_design(name: str) -> None:
    with torch.device("meta"):
        theirs = timm.create_model(name)
    ours = model_spec(name).build_meta()
    assert load_shapes(ours) == load_shapes(theirs)


def load_shapes(model: nn.Module) -> list[tuple[int, ...]]:
    flat = (tuple(side for side in value.shape if side > 1) for value in model.parameters())
    return sorted(flat)


# The authors' names, as they stand in the releases' sources.
RELEASES: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "convnextv2_tiny": ("ConvNeXt, SLaK (official)", [(r"\.token_mixer\.", ".dwconv.")]),
    "slaknet_tiny": ("ConvNeXt, SLaK (official)", [(r"\.token_mixer\.", ".large_kernel.")]),
}
_COMMON = [
    (r"^stem\.conv\.", "downsample_layers.0.0."),
    (r"^stem\.norm\.", "downsample_layers.0.1."),
    (r"^stages\.(\d+)\.downsample\.norm\.", r"downsample_layers.\1.0."),
    (r"^stages\.(\d+)\.downsample\.conv\.", r"downsample_layers.\1.1."),
    (r"\.blocks\.", "."),
    (r"\.mlp\.fc(\d)\.", r".pwconv\1."),
    (r"\.mlp\.grn\.weight", ".grn.gamma"),
    (r"\.mlp\.grn\.bias", ".grn.beta"),
    (r"\.layer_scale", ".gamma"),
    (r"^pre_logits\.", ""),
]
_UNIREPLKNET = [
    (r"^stem\.conv1\.", "downsample_layers.0.0."),
    (r"^stem\.norm1\.", "downsample_layers.0.1."),
    (r"^stem\.conv2\.", "downsample_layers.0.3."),
    (r"^stem\.norm2\.", "downsample_layers.0.4."),
    (r"^stages\.(\d+)\.downsample\.conv\.", r"downsample_layers.\1.0."),
    (r"^stages\.(\d+)\.downsample\.norm\.", r"downsample_layers.\1.1."),
    (r"\.blocks\.", "."),
    (r"^(stages\.0\.\d+|stages\.2\.1)\.token_mixer\.lk_origin\.", r"\1.dwconv."),
    (r"\.token_mixer\.", ".dwconv."),
    (r"\.gate\.fc1\.", ".se.down."),
    (r"\.gate\.fc2\.", ".se.up."),
    (r"\.mlp\.fc1\.", ".pwconv1.1."),
    (r"\.mlp\.grn\.weight", ".act.1.gamma"),
    (r"\.mlp\.grn\.bias", ".act.1.beta"),
    (r"\.mlp\.fc2\.", ".pwconv2.0."),
    (r"\.mlp\.norm\.", ".pwconv2.2."),
    (r"\.layer_scale", ".gamma"),
    (r"^pre_logits\.", ""),
]


@pytest.mark.parametrize("name", ["convnextv2_tiny", "slaknet_tiny", "unireplknet_t"])
def test_the_authors_names(name: str) -> None:
    model = randomise(create_model(name, **NARROW))
    source, rules = RELEASES.get(name, ("UniRepLKNet (official)", _UNIREPLKNET))
    rules = rules + (_COMMON if name in RELEASES else [])
    theirs = {}
    for key, value in model.state_dict().items():
        for pattern, other in rules:
            key = re.sub(pattern, other, key)
        if re.search(r"pwconv\d\.(\d\.)?weight", key) and value.ndim == 4:
            value = value.flatten(1)  # theirs are linear layers
        if re.search(r"(grn|act\.1)\.(gamma|beta)$", key):
            value = value.view(1, 1, 1, -1)
        theirs[key] = value
    assert not theirs.keys() & {"stem.conv.weight", "pre_logits.norm.weight"}
    other = create_model(name, **NARROW).eval()
    report = load_weights(other, {"model": theirs})
    assert report.source == source
    x = images()
    with torch.inference_mode():
        assert torch.equal(model(x), other(x))


PUBLISHED = {  # millions of parameters and G MACs at 224, as the papers print them
    "convnext_tiny": ("28.6", "4.46"),
    "inception_next_tiny": ("28.1", "4.19"),
    "poolformer_s12": ("11.9", "1.81"),  # and 1.82 with its norms: below
    "convnext_base": ("88.6", "15.4"),
    "convnextv2_tiny": ("28.6", "4.46"),
    "mambaout_femto": ("7.3", "1.1"),  # the paper's 1.2 counts norms, too
    "mambaout_tiny": ("26.5", "4.5"),
    "mambaout_small": ("48.5", "8.9"),
    "mambaout_base": ("84.8", "15.8"),
}


def digits(value: float, like: str) -> str:
    return f"{value:.{len(like.partition('.')[2])}f}"


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name: str) -> None:
    params, macs = PUBLISHED[name]
    counted = cost(name)
    assert digits(counted.params / 1e6, params) == params
    assert digits(counted.macs / 1e9, macs) == macs


def test_poolformers_count_with_its_norms() -> None:
    """Its authors' counter (fvcore's) takes five operations for each value that GroupNorm meets."""
    widths, depths = (64, 128, 320, 512), (2, 2, 6, 2)
    sides = (56, 28, 14, 7)
    values = sum(2 * n * c * side**2 for n, c, side in zip(depths, widths, sides, strict=True))
    assert digits((cost("poolformer_s12").macs + 5 * values) / 1e9, "1.82") == "1.82"


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("unireplknet_f", "6.2", "0.9"),
        ("unireplknet_n", "18.3", "2.8"),
        ("unireplknet_t", "31", "4.9"),
        ("unireplknet_s", "56", "9.1"),
        ("unireplknet_b", "98", ""),
    ],
)
def test_unireplknet_as_published(name: str, params: str, macs: str) -> None:
    """As it is used: kernels merged, norms, layer scales and GRN's biases in other weights."""
    counted = cost(name, merged=True)
    spec: Any = model_spec(name).config
    left_out = 8 * sum(c * n for c, n in zip(spec.widths, spec.depths, strict=True))
    assert digits((counted.params - left_out) / 1e6, params) == params
    if macs:
        assert digits(counted.macs / 1e9, macs) == macs


ROWS = ("convnext_tiny", "poolformer_s12", "mambaout_tiny", "unireplknet_t")
MIXERS: list[Any] = [
    "depthwise",
    "pooling",
    "inception_depthwise",
    {"type": "dilated_reparam", "kernel": 7},
    {"type": "slak", "kernel": 13},
    {"type": "reparam_large_kernel", "kernel": 7},
    "large_kernel_attention",
    "multi_scale_lka",  # widens
    "conv3x3",
    "selective_kernel",
    "se",
]


@pytest.mark.parametrize("row", ROWS)
def test_any_mixer_in_any_row(row: str) -> None:
    for mixer in MIXERS:
        model = create_model(row, **NARROW, mixer=mixer, stem="cifar", drop_path_rate=0.1)
        out = model.train()(torch.randn(2, 3, 32, 32))
        out.square().mean().backward()
        assert all(p.grad is not None for p in model.parameters()), mixer
        model = randomise(model).double()
        x = torch.randn(2, 3, 32, 24, dtype=torch.float64)
        with torch.inference_mode():
            assert_same(model(x), deploy(model, input_size=(32, 24))(x), 1e-9)


def test_a_mixer_for_each_stage_and_block() -> None:
    mixer = ["pooling", "depthwise", [{"type": "slak", "kernel": 7}, "pooling"], "se"]
    config: Any = model_spec("convnext_tiny", mixer=mixer).config
    assert config.mixer_of(0, 2)["type"] == "pooling"
    assert [config.mixer_of(2, index)["type"] for index in range(3)] == ["slak", "pooling", "slak"]
    assert config.mixer_of(3, 0)["type"] == "se"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixer": ["pooling"]}, "a list of 4"),
        ({"mixer": [[], "pooling", "pooling", "pooling"]}, "none of them empty"),
        ({"mixer": "poolin"}, "did you mean 'pooling'"),
        ({"mlp_ratios": (4, 4)}, "one number a stage"),
        ({"widths": (2, 2, 2, 2), "mixer": "inception_depthwise"}, "three kernels"),
        ({"attention": {"type": "se", "stages": [5]}}, "from 1 to 4"),
        ({"layer_scale": 0}, "layer_scale"),
        ({"mixer": {"type": "grouped", "groups": 4, "group_width": 8}}, "leave group_width out"),
        (
            {"mixer": ["se", "se", ["se", {"type": "hierarchical_split", "base_width": 8}], "se"]},
            "leave base_width out",
        ),
        ({"mixer": {"type": "hierarchical_split", "scale": 7}}, "7 does not divide 96 channels"),
        ({"block": "gated", "mlp_ratios": (4, 4, 4, 0.5)}, "1 or more"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_model("convnext_tiny", **changes)


@pytest.mark.parametrize("name", [one for one in BACKBONES if BACKBONES[one][0] == "metaformer"])
def test_test_images_are_cropped_as_the_authors_did(name: str) -> None:
    if not timm.is_model(name):
        assert name.startswith(("unireplknet", "slaknet"))
        return
    with torch.device("meta"):
        cfg = create_model(name).pretrained_cfg
    theirs = timm.models.get_pretrained_cfg(name)
    if (theirs.input_size, name.startswith("convnext_")) == (cfg["input_size"], False):
        assert cfg["crop_pct"] == theirs.crop_pct
    else:  # timm's first weights of a ConvNeXt are its own
        assert cfg["crop_pct"] == timm.models.get_pretrained_cfg(f"{name}.fb_in1k").crop_pct


def test_a_size_that_is_too_small_is_named_as_it_was_asked_for() -> None:
    with pytest.raises(InputError, match="cannot take 8x8 images"):
        describe(create_model("convnext_tiny", 10), 8)
