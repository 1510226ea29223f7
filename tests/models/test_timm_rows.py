"""timm's models by name: what they are given, refused, and known by; files that rebuild them."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import blocklab
from blocklab.blocks import timm_code
from blocklab.errors import InputError
from blocklab.measure.cost import Cost
from blocklab.measure.description import describe
from blocklab.models import timm_models
from blocklab.models.export import export_model
from blocklab.models.hub import from_pretrained
from blocklab.models.model_file import load_model
from blocklab.models.spec import ModelSpec, model_spec, spec_of
from blocklab.models.timm_models import check_logits

SMALL = "timm:vit_tiny_patch16_224:depth=2,embed_dim=48"


def test_costs_are_those_of_timms_own_network() -> None:
    network = timm.create_model("convnext_atto", num_classes=10)
    params = sum(p.numel() for p in network.parameters())
    counted = blocklab.cost("timm:convnext_atto", 64, 10)
    assert counted.params == params
    assert counted == blocklab.cost(network, 64)


def test_a_network_is_timms_own_from_the_same_seed() -> None:
    torch.manual_seed(3)
    ours: Any = blocklab.create_model("timm:resnet10t", num_classes=7, drop_path_rate=0.1)
    torch.manual_seed(3)
    theirs: Any = timm.create_model("resnet10t", num_classes=7, drop_path_rate=0.1)
    assert type(ours) is type(theirs)
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))
    assert ours.layer4[0].drop_path.drop_prob == theirs.layer4[0].drop_path.drop_prob > 0.09


@pytest.mark.parametrize(
    ("model", "slots", "said"),
    [
        ("timm:convnxt_atto", {}, "did you mean 'timm:convnext_atto'?"),
        ("timm:", {}, "names no model; write one, such as timm:convnext_atto"),
        ("timm:convnext_atto.d2_in1k", {}, "'d2_in1k' in timm:convnext_atto.d2_in1k names weights"),
        ("timm:blocklab_resnet18", {}, "blocklab's own model: write resnet18"),
        ("timm:blocklab", {}, "blocklab's own model: write resnet18"),
        ("timm:convnext_atto", {"drop_pth_rate": 1}, "did you mean 'drop_path_rate'?"),
        ("timm:convnext_atto", {"num_classes": 3}, "has no slot 'num_classes'"),
        ("timm:convnext_atto", {"drop_path_rate": True}, "drop_path_rate is a number, not true"),
        ("timm:convnext_atto", {"depths": "x"}, "timm:convnext_atto: depths:"),
        ("timm:convnext_atto:depths=", {}, "'depths=' is not slot=value"),
        ("timm:resnet18", {"act_layer.x": 1}, "'act_layer.x' names no option of one block"),
        ("timm:convnext_atto", {"drop_path_rate": -3}, "drop_path_rate is from 0 to below 1"),
        ("timm:convnext_atto", {"drop_rate": 1.0}, "drop_rate is from 0 to below 1, not 1.0"),
    ],
)
def test_what_timm_would_swallow_is_refused(model: str, slots: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        model_spec(model, **slots)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_what_timm_cannot_build_is_refused_as_it_says_it() -> None:
    with pytest.raises(InputError, match=r"timm cannot build resnet18 with .*act_layer=nonesuch"):
        model_spec("timm:resnet18", act_layer="nonesuch").build()


def test_options_of_a_class_that_hands_them_on_are_those_of_the_class_above() -> None:
    assert "drop_path_rate" in model_spec("timm:deit_tiny_distilled_patch16_224").slots


@pytest.mark.parametrize("size", [32, 48])
def test_a_network_of_one_size_is_made_for_the_images(size: int) -> None:
    network: Any = model_spec(SMALL).build(10, input_size=size)
    assert network.patch_embed.img_size == (size, size)
    assert network.eval()(torch.zeros(1, 3, size, size)).shape == (1, 10)
    assert network.pretrained_cfg["input_size"] == (3, size, size)


def test_a_network_that_cannot_take_the_size_is_refused_in_a_line() -> None:
    with pytest.raises(InputError, match=r"timm:inception_v3 cannot take 32x32 images .*for 299"):
        blocklab.cost("timm:inception_v3", 32)
    with pytest.raises(InputError, match=r"cannot take 32x32 images .* it is made for 48"):
        blocklab.cost(f"{SMALL},img_size=48", 32)


def test_one_that_is_no_classifier_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network: Any = model_spec("timm:resnet10t").build_meta(10)
    check_logits(network, 32, 10)
    monkeypatch.setattr(network, "forward_head", lambda x: x.mean((2, 3)))
    with pytest.raises(InputError, match=r"gives \(2, 512\) for two images and not \(2, 10\)"):
        check_logits(network, 32, 10)


@pytest.mark.parametrize(
    ("computes", "said"),
    [
        (lambda x: torch.linalg.qr(x).Q, r"blocklab.register_macs\('aten::linalg_qr', count\)"),
        (lambda x: x.nonzero(), "its shapes are not known without values"),
    ],
)
def test_an_operator_that_cannot_be_counted_is_named(
    monkeypatch: pytest.MonkeyPatch, computes: Any, said: str
) -> None:
    network: Any = model_spec("timm:resnet10t").build_meta(10)
    monkeypatch.setattr(network, "forward_head", lambda x: computes(x.mean((2, 3))))
    with pytest.raises(InputError, match=said):
        blocklab.cost(network, 32)


# What identifies a model.
@pytest.fixture
def changed_code(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Change the source of one function or class, as another release of timm would."""

    def change(name: str, source: str) -> None:
        before = timm_code._source

        def changed(one: Any) -> str:
            return before(one) + source if one.__qualname__ == name else before(one)

        monkeypatch.setattr(timm_code, "_source", changed)
        timm_models._digest.cache_clear()

    yield change
    timm_models._digest.cache_clear()


def test_a_row_is_another_only_where_its_code_is(changed_code: Any) -> None:
    def digests() -> tuple[Any, Any]:
        names = ("timm:resnet10t", "timm:regnetx_002")
        return tuple(model_spec(name).to_dict()["model"] for name in names)

    before = digests()
    changed_code("ConvNeXtBlock", "x = 1")
    assert digests() == before
    changed_code("BasicBlock", "x = 1")
    resnet, regnet = digests()
    assert resnet != before[0] and regnet == before[1]
    changed_code("drop_path", "x = 1")  # a function that a function of its blocks calls
    assert digests()[0] != resnet


def test_comments_and_empty_lines_are_no_other_code(tmp_path: Path) -> None:
    def source(text: str, name: str) -> str:
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        namespace: dict[str, Any] = {}
        exec(compile(text, str(path), "exec"), namespace)
        return timm_code._source(namespace["f"])

    plain = source("def f():\n    return 1\n", "one")
    assert plain == source("def f():\n    # why\n\n    return 1  \n", "two")
    assert plain != source("def f():\n    return 2\n", "three")


def test_options_leave_the_code_what_it_is() -> None:
    plain, dropping = (model_spec("timm:resnet10t", **o) for o in ({}, {"drop_path_rate": 0.1}))
    assert dropping.to_dict() == {**plain.to_dict(), "drop_path_rate": 0.1}


def test_a_model_whose_code_has_changed_is_refused_by_what_it_was(changed_code: Any) -> None:
    said = model_spec("timm:resnet10t").to_dict()
    assert ModelSpec.from_dict(said).to_dict() == said
    changed_code("BasicBlock", "x = 1")
    with pytest.raises(InputError, match=r"timm:resnet10t is not the one that was meant"):
        ModelSpec.from_dict(said)


# What is made of one.
def test_it_is_described_by_what_it_says_are_its_stages() -> None:
    described = describe(model_spec("timm:convnext_atto").build_meta(10), 64)
    names = ["stem", *(f"stages.{n}" for n in range(4)), "head"]
    assert [part.name for part in described.parts] == names
    assert [part.shape for part in described.parts][1:] == [
        (40, 16, 16), (80, 8, 8), (160, 4, 4), (320, 2, 2), (10,),
    ]  # fmt: skip
    assert Cost(described.macs, described.params) == blocklab.cost("timm:convnext_atto", 64, 10)


def test_parameters_of_no_part_count_once() -> None:
    described = describe(model_spec(SMALL).build_meta(10, input_size=32), 32)
    assert described.params == blocklab.cost(SMALL, 32, 10).params
    assert described.parts[-1].name == "between them"


@pytest.mark.parametrize("model", ["timm:resnet10t", SMALL])
def test_files_rebuild_it(model: str, tmp_path: Path) -> None:
    network = model_spec(model).build(5, input_size=32).eval()
    x = torch.randn(2, 3, 32, 32)
    expected = network(x)
    export_model(network, tmp_path / "a.safetensors", "safetensors")
    export_model(network, tmp_path / "hub", "hub", class_names=list("abcde"))
    for again in (load_model(tmp_path / "a.safetensors"), from_pretrained(tmp_path / "hub")):
        assert torch.equal(again(x), expected)
        assert spec_of(again) == model_spec(model)
    theirs = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    assert torch.equal(theirs(x), expected)
    assert "import timm" in (tmp_path / "hub" / "README.md").read_text()


def test_it_is_exported_and_deployed_as_a_graph(tmp_path: Path) -> None:
    network = model_spec("timm:resnet10t").build(5, input_size=32)
    done = export_model(network, tmp_path / "a.pt2", "torch_export", deploy=True)
    assert done.report is not None and done.report.kept  # says that it folds nothing of it


def test_features_are_timms_own() -> None:
    of = functools.partial(blocklab.create_model, "timm:convnext_atto", features_only=True)
    features: Any = of(out_indices=(1, 2))
    assert features.feature_info.channels() == [80, 160]
    with pytest.raises(InputError, match="forward_intermediates"):
        of(pretrained="x.pth")


def test_weights_of_other_classes_and_channels_are_adapted() -> None:
    of = functools.partial(blocklab.create_model, "timm:resnet10t")
    network = of(4, in_chans=1)
    report = blocklab.load_weights(network, of(9).state_dict(), head="fresh", first_conv="adapt")
    assert set(report.fresh) == {"fc.weight", "fc.bias"} and report.adapted


def test_our_registry_does_not_build_timms() -> None:
    with pytest.raises(InputError, match="ask timm for it by that name"):
        timm.create_model("blocklab", spec={"base": "timm:resnet10t"})


def test_timms_names_are_listed_by_pattern() -> None:
    names = blocklab.list_models("timm:convnext_a*")
    assert "timm:convnext_atto" in names and all(n.startswith("timm:convnext_a") for n in names)
    assert not blocklab.list_models("timm:blocklab*")
