"""Named rows against what torchvision publishes of them: parameters and MACs at 224x224."""

import pytest
import torchvision

import blocklab

ROWS = (
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
    *("wide_resnet50_2", "wide_resnet101_2"),
)


@pytest.mark.parametrize("name", ROWS)
def test_costs_are_torchvisions(name: str) -> None:
    published = torchvision.models.get_model_weights(name).DEFAULT.meta
    counted = blocklab.cost(name, 224)
    assert counted.params == published["num_params"]
    assert round(counted.macs / 1e9, 3) == published["_ops"]
