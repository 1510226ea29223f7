"""What a training step keeps, counted without values: against what autograd keeps of some."""

from typing import Any

import pytest
import torch

from blocklab.blocks.registry import registered_blocks
from blocklab.measure.footprint import footprint
from blocklab.models.spec import ModelSpec, model_spec

SIDE = 48
SMALL = {"base": "resnet20", "widths": [32, 64, 128], "depths": [1, 1, 1]}
HOLDS = {
    "attention": SMALL,
    "mixer": SMALL,
    "token_mixer": {"base": "convnextv2_atto", "depths": [1, 1, 1, 1]},
    "ffn_mixer": {"base": "van_b0", "depths": [1, 1, 1, 1]},
}
MORE: dict[str, dict[str, Any]] = {"mean": {"of": ["se", "coordinate"]}}


def kept_of_values(spec: ModelSpec) -> int:
    """Bytes that autograd saves of an image, in the order in which a processor trains."""
    order = torch.channels_last
    network = spec.build(10, input_size=SIDE).train().to(memory_format=order)  # type: ignore[call-overload]
    own = {one.untyped_storage().data_ptr() for one in (*network.parameters(), *network.buffers())}
    saved: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    images = torch.randn(2, 3, SIDE, SIDE).to(memory_format=order)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits = network(images)
    found = sum(one.untyped_storage().nbytes() for place, one in saved.items() if place not in own)
    del logits
    return found // 2


@pytest.mark.parametrize(
    ("kind", "name"),
    [pytest.param(b.kind, b.name, id=f"{b.kind}-{b.name}") for b in registered_blocks()],
)
def test_of_every_block(kind: str, name: str) -> None:
    spec = model_spec(
        {**HOLDS[kind], kind.removeprefix("token_"): {"type": name, **MORE.get(name, {})}}
    )
    found = footprint(spec.build_meta(10, input_size=SIDE).train(), SIDE)
    assert 0.8 < found.activations / kept_of_values(spec) < 1.1


@pytest.mark.parametrize("name", ["resnet20", "poolformer_s12", "mambaout_femto"])
def test_of_networks(name: str) -> None:
    spec = model_spec(name)
    found = footprint(spec.build_meta(10, input_size=SIDE).train(), SIDE)
    assert found.activations == pytest.approx(kept_of_values(spec), rel=0.02)
    network = spec.build(10, input_size=SIDE)
    assert found.weights == sum(4 * one.numel() for one in network.parameters())
