"""Options that a network could not honour, which it refuses; one that did nothing misled."""

from typing import Any

import pytest

from blocklab import create_model
from blocklab.errors import InputError
from blocklab.models.spec import ModelSpec, model_spec

REPARAM = "reparam_large_kernel"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"base": "replknet_31n", "mixer": {"type": REPARAM, "kernel": 7}}, "set kernels"),
        ({"base": "replknet_31n", "mixer.kernel": 31}, "set kernels"),
        ({"base": "resnet20", "attention": {"type": "gather_excite", "reduction": 4}}, "excite"),
        ({"base": "resnet20", "widths": [32, 32, 16]}, "32 become 16"),
        (
            {"base": "resnet20", "attention": {"type": "eca", "kernel": 3, "gamma": 4.0}},
            "gamma and beta are of the formula for its kernel; give them without kernel",
        ),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(model: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        create_model(model, num_classes=10)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            {"base": "poolformer_s12", "stem": "cifar"},
            {"base": "poolformer_s12", "stem": "cifar", "embedding": "two_convs"},
        ),
        (
            {"base": "resnet18", "depths": [2, 2]},
            {"base": "resnet18", "depths": [2, 2], "widths": [64, 128, 300]},
        ),
    ],
)
def test_what_is_not_built_is_no_part_of_what_a_network_is(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    """Bases may say it, so it is not refused; a study has one row of the two."""
    assert model_spec(one) == model_spec(other)
    assert ModelSpec.from_dict(model_spec(one).to_dict()) == model_spec(one)


def test_a_specification_that_was_written_is_read_again() -> None:
    asked = {"base": "replknet_31n", "mixer.small_kernel": 3}
    spec = model_spec(asked)
    assert ModelSpec.from_dict(spec.to_dict()) == spec
