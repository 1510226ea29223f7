"""Every named model: its parameters by the papers' formulas, and one training step.

The formulas below never look at a module. They read a model's specification and add up what the
equations of its papers say: a k x k convolution has k k C_in C_out / groups weights, BatchNorm two
a channel, and so on. The count that an entry declares, the formulas and the built network agree.
"""

import json
import math
from typing import Any

import pytest
import timm
import torch
from torch.nn import functional as F

from blocklab import cost, create_model, list_models
from blocklab.errors import InputError
from blocklab.models.meta_device import without_memory
from blocklab.models.names import declared_params
from blocklab.models.spec import ModelSpec, model_spec

Spec = dict[str, Any]


# Formulas, from the inside out.
def conv(k: int, c_in: int, c_out: int, groups: int = 1, bias: bool = False) -> int:
    return k * k * (c_in // groups) * c_out + (c_out if bias else 0)


def depthwise(k: int, c: int, bias: bool = True) -> int:
    return conv(k, c, c, groups=c, bias=bias)


def norm(c: int) -> int:
    return 2 * c


def lka(c: int, local: int, kernel: int, norms: bool) -> int:
    """VAN, section 3.1: depth-wise, depth-wise dilated, point-wise, each with a bias."""
    return depthwise(local, c) + depthwise(kernel, c) + conv(1, c, c, bias=True) + norms * 3 * 2 * c


def coordinate(c: int, reduction: int) -> int:
    """Coordinate Attention, section 3.2: one 1x1 in, BatchNorm, two 1x1 out."""
    hidden = max(8, c // reduction)
    return conv(1, c, hidden, bias=True) + norm(hidden) + 2 * conv(1, hidden, c, bias=True)


def triplet(c: int, spec: Spec) -> int:
    """Triplet Attention, section 3.3: three gates, none of which depends on C."""
    gate = conv(spec["kernel"], len(spec["statistics"]), 1) + norm(1)
    spatial = {
        "zpool": gate,
        "coordinate": coordinate(c, 16),
        "large_kernel": conv(1, c, 1, bias=True) + depthwise(5, 1) + depthwise(7, 1) + norm(1),
        "full_large_kernel": lka(c, 5, 7, norms=False),
    }
    return 2 * gate + spatial[spec["spatial"]]


def attention(c: int, spec: Spec) -> int:
    kind = spec["type"]
    if kind == "triplet":
        return triplet(c, spec)
    if kind == "coordinate":
        return coordinate(c, spec["reduction"])
    if kind == "large_kernel_attention":
        return lka(c, spec["local_kernel"], spec["kernel"], spec["norm"])
    hidden = max(1, c // spec["reduction"])
    gates = conv(1, c, hidden, bias=True) + conv(1, hidden, c, bias=True)
    if kind == "se":
        return gates
    assert kind == "global_context"
    return gates + conv(1, c, 1, bias=True) + norm(hidden)


def split(c_in: int, c_out: int, spec: Spec) -> int:
    """Res2Net, section 3.1: scale - 1 convolutions of C / scale channels, one shared attention."""
    width = c_out // spec["scale"]
    project = conv(1, c_in, c_out) + norm(c_out) if c_in != c_out else 0
    shared = sum(attention(width, one) for one in spec.get("attention", []))
    return project + (spec["scale"] - 1) * (conv(3, width, width) + norm(width)) + shared


def selective_kernel(c_in: int, c_out: int, spec: Spec) -> int:
    """SKNet, section 3.1, with timm's options for halved inputs and rounded widths."""
    branches = len(spec["dilations"])
    taken = c_in // branches if spec["split_input"] else c_in
    groups = next(
        g for g in range(spec["groups"], 0, -1) if math.gcd(taken, c_out) % g == 0
    )  # the paper's, where the channels divide by it
    step = spec["hidden_divisor"]
    hidden = max(spec["min_hidden"], (c_out // spec["reduction"] + step // 2) // step * step)
    select = conv(1, c_out, hidden) + norm(hidden) + conv(1, hidden, branches * c_out)
    return branches * (conv(3, taken, c_out, groups) + norm(c_out)) + select


def mixer(c_in: int, c_out: int, spec: Spec) -> int:
    """What stands for a 3x3 convolution and its BatchNorm."""
    if spec["type"] == "hierarchical_split":
        return split(c_in, c_out, spec)
    if spec["type"] == "selective_kernel":
        return selective_kernel(c_in, c_out, spec)
    if spec["type"] == "grouped":
        return conv(3, c_in, c_out, spec["groups"]) + norm(c_out)
    assert spec["type"] == "conv3x3"
    return conv(3, c_in, c_out) + norm(c_out)


def resnet(spec: Spec, num_classes: int, in_chans: int) -> int:
    width = spec["widths"][0]
    if spec["stem"]["type"] == "deep":
        first, second = spec["stem"]["widths"]
        total = conv(3, in_chans, first) + norm(first) + conv(3, first, second) + norm(second)
        total += conv(3, second, width) + norm(width)
    else:
        total = conv({"imagenet": 7, "cifar": 3}[spec["stem"]["type"]], in_chans, width)
        total += norm(width)
    bottleneck = spec["block"] == "bottleneck"
    channels = width
    for stage, (depth, planes) in enumerate(
        zip(spec["depths"], spec["widths"], strict=False), start=1
    ):
        out = planes * 4 if bottleneck else planes
        inside = planes
        if spec["mixer"]["type"] == "hierarchical_split":
            inside = planes * spec["mixer"]["base_width"] // 64 * spec["mixer"]["scale"]
        elif spec["mixer"]["type"] == "grouped":
            inside = planes * spec["mixer"]["group_width"] // 64 * spec["mixer"]["groups"]
        for index in range(depth):
            if bottleneck:
                total += conv(1, channels, inside) + norm(inside)
                total += mixer(inside, inside, spec["mixer"])
                total += conv(1, inside, out) + norm(out)
            else:
                total += mixer(channels, inside, spec["mixer"])
                total += conv(3, inside, out) + norm(out)
            if spec["downsample"] != "pad" and (channels != out or (index == 0 and stage > 1)):
                total += conv(1, channels, out) + norm(out)
            for one in spec["attention"]:
                if stage in one.get("stages", [1, 2, 3, 4]):
                    total += attention(out, one)
            channels = out
    return total + channels * num_classes + num_classes


def large_kernel(c: int, kernel: int, small: int | None) -> int:
    """RepLKNet, section 3, in the form that trains: both kernels with BatchNorm, no bias."""
    both = [kernel] if small is None else [kernel, small]
    return sum(depthwise(k, c, bias=False) + norm(c) for k in both)


def replk_block(c: int, kernel: int, small: int | None, width: float) -> int:
    inner = int(c * width)
    ends = norm(c) + conv(1, c, inner) + norm(inner) + conv(1, inner, c) + norm(c)
    return ends + large_kernel(inner, kernel, small)


def van(spec: Spec, num_classes: int, in_chans: int) -> int:
    total, channels = 0, in_chans
    for stage, (c, depth, ratio) in enumerate(
        zip(spec["widths"], spec["depths"], spec["ffn_ratios"], strict=True)
    ):
        kernel = 7 if stage == 0 and spec["stem"] == "imagenet" else 3
        unit, widened = spec["mixer"], c
        if unit["type"] == "multi_scale_lka":
            widened = c * len(unit["kernels"])
            spatial = sum(lka(c, unit["local_kernel"], k, False) for k in unit["kernels"])
        elif unit["type"] == "reparam_large_kernel":
            spatial = replk_block(c, unit["kernel"], unit["small_kernel"], unit["width"])
        elif unit["type"] == "plain_large_kernel":  # a bias for BatchNorm's two
            spatial = replk_block(c, unit["kernel"], None, unit["width"]) - int(c * unit["width"])
        else:
            spatial = attention(c, unit)
        hidden, ffn = c * ratio, spec["ffn_mixer"]
        inside, grown = depthwise(3, hidden), hidden
        if ffn["type"] == "hierarchical_split":
            grown = hidden * ffn["expansion"]
            groups = hidden * ffn["base_width"] // 64 * ffn["scale"]
            inside = conv(1, hidden, groups) + norm(groups) + split(groups, groups, ffn)
            inside += conv(1, groups, grown) + norm(grown) + conv(1, hidden, grown) + norm(grown)
        block = norm(c) + conv(1, c, c, bias=True) + spatial + conv(1, widened, c, bias=True)
        block += norm(c) + conv(1, c, hidden, bias=True) + inside + conv(1, grown, c, bias=True)
        block += 2 * c  # the two layer scales
        total += conv(kernel, channels, c, bias=True) + norm(c) + depth * block + norm(c)
        channels = c
    return total + channels * num_classes + num_classes


def replknet(spec: Spec, num_classes: int, in_chans: int) -> int:
    def step(k: int, c_in: int, c_out: int, groups: int = 1) -> int:
        return conv(k, c_in, c_out, groups) + norm(c_out)

    widths, c = spec["widths"], spec["widths"][0]
    total = step(3, in_chans, c) + 2 * step(3, c, c, c) + step(1, c, c)
    for stage, (c, depth, kernel) in enumerate(
        zip(widths, spec["depths"], spec["kernels"], strict=True)
    ):
        small = spec["mixer"]["small_kernel"]
        hidden = int(c * spec["ffn_ratio"])
        ffn = norm(c) + step(1, c, hidden) + step(1, hidden, c)
        block = replk_block(c, kernel, small and min(small, kernel), spec["mixer"]["width"])
        total += depth * (block + ffn)
        if stage + 1 < len(widths):
            total += step(1, c, widths[stage + 1]) + step(3, *[widths[stage + 1]] * 3)
    return total + norm(c) + c * num_classes + num_classes


def token_mixer(c: int, spec: Spec) -> int:
    """Of ConvNeXt, InceptionNeXt (section 3.2), PoolFormer, SLaK and UniRepLKNet (section 3.1)."""
    kind = spec["type"]
    if kind == "pooling":
        return 0
    if kind == "inception_depthwise":
        group = int(c * spec["ratio"])
        return group * (spec["kernel"] ** 2 + 2 * spec["band"] + 3)
    if kind == "slak":
        k, s = spec["kernel"], spec["small_kernel"]
        return c * (2 * k * s + s * s) + 3 * norm(c)
    if kind == "dilated_reparam":
        if spec["kernel"] == 3:
            return depthwise(3, c, bias=False)
        assert spec["kernel"] == 13
        return sum(depthwise(k, c, bias=False) + norm(c) for k in (13, 5, 7, 3, 3, 3))
    assert kind == "depthwise"
    return depthwise(spec["kernel"], c)


def metaformer(spec: Spec, num_classes: int, in_chans: int) -> int:
    widths, first = spec["widths"], spec["widths"][0]
    outer = norm if spec["outer_norm"] else lambda c: 0
    if spec["stem"] == "cifar":
        total = conv(3, in_chans, first, bias=True) + outer(first)
    elif spec["embedding"] == "two_convs":
        half = first // 2
        total = conv(3, in_chans, half, bias=True) + outer(half)
        total += conv(3, half, first, bias=True) + outer(first)
    else:
        kernel = {"patch": 4, "overlap": 7}[spec["embedding"]]
        total = conv(kernel, in_chans, first, bias=True) + outer(first)
    for stage, (c, depth, ratio) in enumerate(
        zip(widths, spec["depths"], spec["mlp_ratios"], strict=True)
    ):
        if stage:
            patch = spec["downsample"] == "patch"
            total += conv(2 if patch else 3, widths[stage - 1], c, bias=True)
            total += outer(widths[stage - 1] if patch else c)
        hidden = int(ratio * c)
        halves = 2 if spec["block"] == "double" else 1
        entered = 2 * hidden if spec["block"] == "gated" else hidden
        block = halves * norm(c) + conv(1, c, entered, bias=True) + conv(1, hidden, c, bias=True)
        block += spec["grn"] * 2 * hidden + spec["mlp_norm"] * (norm(c) - c)
        block += halves * c * (spec["layer_scale"] is not None)
        block += sum(attention(c, one) for one in spec["attention"])
        total += depth * block
        mixers = spec["mixer"][stage] if isinstance(spec["mixer"], list) else spec["mixer"]
        mixers = mixers if isinstance(mixers, list) else [mixers]
        total += sum(token_mixer(c, mixers[index % len(mixers)]) for index in range(depth))
    c = widths[-1]
    total += spec["head_norm"] * norm(c)
    if ratio := spec["head_ratio"]:
        total += c * ratio * c + ratio * c + norm(ratio * c)
        c *= ratio
    return total + c * num_classes + num_classes


FAMILY_FORMULAS = {"resnet": resnet, "van": van, "replknet": replknet, "metaformer": metaformer}


def params_by_formula(spec: ModelSpec, num_classes: int = 1000, in_chans: int = 3) -> int:
    plain = spec.to_dict()
    return FAMILY_FORMULAS[plain["family"]](plain, num_classes, in_chans)


@pytest.mark.parametrize("name", list_models())
def test_entry_formula_and_network_agree(name: str) -> None:
    declared = declared_params(name)
    assert params_by_formula(model_spec(name)) == declared
    with without_memory():
        network = create_model(name)
    assert sum(weight.numel() for weight in network.parameters()) == declared


def test_the_formulas_take_classes_and_channels_from_the_data() -> None:
    for name in ("resnet20_ca", "van_b0_mb", "replknet_31n", "mambaout_femto"):
        built = cost(name, input_size=32, num_classes=7, in_chans=1).params
        assert params_by_formula(model_spec(name), num_classes=7, in_chans=1) == built


# The same designs as timm has them: its counts know nothing of ours.
TIMM_NAMES = {
    **{f"resnet{depth}": f"resnet{depth}" for depth in (18, 34, 50, 101, 152)},
    **{f"resnet{depth}d": f"resnet{depth}d" for depth in (18, 34, 50, 101, 152)},
    **{f"skresnet{depth}": f"skresnet{depth}" for depth in (18, 34, 50)},
    **{f"resnet{depth}_se": f"seresnet{depth}" for depth in (50, 101, 152)},
    **{
        f"res2net50_{name}": f"res2net50_{name}"
        for name in ("14w_8s", "26w_4s", "26w_6s", "26w_8s", "48w_2s")
    },
    "res2net50_v1b_26w_4s": "res2net50d",
    "res2net101_26w_4s": "res2net101_26w_4s",
    "res2net101_v1b_26w_4s": "res2net101d",
}


@pytest.mark.parametrize("name", TIMM_NAMES)
def test_counts_are_those_of_timm(name: str) -> None:
    with torch.device("meta"):
        theirs = timm.create_model(TIMM_NAMES[name])
    assert declared_params(name) == sum(weight.numel() for weight in theirs.parameters())


def test_what_the_names_stand_for() -> None:
    assert model_spec("res2net50_celu_cd_st") == model_spec(
        {
            "backbone": "resnet50",
            "mixer": {
                "type": "hierarchical_split",
                "scale": 4,
                "base_width": 16,
                "attention": "se",
            },
            "activation": "celu",
            "stem": "deep",
            "downsample": "avgpool",
            "attention": "triplet",
        }
    )
    assert model_spec("res2net50_s2") == model_spec("res2net50_se")
    assert model_spec("van_b1_lk").to_dict()["mixer"]["dilation"] == 5
    assert model_spec("van_b1_lk_d3").to_dict()["mixer"]["dilation"] == 3
    assert cost("van_b1_lk") == cost("van_b1_lk_d3")
    assert model_spec("resnet50_gc").to_dict()["attention"][0]["stages"] == [2, 3, 4]
    drawn, run = model_spec("resnet50_tripletlkn"), model_spec("resnet50_tripletlkn_full")
    assert drawn.to_dict()["attention"][0]["spatial"] == "large_kernel"
    assert run.to_dict()["attention"][0]["spatial"] == "full_large_kernel"


def test_no_two_names_are_one_model_but_for_those_that_have_two() -> None:
    seen: dict[str, str] = {}
    twice = set()
    for name in list_models():
        first = seen.setdefault(json.dumps(model_spec(name).to_dict(), sort_keys=True), name)
        if first != name:
            twice.add((first, name))
    assert twice == {
        *((f"res2net{depth}_se", f"res2net{depth}_s2") for depth in (18, 20, 50, 101)),
        *(
            (f"resnet{depth}_tripletlkn_full", f"resnet{depth}_tripletlkn_as_run")
            for depth in (18, 20, 34, 50, 101)
        ),
    }


def train_one_step(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=10).train()
    images, labels = torch.randn(2, 3, 32, 32), torch.tensor([1, 7])
    before = {key: weight.detach().clone() for key, weight in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    out = model(images)
    assert out.shape == (2, 10)
    loss = F.cross_entropy(out, labels)
    loss.backward()
    assert torch.isfinite(loss)
    missing = [key for key, weight in model.named_parameters() if weight.grad is None]
    assert not missing
    optimizer.step()
    moved = [k for k, weight in model.named_parameters() if not torch.equal(weight, before[k])]
    assert len(moved) > len(before) / 2
    assert all(torch.isfinite(weight).all() for weight in model.parameters())


# A few at full size, and all slots narrowed: in `test_contract.py`.
@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_a_step_of_training(name: str) -> None:
    train_one_step(name)


# A model in one line of text.
def test_slots_after_a_colon() -> None:
    def same(text: str, mapping: Spec) -> None:
        assert model_spec(text) == model_spec(mapping)

    same("resnet50:attention=se", {"base": "resnet50", "attention": "se"})
    same(
        "resnet50:attention=[se, triplet],stem=deep",
        {"base": "resnet50", "attention": ["se", "triplet"], "stem": "deep"},
    )
    same(
        "resnet50:attention={type: mean, of: [se, {type: global_context, reduction: 8}]}",
        {
            "base": "resnet50",
            "attention": {
                "type": "mean",
                "of": ["se", {"type": "global_context", "reduction": 8}],
            },
        },
    )
    same(
        " res2net50 : mixer.scale = 8 , mixer.attention = {type: se, reduction: 4}",
        {
            "base": "res2net50",
            "mixer.scale": 8,
            "mixer.attention": {"type": "se", "reduction": 4},
        },
    )
    same(
        "resnet20:mixer={type: selective_kernel, stages: 3}, attention={type: se, stages: [1, 2]}",
        {
            "base": "resnet20",
            "mixer": {"type": "selective_kernel", "stages": 3},
            "attention": {"type": "se", "stages": [1, 2]},
        },
    )
    # A chain is not a mean, and either builds and learns.
    chain, mean = "resnet20:attention=[se, triplet]", "resnet20:attention={type: mean, of: [se]}"
    assert model_spec(chain) != model_spec(mean)
    train_one_step(chain)
    train_one_step(mean)
    assert cost("van_b0:mixer=se").params < cost("van_b0").params
    assert create_model("resnet20:attention=se", num_classes=4, stem="deep").num_classes == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnet50:", "'' is not slot=value; write such as resnet50:attention="),
        ("resnet50:attention", "'attention' is not slot=value"),
        ("resnet50:attention=", "'attention=' is not slot=value"),
        ("resnet50:=se", "'=se' is not slot=value"),
        ("resnet50:attention=se,", "'' is not slot=value"),
        ("resnet50:attention=[se", "a bracket or quotation mark has no partner"),
        ("resnet50:attention=se]", "a bracket or quotation mark has no partner"),
        ("resnet50:attention='se", "a bracket or quotation mark has no partner"),
        ("resnet50:attention=[se}", "attention, line 1"),
        ("resnet50:stem=deep,stem=cifar", "'stem' is given twice"),
        ("resnet50:base=resnet18", "'base' is given twice"),
        (":attention=se", "names no model before its colon"),
        ("resnett50:attention=se", "no model 'resnett50'; did you mean 'resnet50'"),
        ("resnet50:atention=se", "did you mean 'attention'"),
        ("resnet50:attention=tripel", "did you mean 'triplet'"),
        ("resnet50:attention.x.y=1", "is not slot=value"),
        ("resnet50:attention=!!python/name:os.system", "attention, line 1"),
    ],
)
def test_slots_after_a_colon_that_are_wrong(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        model_spec(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_declared_params_of_an_unknown_model() -> None:
    with pytest.raises(InputError, match="did you mean 'resnet50'"):
        declared_params("resnet500")
