"""timm's attentions by name: each on the block contract, against timm's own module, refused."""

from typing import Any

import pytest
import timm
import torch
from timm.layers import create_attn

from blocklab.blocks import timm_attentions
from blocklab.blocks.registry import create_block, parse_block
from blocklab.blocks.timm_attentions import attention_names
from blocklab.contract.networks import check_network
from blocklab.contract.report_card import check_block
from blocklab.errors import InputError
from blocklab.measure.cost import cost
from blocklab.models.spec import model_spec

# Their squared windows and their 5-dimensional kernels ask for something of the images or of the
# layout; a study tries each on its own network before it trains.
OF_SOME_MAPS = {"bat", "halo", "lambda"}
# By themselves, with nothing told but the channels, timm does not build these.
NOT_BUILT = {"bottleneck", "ge"}


@pytest.mark.parametrize("name", sorted({*attention_names()} - OF_SOME_MAPS - NOT_BUILT))
def test_each_that_takes_any_map_keeps_the_contract(name: str) -> None:
    card = check_block("attention", f"timm:{name}")
    assert card.passed, card.failures


def test_the_names_are_those_that_timm_knows() -> None:
    assert {"se", "ese", "eca", "cbam", "gc", "coord", "nl", "sk"} <= {*attention_names()}
    assert not {"sigmoid", "none"} & {*attention_names()}


@pytest.mark.parametrize("name", sorted(OF_SOME_MAPS))
def test_what_takes_no_map_of_a_network_is_refused_before_it_trains(name: str) -> None:
    spec = model_spec("resnet20", attention=f"timm:{name}", widths=(16, 16, 16), depths=(1, 1, 1))
    with pytest.raises(InputError, match=r"the network cannot be .*; take another block") as error:
        check_network(spec, 10, 20)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "wrong", "right"), [("bat", 32, 56), ("halo", 36, 32)])
def test_what_takes_no_map_of_that_size_is_said(name: str, wrong: int, right: int) -> None:
    spec = model_spec({"base": "resnet20", "attention": f"timm:{name}"})
    with pytest.raises(InputError, match=rf"timm.s \w+ cannot take .* {wrong}x{wrong} images"):
        cost(spec, wrong)
    assert cost(spec, right).macs > 0


@pytest.mark.parametrize("name", sorted(NOT_BUILT))
def test_what_timm_does_not_build_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"cannot build 'timm:{name}' by its channels alone"):
        parse_block("attention", f"timm:{name}")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cbam", {"rd_ratio": 0.25, "spatial_kernel_size": 3}),
        ("ecam", {}),
        ("eca", {"gamma": 1}),
        ("se", {"add_maxpool": True, "gate_layer": "hard_sigmoid"}),
    ],
)
def test_values_are_those_of_timms_module(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    ours = create_block("attention", {"type": f"timm:{name}", **options}, channels=24)
    torch.manual_seed(0)
    theirs = create_attn(name, 24, **options)
    assert theirs is not None and type(ours) is type(theirs)
    x = torch.randn(2, 24, 5, 7)
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("timm:ecca", "did you mean 'eca'?"),
        ({"type": "timm:cbam", "rd_rato": 1}, "did you mean 'rd_ratio'?"),
        ({"type": "timm:cbam", "rd_ratio": True}, "rd_ratio is a number, not true"),
        ({"type": "timm:strip", "nonsense": 1}, "attention 'timm:strip' has no 'nonsense'"),
        ({"type": "timm:sk", "stride": 2}, "has no 'stride'"),
        ({"type": "timm:eca", "kernel_size": 5}, "has no 'kernel_size'"),
    ],
)
def test_what_timm_would_swallow_is_refused(block: Any, said: str) -> None:
    with pytest.raises(InputError) as error:
        parse_block("attention", block)
    assert said in str(error.value)


def test_what_timm_cannot_build_is_said_with_the_channels() -> None:
    with pytest.raises(InputError, match="cannot build 'timm:se' with 8 channels, gate_layer=x"):
        create_block("attention", {"type": "timm:se", "gate_layer": "x"}, channels=8)


def test_one_of_other_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    said = parse_block("attention", "timm:eca")
    assert parse_block("attention", said) == said
    timm_attentions._attention.cache_clear()
    monkeypatch.setattr(timm_attentions, "code_digest", lambda block: "0" * 12)
    with pytest.raises(InputError, match=f"timm {timm.__version__} has other code for it"):
        parse_block("attention", said)
    timm_attentions._attention.cache_clear()


def test_they_stand_in_chains_means_and_stages() -> None:
    chain = ["se", {"type": "timm:eca", "stages": [2]}, {"type": "mean", "of": ["timm:cbam"]}]
    network = model_spec("resnet20", attention=chain).build(10)
    kinds = [type(module).__name__ for module in network.layer2[0].attention]
    assert kinds == ["SqueezeExcitation", "EcaModule", "MeanOfAttentions"]
    assert len(network.layer1[0].attention) == 2
