"""What errors say: one line, whatever was raised."""

import pytest

from blocklab.errors import InputError, error_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("two  words\nand a trace"), "ValueError: two words"),
        (RuntimeError("\n\n  at last\n"), "RuntimeError: at last"),
        (RuntimeError("in loading:\n\tmissing\n\tb"), "RuntimeError: in loading: missing"),
        (RuntimeError(), "RuntimeError"),
        (InputError("no file x; check the path"), "no file x; check the path"),
    ],
)
def test_an_exception_is_one_line(error: Exception, line: str) -> None:
    assert error_line(error) == line


def test_the_kind_is_left_out_where_there_is_a_message() -> None:
    assert error_line(OSError("cut short"), kind=False) == "cut short"
    assert error_line(EOFError(), kind=False) == "EOFError"
