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
    ],
)
def test_an_option_that_would_do_nothing_is_refused(model: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        create_model(model, num_classes=10)


def test_a_specification_that_was_written_is_read_again() -> None:
    asked = {"base": "replknet_31n", "mixer.small_kernel": 3}
    spec = model_spec(asked)
    assert ModelSpec.from_dict(spec.to_dict()) == spec
