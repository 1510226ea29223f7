"""Costs against the counts of the rebuilt designs (1x3x224x224, 1000 classes)."""

import pytest

from blocklab import cost, create_model, list_models
from blocklab.errors import InputError

DIGEST = {
    "resnet50": ("4.089", "25.557"),
    "res2net50": ("2.586", "16.360"),
    "res2net50_se": ("2.589", "18.891"),
    "van_b0": ("0.864", "4.106"),
    "van_b1": ("2.495", "13.862"),
}


@pytest.mark.parametrize("name", DIGEST)
def test_cost_of_named_models(name: str) -> None:
    counted = cost(name)
    assert (f"{counted.macs / 1e9:.3f}", f"{counted.params / 1e6:.3f}") == DIGEST[name]


@pytest.mark.parametrize(
    ("spec", "macs", "params"),
    [
        ({"base": "van_b0", "mixer.norm": True}, "0.864", "4.115"),
        ({"base": "van_b0", "mixer": "multi_scale_lka"}, "1.166", "5.463"),
        ({"base": "van_b0", "ffn_mixer": "hierarchical_split"}, "20.233", "62.463"),
        ({"base": "res2net50", "mixer.attention": "se"}, "2.586", "16.371"),
        ({"base": "res2net50", "mixer.attention": "triplet"}, "2.599", "16.365"),
        ({"base": "res2net50", "attention": "triplet"}, "2.633", "16.365"),
        ({"base": "res2net50", "stem": "deep"}, "3.415", "16.426"),
    ],
)
def test_cost_of_filled_slots(spec: dict[str, object], macs: str, params: str) -> None:
    counted = cost(spec)
    assert (f"{counted.macs / 1e9:.3f}", f"{counted.params / 1e6:.3f}") == (macs, params)


def test_unknown_names_are_refused_with_the_closest() -> None:
    with pytest.raises(InputError, match="did you mean 'resnet50_triplet'"):
        create_model("resnet50_tripel")
    with pytest.raises(InputError, match="did you mean 'attention'"):
        create_model("resnet50", atention="se")
    with pytest.raises(InputError, match="no attention 'tripel'; did you mean 'triplet'"):
        create_model("resnet50", attention="tripel")
    with pytest.raises(InputError, match="did you mean 'reduction'"):
        create_model("resnet18", attention={"type": "se", "reductoin": 4})
    with pytest.raises(InputError, match="input_size"):
        cost("resnet18", input_size=0)


def test_every_named_model_has_a_cost() -> None:
    assert len(list_models()) >= 39
    for name in list_models():
        counted = cost(name, input_size=32, num_classes=10)
        assert counted.macs > 0 < counted.params
