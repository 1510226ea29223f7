"""What errors say: one line, whatever was raised."""

from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from blocklab.errors import InputError, error_line, one_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("\nloading:\n\tmissing  keys\n"), "RuntimeError: loading: missing keys"),
        (ValueError("word" * 100), f"ValueError: {'word' * 74}wor…"),
        (RuntimeError(), "RuntimeError"),
        (InputError("no file x; check the path"), "no file x; check the path"),
    ],
)
def test_an_exception_is_one_line(error: Exception, line: str) -> None:
    assert error_line(error) == line


def test_the_kind_is_left_out_where_there_is_a_message() -> None:
    assert error_line(OSError("cut short"), kind=False) == "cut short"
    assert error_line(EOFError(), kind=False) == "EOFError"


def test_our_own_messages_are_whole() -> None:
    message = "; ".join(f"choice {number}" for number in range(100))
    assert error_line(InputError(message)) == message


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int
    gate: Literal["sigmoid", "tanh"] = "tanh"
    bias: bool = True


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")

    title: str
    part: Part = Part(size=1)
    parts: dict[str, Part] = {}
    items: list[Part] = []
    data: str | dict[str, Any] = ""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"titel": "a"}, "it has no 'titel'; did you mean 'title'? Known: title, part, parts, "),
        ({"part": {"siz": 3}}, "it has no 'part.siz'; did you mean 'size'? Known: size, gate, "),
        ({"items": [{"siz": 3}]}, "it has no 'items.0.siz'; did you mean 'size'? Known: size, "),
        ({"parts": {"size": {"siz": 3}}}, "it has no 'parts.size.siz'; did you mean 'size'? Know"),
        ({"title": 3, "data": 5}, "it: title: Input should be a valid string (got 3)"),
        ({"title": "", "data": 5}, "it: data: Input should be a valid string or a valid dictiona"),
        (
            {"title": "", "parts": {"str": {"size": 1, "gate": "sigmod"}}},
            "it: parts.str.gate: Input should be 'sigmoid' or 'tanh' (got 'sigmod'); did you mean "
            "'sigmoid'?",
        ),
        ({"title": "", "part": {"size": 1, "bias": "x"}}, "it: part.bias: Input should be true or"),
    ],
)
def test_a_misspelt_name_is_said_first_with_the_names_of_its_place(given: Any, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate(given)
    assert one_line(caught.value, "it", Whole).startswith(said)
