"""The papers' releases load by their own names and shapes, and give their equations' outputs.

`official_keys.json.gz` has the name and shape of every tensor in each release.
"""

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from blocklab import create_model, load_weights
from blocklab.blocks.registry import create_block
from blocklab.errors import InputError
from blocklab.models.spec import model_spec
from blocklab.models.weights import match_weights

State = dict[str, Tensor]
RELEASES: dict[str, dict[str, Any]] = json.loads(
    gzip.decompress((Path(__file__).parent / "official_keys.json.gz").read_bytes())
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def random_state(tensors: Mapping[str, Sequence[int]]) -> State:
    """Values under which no tensor can be mistaken for another, and maps neither die nor grow."""
    generator = torch.Generator().manual_seed(3)
    state: State = {}
    for name, shape in tensors.items():
        value = torch.empty(tuple(shape))
        if name.endswith("num_batches_tracked"):
            value = torch.tensor(7)
        elif name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            value.uniform_(0.5, 1.5, generator=generator)
        elif len(shape) == 1 or name.endswith("bias"):
            value.normal_(0, 0.2, generator=generator)
        else:
            fan_in = max(1, value[0].numel())
            value.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
        state[name] = value
    return state


def images(height: int = 64, width: int = 96) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def assert_same_outputs(theirs: Tensor, ours: Tensor) -> None:
    assert theirs.std() > 0
    difference = (theirs - ours).abs().max() / theirs.abs().max()
    assert difference < 1e-5, f"relative difference {difference:.1e}"


# The papers' networks, written from their equations over the names of the releases.
def norm(state: State, name: str, x: Tensor) -> Tensor:
    mean, variance, weight, bias = (
        state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return F.batch_norm(x, mean, variance, weight, bias)


def conv(state: State, name: str, x: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    padding, groups = dilation * (weight.shape[2] // 2), x.shape[1] // weight.shape[1]
    return F.conv2d(x, weight, state.get(f"{name}.bias"), stride, padding, dilation, groups)


def depth(state: State, prefix: str) -> int:
    """How many numbered parts follow a prefix."""
    return len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)})


def inside(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)}


def official_lka(state: State, x: Tensor) -> Tensor:
    gate = conv(state, "conv_spatial", conv(state, "conv0", x), dilation=3)
    return x * conv(state, "conv1", gate)


def official_van(state: State, x: Tensor) -> Tensor:
    for stage in range(1, 5):
        x = conv(state, f"patch_embed{stage}.proj", x, stride=4 if stage == 1 else 2)
        x = norm(state, f"patch_embed{stage}.norm", x)
        for index in range(depth(state, f"block{stage}.")):
            block = f"block{stage}.{index}"
            y = norm(state, f"{block}.norm1", x)
            value = F.gelu(conv(state, f"{block}.attn.proj_1", y))
            value = official_lka(inside(state, f"{block}.attn.spatial_gating_unit."), value)
            y = y + conv(state, f"{block}.attn.proj_2", value)
            x = x + state[f"{block}.layer_scale_1"].view(1, -1, 1, 1) * y
            y = conv(state, f"{block}.mlp.fc1", norm(state, f"{block}.norm2", x))
            y = F.gelu(conv(state, f"{block}.mlp.dwconv.dwconv", y))
            y = conv(state, f"{block}.mlp.fc2", y)
            x = x + state[f"{block}.layer_scale_2"].view(1, -1, 1, 1) * y
        weight, bias = state[f"norm{stage}.weight"], state[f"norm{stage}.bias"]
        x = F.layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, bias, 1e-6)
        x = x.permute(0, 3, 1, 2)
    return x.mean((2, 3)) @ state["head.weight"].T + state["head.bias"]


def official_replknet(state: State, x: Tensor) -> Tensor:
    def conv_bn(name: str, x: Tensor, stride: int = 1) -> Tensor:
        return norm(state, f"{name}.bn", conv(state, f"{name}.conv", x, stride))

    for layer, stride in enumerate((2, 1, 1, 2)):
        x = F.relu(conv_bn(f"stem.{layer}", x, stride))
    for stage in range(4):
        if stage:
            x = F.relu(conv_bn(f"transitions.{stage - 1}.0", x))
            x = F.relu(conv_bn(f"transitions.{stage - 1}.1", x, 2))
        for index in range(depth(state, f"stages.{stage}.blocks.") // 2):
            block = f"stages.{stage}.blocks.{2 * index}"
            y = F.relu(conv_bn(f"{block}.pw1", norm(state, f"{block}.prelkb_bn", x)))
            if f"{block}.large_kernel.lkb_reparam.weight" in state:
                y = conv(state, f"{block}.large_kernel.lkb_reparam", y)
            else:
                large = conv_bn(f"{block}.large_kernel.lkb_origin", y)
                y = large + conv_bn(f"{block}.large_kernel.small_conv", y)
            x = x + conv_bn(f"{block}.pw2", F.relu(y))
            block = f"stages.{stage}.blocks.{2 * index + 1}"
            y = F.gelu(conv_bn(f"{block}.pw1", norm(state, f"{block}.preffn_bn", x)))
            x = x + conv_bn(f"{block}.pw2", y)
    return norm(state, "norm", x).mean((2, 3)) @ state["head.weight"].T + state["head.bias"]


def merged(state: State) -> State:
    """The same network with each pair of depth-wise kernels as one, which has a bias."""
    out = {n: v for n, v in state.items() if ".lkb_origin." not in n and ".small_conv." not in n}
    for name in state:
        if not name.endswith(".lkb_origin.conv.weight"):
            continue
        kernel, bias = 0, 0
        prefix = name.removesuffix("lkb_origin.conv.weight")
        size = state[name].shape[2]
        for branch in ("lkb_origin", "small_conv"):
            bn = inside(state, f"{prefix}{branch}.bn.")
            scale = bn["weight"] / torch.sqrt(bn["running_var"] + 1e-5)
            small = state[f"{prefix}{branch}.conv.weight"] * scale[:, None, None, None]
            kernel = kernel + F.pad(small, [(size - small.shape[2]) // 2] * 4)
            bias = bias + bn["bias"] - bn["running_mean"] * scale
        out |= {f"{prefix}lkb_reparam.weight": kernel, f"{prefix}lkb_reparam.bias": bias}
    return out


def official_triplet(state: State, x: Tensor) -> Tensor:
    """Pool one axis to its maximum and mean, 7x7, BatchNorm, sigmoid; the mean of three."""
    out = torch.zeros_like(x)
    for names, axes in (
        (("cw.conv", "ChannelGateH.spatial"), (0, 2, 1, 3)),
        (("hc.conv", "ChannelGateW.spatial"), (0, 3, 2, 1)),
        (("hw.conv", "SpatialGate.spatial"), (0, 1, 2, 3)),
    ):
        name = next(name for name in names if f"{name}.conv.weight" in state)
        turned = x.permute(axes)
        pooled = torch.stack([turned.max(1).values, turned.mean(1)], 1)
        gate = norm(state, f"{name}.bn", conv(state, f"{name}.conv", pooled)).sigmoid()
        out = out + (turned * gate).permute(axes)
    return out / 3


def official_resnet_with_triplet(state: State, x: Tensor) -> Tensor:
    x = F.relu(norm(state, "bn1", conv(state, "conv1", x, 2)))
    x = F.max_pool2d(x, 3, 2, 1)
    bottleneck = "layer1.0.conv3.weight" in state
    for stage in range(1, 5):
        for index in range(depth(state, f"layer{stage}.")):
            block = f"layer{stage}.{index}"
            stride = 2 if stage > 1 and index == 0 else 1
            strides = (1, stride, 1) if bottleneck else (stride, 1)
            y = x
            for layer, step in enumerate(strides, 1):
                y = norm(state, f"{block}.bn{layer}", conv(state, f"{block}.conv{layer}", y, step))
                y = F.relu(y) if layer < len(strides) else y
            y = official_triplet(inside(state, f"{block}.triplet_attention."), y)
            if f"{block}.downsample.0.weight" in state:
                x = norm(
                    state, f"{block}.downsample.1", conv(state, f"{block}.downsample.0", x, stride)
                )
            x = F.relu(x + y)
    return x.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]


def of_timm(name: str) -> Callable[[State, Tensor], Tensor]:
    def run(state: State, x: Tensor) -> Tensor:
        model = timm.create_model(name).eval()
        model.load_state_dict(state)
        return model(x)

    return run


def official_coordinate(state: State, x: Tensor) -> Tensor:
    height = x.shape[2]
    pooled = torch.cat([x.mean(3), x.mean(2)], 2).unsqueeze(3)  # (B, C, H + W, 1)
    features = norm(state, "bn1", conv(state, "conv1", pooled))
    features = features * F.relu6(features + 3) / 6
    rows = conv(state, "conv_h", features[:, :, :height]).sigmoid()
    columns = conv(state, "conv_w", features[:, :, height:]).sigmoid()
    return x * rows * columns.transpose(2, 3)


def official_context(state: State, x: Tensor) -> Tensor:
    weights = conv(state, "conv_mask", x).flatten(1).softmax(1)
    context = torch.einsum("bcn,bn->bc", x.flatten(2), weights)[:, :, None, None]
    hidden = conv(state, "channel_add_conv.0", context)
    mean, variance = hidden.mean(1, True), hidden.var(1, correction=0, keepdim=True)
    hidden = (hidden - mean) / torch.sqrt(variance + 1e-5)
    hidden = hidden * state["channel_add_conv.1.weight"] + state["channel_add_conv.1.bias"]
    return x + conv(state, "channel_add_conv.3", F.relu(hidden))


NETWORKS: dict[str, tuple[str, str, Callable[[State, Tensor], Tensor]]] = {
    "res2net50_26w_4s": (
        "res2net50_26w_4s",
        "Res2Net (official, timm)",
        of_timm("res2net50_26w_4s"),
    ),
    "res2net50_v1b_26w_4s": (
        "res2net50_v1b_26w_4s",
        "Res2Net (official, timm)",
        of_timm("res2net50d"),
    ),
    "triplet_resnet50": (
        "resnet50_triplet",
        "Triplet Attention (official)",
        official_resnet_with_triplet,
    ),
    "van_b0": ("van_b0", "VAN (official, blocklab)", official_van),
    "van_b1": ("van_b1", "VAN (official, blocklab)", official_van),
    "replknet31b": ("replknet_31b", "RepLKNet (official, blocklab)", official_replknet),
}
MODULES: dict[str, tuple[str, int, Callable[[State, Tensor], Tensor]]] = {
    "coordatt": ("coordinate", 64, official_coordinate),
    "gc": ("global_context", 64, official_context),
    "triplet": ("triplet", 6, official_triplet),
    "lka": ("large_kernel_attention", 32, official_lka),
}


def test_every_release_is_here() -> None:
    assert RELEASES.keys() == NETWORKS.keys() | MODULES.keys()


@pytest.mark.parametrize("release", NETWORKS)
def test_a_releases_names_and_shapes_are_the_catalogues(release: str) -> None:
    name, source, _ = NETWORKS[release]
    model = model_spec(name).build_meta()
    assert sum(p.numel() for p in model.parameters()) == RELEASES[release]["params"]
    state = {n: torch.empty(s, device="meta") for n, s in RELEASES[release]["tensors"].items()}
    report = match_weights(model, state).report
    assert report.source == source
    assert not report.problems()
    assert len(report.loaded) == len(model.state_dict()) == len(state)


@pytest.mark.parametrize(
    "release",
    [pytest.param(n, marks=pytest.mark.slow if n == "replknet31b" else ()) for n in NETWORKS],
)
def test_a_release_gives_its_papers_outputs(release: str) -> None:
    name, _, run = NETWORKS[release]
    state = random_state(RELEASES[release]["tensors"])
    ours = create_model(name, pretrained=state).eval()
    with torch.inference_mode():
        x = images()
        assert_same_outputs(run(state, x), ours(x))


@pytest.mark.slow
def test_replknet_31b_merged_gives_the_same() -> None:
    state = random_state(RELEASES["replknet31b"]["tensors"])
    ours = create_model("replknet_31b", pretrained=merged(state)).eval()
    assert any("lkb_reparam" in name for name in ours.state_dict())
    with torch.inference_mode():
        assert_same_outputs(official_replknet(state, images()), ours(images()))


@pytest.mark.parametrize("form", ["training", "merged"])
def test_a_small_replknet_in_both_forms(form: str) -> None:
    slots: dict[str, Any] = {"stem": "imagenet", "depths": (1, 2, 1, 1)}
    state = create_model("replknet_31n", num_classes=10, **slots).state_dict()
    for name, value in state.items():
        if value.ndim == 1:
            value.uniform_(0.5, 1.5) if name.endswith(("weight", "var")) else value.normal_(0, 0.2)
    given = merged(state) if form == "merged" else state
    ours: Any = create_model("replknet_31n", num_classes=10, pretrained={"model": given}, **slots)
    assert any("lkb_reparam" in name for name in ours.state_dict()) is (form == "merged")
    with torch.inference_mode():
        assert_same_outputs(official_replknet(given, images()), ours.eval()(images()))


@pytest.mark.parametrize("release", MODULES)
def test_a_released_module_gives_its_papers_outputs(release: str) -> None:
    block, channels, run = MODULES[release]
    state = random_state(RELEASES[release]["tensors"])
    ours = create_block("attention", block, channels=channels).eval()
    assert sum(p.numel() for p in ours.parameters()) == RELEASES[release]["params"]
    report = load_weights(ours, state)
    assert not report.problems()
    assert len(report.loaded) == len(state)
    x = torch.randn(2, channels, 9, 14, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        assert_same_outputs(run(state, x), ours(x))


def test_the_triplet_modules_older_names() -> None:
    renames = (("cw.", "ChannelGateH."), ("hc.", "ChannelGateW."), ("hw.", "SpatialGate."))
    state = random_state(RELEASES["triplet"]["tensors"])
    older = {
        name.replace(new, old).replace(".conv.", ".spatial.", 1): value
        for name, value in state.items()
        for new, old in renames
        if name.startswith(new)
    }
    ours = create_block("attention", "triplet", channels=5).eval()
    assert load_weights(ours, older).source == "Triplet module (official)"
    x = torch.randn(2, 5, 6, 7)
    with torch.inference_mode():
        assert_same_outputs(official_triplet(state, x), ours(x))


@pytest.mark.parametrize("base", ["resnet18", "resnet101"])
def test_the_triplet_authors_other_resnets(base: str) -> None:
    """Their names around a torchvision ResNet; by the names alone where it is large."""
    with torch.device("meta"):
        network = torchvision.models.get_model(base)
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    last = "conv2" if base == "resnet18" else "conv3"
    blocks = [name.removesuffix(f"{last}.weight") for name in shapes if f"{last}.weight" in name]
    for block in blocks:
        for name, shape in RELEASES["triplet"]["tensors"].items():
            new = name.replace("cw.conv", "ChannelGateH.spatial")
            new = new.replace("hc.conv", "ChannelGateW.spatial")
            new = new.replace("hw.conv", "SpatialGate.spatial")
            shapes[f"{block}triplet_attention.{new}"] = torch.Size(shape)
    state = random_state(shapes)
    wrapped = {"state_dict": {f"module.{name}": value for name, value in state.items()}}
    ours = create_model(f"{base}_triplet", pretrained=wrapped).eval()
    if base == "resnet18":
        with torch.inference_mode():
            assert_same_outputs(official_resnet_with_triplet(state, images()), ours(images()))


# Name in the catalogue -> the network of another package that is the same design.
SAME_DESIGNS = {
    **{name: f"torchvision:{name}" for name in (f"resnet{d}" for d in (18, 34, 50, 101, 152))},
    **{name: f"timm:{name}" for name in (f"resnet{d}d" for d in (18, 34, 50, 101, 152))},
    "resnet50_se": "timm:seresnet50",
    "skresnet18": "timm:skresnet18",
    "skresnet34": "timm:skresnet34",
    "skresnet50": "timm:skresnet50",
    "res2net50_26w_4s": "timm:res2net50_26w_4s",
    "res2net50_26w_6s": "timm:res2net50_26w_6s",
    "res2net50_26w_8s": "timm:res2net50_26w_8s",
    "res2net50_48w_2s": "timm:res2net50_48w_2s",
    "res2net50_14w_8s": "timm:res2net50_14w_8s",
    "res2net101_26w_4s": "timm:res2net101_26w_4s",
    "res2net50_v1b_26w_4s": "timm:res2net50d",
    "res2net101_v1b_26w_4s": "timm:res2net101d",
}
RUN_IN_CI = ("resnet18d", "skresnet34", "res2net50_14w_8s", "res2net50_48w_2s")


def theirs_of(address: str) -> nn.Module:
    package, name = address.split(":")
    if package == "torchvision":
        return torchvision.models.get_model(name)
    return timm.create_model(name)


@pytest.mark.parametrize("name", SAME_DESIGNS)
def test_another_packages_names_and_shapes_are_the_catalogues(name: str) -> None:
    with torch.device("meta"):
        state = theirs_of(SAME_DESIGNS[name]).state_dict()
    model = model_spec(name).build_meta()
    report = match_weights(model, state).report
    assert not report.problems()
    assert len(report.loaded) == len(model.state_dict()) == len(state)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in RUN_IN_CI else pytest.mark.slow) for n in SAME_DESIGNS],
)
def test_another_packages_weights_give_its_outputs(name: str) -> None:
    theirs = theirs_of(SAME_DESIGNS[name]).eval()
    for key, value in theirs.state_dict().items():
        if value.ndim == 1:  # norms that start at zero would hide what follows them
            value.uniform_(0.5, 1.0) if key.endswith(("weight", "var")) else value.normal_(0, 0.2)
    ours = create_model(name, pretrained=theirs.state_dict()).eval()
    with torch.inference_mode():
        assert_same_outputs(theirs(images()), ours(images()))


def test_gcresnet50t_is_another_network() -> None:
    with torch.device("meta"):
        state = timm.create_model("gcresnet50t").state_dict()
    with pytest.raises(InputError, match=r"gcresnet50t.*no slots make.*strides 2, 1 and 2"):
        load_weights(model_spec("resnet50_gc").build_meta(), state)


def test_context_blocks_of_a_detector() -> None:
    model = create_model("resnet50_gc", num_classes=0, depths=(1, 1, 1, 1))
    theirs = {
        f"backbone.{name.replace('.attention.', '.context_block.')}": value
        for name, value in model.state_dict().items()
    }
    loaded = create_model("resnet50_gc", num_classes=0, depths=(1, 1, 1, 1))
    report = load_weights(loaded, {"meta": {"epoch": 1}, "state_dict": theirs})
    assert report.source == "ResNet with context blocks (MMDetection)"
    assert torch.equal(
        loaded.state_dict()["layer4.0.attention.conv_mask.weight"],
        model.state_dict()["layer4.0.attention.conv_mask.weight"],
    )
