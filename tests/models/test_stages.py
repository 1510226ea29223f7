"""Blocks that are limited to stages, in networks of fewer stages than their family may have."""

import pytest

from blocklab.errors import InputError
from blocklab.models.spec import model_spec

SLOTS = {"attention": "se", "mixer": "selective_kernel"}


@pytest.mark.parametrize("slot", SLOTS)
def test_a_stage_that_the_network_has_not_is_refused(slot: str) -> None:
    block = {"type": SLOTS[slot], "stages": [3, 4]}
    assert model_spec({"base": "resnet18", slot: block}).to_dict()
    with pytest.raises(InputError, match=r"stages are numbers from 1 to 3, not \[True\]"):
        model_spec({"base": "resnet20", "attention": {"type": "se", "stages": True}})
    with pytest.raises(InputError, match=r"stages are numbers from 1 to 3, not \[3, 4\]"):
        model_spec({"base": "resnet20", slot: block})


@pytest.mark.parametrize("slot", SLOTS)
def test_all_stages_are_none_named(slot: str) -> None:
    everywhere = model_spec({"base": "resnet20", slot: SLOTS[slot]})
    named = model_spec({"base": "resnet20", slot: {"type": SLOTS[slot], "stages": [1, 2, 3]}})
    assert named == everywhere


def test_the_usual_mixer_in_some_stages_is_the_usual_network() -> None:
    """The other stages have it too: one network, one run."""
    some = model_spec({"base": "resnet20", "mixer": {"type": "conv3x3", "stages": [2]}})
    assert some == model_spec("resnet20") == model_spec("resnet20:mixer.stages=2")
