"""Counts as people give them: NumPy's integers are counts; -1, 2.5 and True are none."""

from typing import Any

import numpy as np
import pytest
import torch

import blocklab
from blocklab.errors import InputError
from blocklab.measure.receptive_field import live_taps

TINY = {"backbone": "resnet20", "widths": (4, 8, 8), "depths": (1, 1, 1)}
NARROW: dict[str, Any] = {"widths": (8, 16, 24, 32), "depths": (1, 1, 1, 1)}


def tiny(**options: Any) -> Any:
    return blocklab.create_model(TINY, **options)


@pytest.mark.parametrize("count", [-1, 2.5, True, "3", None])
def test_what_is_no_count_is_refused(count: Any) -> None:
    with pytest.raises(InputError, match="num_classes must be a whole number from 0"):
        tiny(num_classes=count)
    with pytest.raises(InputError, match="num_classes must be a whole number from 0"):
        tiny().reset_classifier(count)
    with pytest.raises(InputError, match="in_chans must be a whole number from 1"):
        tiny(in_chans=count)


def test_numpys_integers_are_counts() -> None:
    model = tiny(num_classes=np.int64(10), in_chans=np.int32(1))
    assert (model.num_classes, type(model.num_classes)) == (10, int)
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    model.reset_classifier(np.uint8(3))
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    assert blocklab.cost(model, np.int64(32)) == blocklab.cost(model, 32)
    assert live_taps(model, np.int64(32)) == live_taps(model, 32)
    features = tiny(features_only=True, out_indices=np.int64(2))
    assert len(features(torch.zeros(1, 3, 8, 8))) == 2


@pytest.mark.parametrize("name", ["replknet_31n", "van_b0", "resnet18"])
@pytest.mark.parametrize("stage", [0, 1])
def test_a_pruned_network_runs(name: str, stage: int) -> None:
    sizes = {**NARROW, "kernels": (7, 7, 5, 3)} if name == "replknet_31n" else NARROW
    model: Any = blocklab.create_model(name, num_classes=5, stem="cifar", **sizes).eval()
    x = torch.randn(2, 3, 32, 16)
    expected = model.forward_intermediates(x, [stage], intermediates_only=True)[0]
    model.prune_intermediate_layers([stage])
    assert torch.equal(model.forward_features(x), expected)
    width = NARROW["widths"][stage]
    assert model.num_features == width
    assert model.forward_head(expected).shape[1] == width
    model.reset_classifier(3)
    assert model(x).shape == (2, 3)


def test_a_head_does_not_stay_without_its_stage() -> None:
    with pytest.raises(InputError, match="prune_head=True"):
        tiny().prune_intermediate_layers([0], prune_head=False)
