"""What can go wrong, said in one line with the remedy.

`InputError` is the user's to mend (exit status 2); `RunError` is something that failed midway
(exit status 1). Everything a user types or any file a user gives ends in one of them, never in a
traceback.
"""

import difflib
import re
import traceback
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

LONGEST_MESSAGE = 300  # characters: some libraries' errors hold a trace, or the whole of a graph
LONGEST_SHOWN = 100  # of what was given


class BlocklabError(Exception):
    """Base of the errors that blocklab reports in one line."""

    exit_status = 1

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class InputError(BlocklabError, ValueError):
    """Something the user typed, or a file the user gave, is wrong."""

    exit_status = 2


class RunError(BlocklabError, RuntimeError):
    """Something failed midway: a full disk, a diverged loss, a worker that died."""

    exit_status = 1


class Stopped(BlocklabError):
    """A user stopped it (Ctrl-C); says what is kept and how to go on."""

    exit_status = 130  # as shells have it: 128 and the signal's number


def printable(message: str) -> str:
    """Write line breaks, control and undecodable characters (of file names, say) as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message)


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest choice, or an empty string."""
    close = difflib.get_close_matches(str(word), list(choices), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def check_choice(name: str, given: object, legal: Sequence[str]) -> None:
    """Refuse a value that is none of a few words.

    Raises:
        InputError: naming them.
    """
    if given not in legal:
        raise InputError(
            f"{name} is {' or '.join(map(repr, legal))}, not {given!r}"
            f"{did_you_mean(str(given), legal)}"
        )


def error_line(error: BaseException, kind: bool = True) -> str:
    """Return an exception on one line: its kind and its message, cut where it is very long.

    Of our own errors, and where the `kind` tells a user nothing, the message alone.
    """
    message = " ".join(str(error).split())
    if isinstance(error, BlocklabError):
        return message
    if len(message) > LONGEST_MESSAGE:
        message = f"{message[: LONGEST_MESSAGE - 1]}…"
    if message and not kind:
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def place_in_files(error: BaseException, files: Collection[str]) -> str:
    """Say where in one of a user's files an error comes from: ``x.py, line 3``, or nothing."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    for one in reversed(chain):  # what was raised first
        for frame, line in reversed(list(traceback.walk_tb(one.__traceback__))):
            if frame.f_code.co_filename in files:
                return f"{Path(frame.f_code.co_filename).name}, line {line}"
    return ""


def with_place(line: str, place: str) -> str:
    """Add to what is said of an error where it comes from, unless that stands in it."""
    return f"{line} ({place})" if place and place not in line else line


def shortened(given: object) -> str:
    """Return a value as Python writes it, cut where that is long."""
    shown = repr(given)
    return shown if len(shown) <= LONGEST_SHOWN else f"{shown[: LONGEST_SHOWN - 1]}…"


def one_line(error: ValidationError, what: str, schema: type[BaseModel] | None = None) -> str:
    """Say what pydantic found wrong with `what`, in one line: a misspelt name before all else.

    A field that is missing is often there under a misspelt name. `schema` is the model that was
    validated: its fields, or those of the part of it, are the names that would have been right.
    """
    errors = error.errors()
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    where, message = _place_and_message(first, errors)
    if first["type"] == "extra_forbidden":
        name, *_ = reversed(first["loc"])
        fields = list(_fields_at(schema, first["loc"][:-1]))
        known = f" Known: {', '.join(fields)}." if fields else ""
        return f"{what} has no '{where}'{did_you_mean(str(name), fields) or '.'}{known}"
    context = first.get("ctx", {})
    cause = context.get("error")
    if isinstance(cause, BlocklabError):
        return str(cause)
    given = first.get("input")
    if first["type"] == "missing":
        message = "is missing; add it"
    said = first["type"] == "missing" or isinstance(given, dict)
    shown = "" if said else f" (got {shortened(given)})"
    if first["type"] == "literal_error":
        shown += did_you_mean(str(given), re.findall(r"'([^']*)'", context["expected"]))
    elif first["type"] in ("bool_parsing", "bool_type"):
        message = "Input should be true or false"
    return f"{what}: {where + ': ' if where else ''}{message}{shown}"


def _place_and_message(first: ErrorDetails, errors: Sequence[ErrorDetails]) -> tuple[str, str]:
    """Return where an error is and what it says; of a union, what each of its types says."""
    place, message = first["loc"], first["msg"].removeprefix("Value error, ")
    tried = [one for one in errors if one["loc"][:-1] == place[:-1] and _is_of_union(one)]
    if first in tried:  # pydantic adds to the place which type it tried
        place = place[:-1]
        message = _SHOULD + " or ".join(one["msg"].removeprefix(_SHOULD) for one in tried)
    return ".".join(map(str, place)), message


_SHOULD = "Input should be "


def _is_of_union(error: ErrorDetails) -> bool:
    tag = str(error["loc"][-1]) if error["loc"] else ""
    return (
        re.fullmatch(r"(str|int|float|bool|none|(dict|list|tuple|literal)\[.*\])", tag) is not None
    )


def _fields_at(schema: Any, place: Sequence[int | str]) -> Iterable[str]:
    """Return the names of the fields at a place in a schema; none where it has none of its own."""
    for part in place:
        fields = getattr(schema, "model_fields", None)
        if fields is None:  # a list or a dictionary: of what
            schema = next(reversed(get_args(schema)), None)
        else:
            schema = fields[part].annotation if part in fields else None
        while get_origin(schema) in (Annotated, Union, UnionType):
            schema = next(filter(_holds_fields, get_args(schema)), None)
    return getattr(schema, "model_fields", ())


def _holds_fields(annotation: Any) -> bool:
    return hasattr(annotation, "model_fields") or any(map(_holds_fields, get_args(annotation)))
