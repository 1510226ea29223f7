"""A model on the command line as the YAML that studies and the catalogue write."""

import pytest

from blocklab.errors import InputError
from blocklab.models.spec import model_spec


@pytest.mark.parametrize(
    ("text", "as_data"),
    [
        ("{base: resnet20, attention: se}", {"base": "resnet20", "attention": "se"}),
        (
            " {backbone: resnet20, attention: {type: triplet, stages: [2, 3]}} ",
            {"backbone": "resnet20", "attention": {"type": "triplet", "stages": [2, 3]}},
        ),
        ("{base: 'resnet20:stem=deep', mixer: grouped}", {"base": "resnet20:stem=deep"}),
    ],
)
def test_braces_hold_yaml(text: str, as_data: dict[str, object]) -> None:
    wanted = model_spec(as_data, **({"mixer": "grouped"} if "grouped" in text else {}))
    assert model_spec(text) == wanted


def test_a_block_and_its_options_stand_in_any_order() -> None:
    options_first = "resnet18_se:attention.reduction=4,attention=se"
    wanted = {"base": "resnet18", "attention": {"type": "se", "reduction": 4}}
    assert model_spec(options_first) == model_spec(wanted)
    assert model_spec("resnet18_se", **{"attention.reduction": 4, "attention": "se"}) == model_spec(
        wanted
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{base: resnet20, attention: [se}", "line 1: expected"),
        ("{base: resnet20, base: resnet18}", "the key 'base' is there twice"),
        ("{attention: se}", "needs either a 'backbone' or a 'base'"),
        ("{base: resnet20} x:", "expected"),
    ],
)
def test_what_is_not_a_model_is_said(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        model_spec(text)
