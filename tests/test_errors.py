"""What errors say: one line, whatever was raised."""

import pytest

from blocklab.errors import InputError, error_line


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
