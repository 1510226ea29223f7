"""Blocks that are limited to stages, in networks of fewer stages than their family may have."""

import pytest

from blocklab.errors import InputError
from blocklab.models.spec import model_spec

SLOTS = {"attention": "se", "mixer": "selective_kernel"}


@pytest.mark.parametrize("slot", SLOTS)
def test_a_stage_that_the_network_has_not_is_refused(slot: str) -> None:
    block = {"type": SLOTS[slot], "stages": [3, 4]}
    assert model_spec({"base": "resnet18", slot: block}).to_dict()
    with pytest.raises(InputError, match=r"stages are numbers from 1 to 3, not \[3, 4\]"):
        model_spec({"base": "resnet20", slot: block})


@pytest.mark.parametrize("slot", SLOTS)
def test_all_stages_are_none_named(slot: str) -> None:
    everywhere = model_spec({"base": "resnet20", slot: SLOTS[slot]})
    named = model_spec({"base": "resnet20", slot: {"type": SLOTS[slot], "stages": [1, 2, 3]}})
    assert named == everywhere
