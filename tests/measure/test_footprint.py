"""What a training step keeps, counted without values: against what autograd keeps of some."""

from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers import StdConv2d
from torch import nn

from blocklab.blocks.registry import registered_blocks
from blocklab.measure.footprint import Footprint, footprint, machine_memory
from blocklab.models.spec import model_spec

SIDE = 48
SMALL = {"base": "resnet20", "widths": [32, 64, 128], "depths": [1, 1, 1]}
HOLDS = {
    "attention": SMALL,
    "mixer": SMALL,
    "token_mixer": {"base": "convnextv2_atto", "depths": [1, 1, 1, 1]},
    "ffn_mixer": {"base": "van_b0", "depths": [1, 1, 1, 1]},
}
MORE: dict[str, dict[str, Any]] = {"mean": {"of": ["se", "coordinate"]}}


def kept_of_values(
    network: nn.Module, count: int = 2, order: torch.memory_format = torch.channels_last
) -> int:
    """Bytes that autograd saves of a batch, by default in the order in which a processor trains."""
    network = network.train().to(memory_format=order)  # type: ignore[call-overload]
    own = {one.untyped_storage().data_ptr() for one in (*network.parameters(), *network.buffers())}
    saved: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    images = torch.randn(count, 3, SIDE, SIDE).to(memory_format=order)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits = network(images)
    found = sum(one.untyped_storage().nbytes() for place, one in saved.items() if place not in own)
    del logits
    return found


def of_two(found: Footprint) -> int:
    return found.once + 2 * found.activations


@pytest.mark.parametrize(
    ("kind", "name"),
    [pytest.param(b.kind, b.name, id=f"{b.kind}-{b.name}") for b in registered_blocks()],
)
def test_of_every_block(kind: str, name: str) -> None:
    spec = model_spec(
        {**HOLDS[kind], kind.removeprefix("token_"): {"type": name, **MORE.get(name, {})}}
    )
    found = footprint(spec.build_meta(10, input_size=SIDE).train(), SIDE)
    assert 0.8 < of_two(found) / kept_of_values(spec.build(10, input_size=SIDE)) < 1.1


@pytest.mark.parametrize("name", ["resnet20", "poolformer_s12", "mambaout_femto"])
def test_of_networks(name: str) -> None:
    spec = model_spec(name)
    found = footprint(spec.build_meta(10, input_size=SIDE).train(), SIDE)
    network = spec.build(10, input_size=SIDE)
    assert of_two(found) == pytest.approx(kept_of_values(network), rel=0.02)
    assert found.weights == sum(4 * one.numel() for one in network.parameters())


def test_what_is_kept_once_is_not_multiplied_by_the_batch() -> None:
    """As standardised kernels, which are as large for one image as for a thousand."""

    def network() -> nn.Module:
        convolutions = StdConv2d(3, 64, 3, stride=8), nn.ReLU(), StdConv2d(64, 512, 3)
        return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    with torch.device("meta"):
        meta = network()
    found = footprint(meta.train(), SIDE)
    # In the other order kernels are copied before they are standardised.
    two, six = (kept_of_values(network(), count, torch.contiguous_format) for count in (2, 6))
    assert found.once > 4 * 512 * 64 * 9
    assert of_two(found) == pytest.approx(two, rel=0.02)
    assert found.once + 6 * found.activations == pytest.approx(six, rel=0.02)
    more = found.training_bytes(102) - found.training_bytes(2)
    assert more == 100 * found.activations * 5 // 4


@pytest.mark.parametrize(
    ("group", "limits", "found"),
    [
        ("0::/", {"memory.max": "max"}, 1 << 30),
        ("0::/job/step", {"job/memory.max": "5000", "job/step/memory.max": "max"}, 5000),
        ("0::/job/step", {"job/memory.max": "9000", "job/step/memory.max": "800"}, 800),
        ("3:cpu,memory:/job\n0::/", {"memory/job/memory.limit_in_bytes": "700"}, 700),
        ("", {"memory.max": "600"}, 600),
    ],
)
def test_the_limit_is_that_of_the_process_own_group(
    group: str, limits: dict[str, str], found: int, tmp_path: Path
) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal:        1048576 kB\n")
    (proc / "self" / "cgroup").write_text(f"{group}\n")
    for name, limit in limits.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(f"{limit}\n")
    assert machine_memory(proc, groups) == found
