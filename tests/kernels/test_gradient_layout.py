"""The gradients that reach a BatchNorm lie as its map does: else its backward pass is slow.

ReLU puts a gradient's layout right by the way; other activations hand it on as it is.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocklab.blocks.registry import registered_blocks
from blocklab.models.spec import model_spec

SMALL = {"base": "resnet18", "depths": [1, 1, 1, 1], "widths": [32, 64, 64, 64], "stem": "cifar"}
DEEP = {"base": "res2net50", "depths": [1, 1, 1, 1]}
BLOCKS = [
    (info.kind, info.name)
    for info in registered_blocks()
    if info.kind in ("attention", "mixer") and info.name != "mean"  # which is of others
]


def otherwise(model: dict[str, Any], size: int = 32) -> list[str]:
    """Train a step in channels_last; name the norms that a gradient reached in another layout."""
    torch.manual_seed(0)
    network = model_spec(model).build(10, input_size=size).train()
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    found: list[str] = []
    watched = 0

    def watch(name: str, out: Tensor) -> None:
        def look(grad: Tensor) -> None:
            if grad.stride() != out.stride() and min(out.shape[2:]) > 1:
                found.append(name)

        out.register_hook(look)

    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            watched += 1
            module.register_forward_hook(lambda _, __, out, name=name: watch(name, out))
    images = torch.randn(2, 3, size, size).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(images)
    F.cross_entropy(logits.float(), torch.tensor([1, 2])).backward()
    assert watched
    return found


@pytest.mark.parametrize("activation", ["relu", "celu", "silu", "gelu"])
@pytest.mark.parametrize("model", [SMALL, DEEP], ids=["pooled maps", "small maps"])
def test_gradients_lie_as_their_maps(model: dict[str, Any], activation: str) -> None:
    assert otherwise({**model, "activation": activation}) == []


@pytest.mark.parametrize(("kind", "name"), BLOCKS, ids=str)
def test_so_do_those_of_blocks(kind: str, name: str) -> None:
    assert otherwise({**SMALL, "activation": "celu", kind: name}) == []
