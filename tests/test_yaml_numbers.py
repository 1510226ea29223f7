"""What YAML 1.1 reads otherwise than it looks is refused, wherever a YAML file is read."""

import pytest

from blocklab.data.spec import DataSpec
from blocklab.errors import InputError
from blocklab.models.spec import model_spec
from blocklab.study.schema import TuneFile
from blocklab.training.recipe import LARGEST_SEED, load_recipe
from blocklab.training.run_definition import RunDefinition
from blocklab.yaml_files import parse_yaml


@pytest.mark.parametrize("number", ["0100", "-012", "00", "1:30", "190:20:30", "1:30.5", "0_7"])
def test_numbers_that_yaml_reads_as_others_are_refused(number: str) -> None:
    with pytest.raises(InputError, match=rf"line 2: {number} may be read as another number"):
        parse_yaml(f"a: 1\nbatch_size: {number}", "the recipe")
    with pytest.raises(InputError, match="may be read as another number"):
        parse_yaml(f"depths: [3, {number}]", "the model")
    assert parse_yaml(f"title: '{number}'", "the study") == {"title": number}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rows:\n\tplain: 1", "line 2: a tab stands where YAML takes none; put spaces"),
        ("a:\t- 1\n\t- 2", "a tab stands where YAML takes none; put spaces"),
        ("a: b: c", "line 1: mapping values are not allowed here; mend the indents, colons"),
        ("a: [1, 2", "line 1: .*; mend the indents, colons, brackets or quotes there"),
    ],
)
def test_what_is_no_yaml_is_said_with_what_to_do(text: str, said: str) -> None:
    with pytest.raises(InputError, match=f"^the recipe, {said}" if "line" in said else said):
        parse_yaml(text, "the recipe")


def test_plain_numbers_are_read() -> None:
    text = "a: [0, 10, -3, 0.5, 05.5, 1.0e-3, 0x10, 1_000]"
    assert parse_yaml(text, "it") == {"a": [0, 10, -3, 0.5, 5.5, 0.001, 16, 1000]}


def test_a_yes_is_no_number_in_models_data_or_tuning() -> None:
    with pytest.raises(InputError, match="reduction is a number, not true"):
        model_spec("resnet50:attention={type: se, reduction: yes}")
    with pytest.raises(InputError, match="depths is a number"):
        model_spec("resnet50", depths=[True, 1, 1, 1])
    with pytest.raises(InputError, match="drop_path_rate is a number, not true"):
        model_spec("resnet50:drop_path_rate=yes")
    with pytest.raises(InputError, match="image_size is a number, not true"):
        DataSpec.parse({"source": "digits", "image_size": True})
    with pytest.raises(ValueError, match="lr is a number"):
        TuneFile.model_validate({"lr": [True, 0.1]})
    assert model_spec("resnet50:mixer={type: selective_kernel, split_input: yes}")


@pytest.mark.parametrize("seed", [-1, LARGEST_SEED + 1, 2**64])
def test_seeds_that_no_generator_takes_are_refused(seed: int) -> None:
    spec, data = model_spec("resnet20"), DataSpec.parse("digits")
    with pytest.raises(InputError, match=f"a seed is from 0 to {LARGEST_SEED}, not {seed}"):
        RunDefinition(spec, data, load_recipe("quick"), seed)
