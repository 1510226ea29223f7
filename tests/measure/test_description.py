"""The parts of a network hold all of its parameters, whatever an image meets of them."""

import pytest
import torch
from torch import nn

from blocklab import create_model
from blocklab.measure.description import describe
from blocklab.models.own_backbones import register_backbone

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


def test_a_stem_without_products_keeps_its_parameters(registry_as_it_was: None) -> None:
    @register_backbone("unshuffled")
    class Unshuffled(nn.Module):
        native_size = 16

        def __init__(self, in_chans: int) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.PixelUnshuffle(2), nn.BatchNorm2d(4 * in_chans))
            self.stages = nn.ModuleList([nn.Conv2d(4 * in_chans, 8, 3, padding=1)])

    model = create_model("unshuffled", num_classes=5)
    parts = {one.name: one.params for one in describe(model, 16).parts}
    assert parts == {"stem": 24, "stage 1": 12 * 9 * 8 + 8, "head": 45}
    assert describe(model, 16).params == sum(one.numel() for one in model.parameters())
