"""Gates that start open, and options that models of old were specified without."""

import json

import pytest
import torch

from blocklab.blocks.registry import create_block, parse_block
from blocklab.errors import InputError
from blocklab.models.spec import model_spec

OPEN = 1 / (1 + 2.718281828459045**-4)  # a sigmoid of 4


@pytest.mark.parametrize(("block", "gates"), [("coordinate", 2), ("se", 1)])
def test_gates_open_where_asked_and_start_as_in_the_paper_where_not(block: str, gates: int) -> None:
    """A map whose gates see nothing (it is zero but for one value) tells what they start at."""
    kept = {}
    for bias in (None, 4):
        spec = model_spec("resnet20", attention={"type": block, "gate_bias": bias})
        torch.manual_seed(0)
        attention = spec.build(10).eval().get_submodule("layer1.0.attention")
        x = torch.zeros(1, 16, 8, 8)
        x[:, :, 3, 5] = 1e-3
        kept[bias] = float((attention(x).sum() / x.sum()).detach())
    assert kept[4] == pytest.approx(OPEN**gates, rel=1e-3)
    assert 0.5 ** (gates + 1) < kept[None] < 0.5 ** (gates - 0.5)


@torch.no_grad()
def test_a_block_by_itself_starts_as_it_says() -> None:
    x = torch.zeros(1, 64, 8, 8)
    x[:, :, 3, 5] = 1e-3
    for name, gates in (("coordinate", 2), ("se", 1)):
        block = create_block("attention", {"type": name, "gate_bias": 4}, channels=64).eval()
        assert float(block(x).sum() / x.sum()) == pytest.approx(OPEN**gates, rel=1e-2)
    x = torch.randn(1, 64, 8, 8)
    for spec in ({"type": "non_local"}, {"type": "global_context", "zero_init": True}):
        assert torch.equal(create_block("attention", spec, channels=64)(x), x)


def test_an_option_added_later_leaves_the_specifications_of_old_as_they_were() -> None:
    for block in ("coordinate", "se"):
        plain = parse_block("attention", block)
        assert set(plain) == {"type", "reduction"}
        assert parse_block("attention", {**plain, "gate_bias": None}) == plain
        asked = parse_block("attention", {**plain, "gate_bias": 4})
        assert asked == {**plain, "gate_bias": 4.0}
        assert parse_block("attention", json.loads(json.dumps(asked))) == asked


def test_no_gate_bias_is_beyond_what_a_sigmoid_tells_apart() -> None:
    with pytest.raises(InputError, match="gate_bias"):
        parse_block("attention", {"type": "se", "gate_bias": 17})
