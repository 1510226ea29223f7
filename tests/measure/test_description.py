"""The parts of a network hold all of its parameters, whatever an image meets of them."""

import pytest
import torch
from torch import nn

from blocklab import create_model
from blocklab.measure.description import describe

TINY = {"depths": (1, 1, 1), "widths": (4, 4, 8), "num_classes": 5}


@pytest.mark.parametrize(
    ("module", "part"),
    [
        *[("bn1", "stem"), ("layer2.0", "stage 2"), ("layer1", "stage 1")],
        *[("fc", "head"), ("", "head")],
    ],
)
def test_what_training_alone_uses_counts_where_it_lies(module: str, part: str) -> None:
    model = create_model("resnet20", **TINY)
    before = {one.name: one.params for one in describe(model, 16).parts}
    idle = nn.Parameter(torch.zeros(7))
    model.get_submodule(module).register_parameter("in_training", idle)
    described = describe(model, 16)
    after = {one.name: one.params for one in described.parts}
    assert after == {**before, part: before[part] + 7}
    assert described.params == sum(parameter.numel() for parameter in model.parameters())
