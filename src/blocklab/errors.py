"""What can go wrong, said in one line with the remedy.

`InputError` is the user's to mend (exit status 2); `RunError` is something that failed midway
(exit status 1). Everything a user types or any file a user gives ends in one of them, never in a
traceback.
"""

import difflib
from collections.abc import Iterable

from pydantic import ValidationError

LONGEST_MESSAGE = 300  # characters: some libraries' errors hold a trace, or the whole of a graph


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


def one_line(error: ValidationError, what: str, fields: Iterable[str] = ()) -> str:
    """Say the first thing that pydantic found wrong with `what`, in one line.

    `fields` are the names that would have been right; a misspelt one gets the closest of them.
    """
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    fields = list(fields)
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        known = f" Known: {', '.join(fields)}." if fields else ""
        return f"{what} has no '{where}'{did_you_mean(name, fields) or '.'}{known}"
    message = first["msg"].removeprefix("Value error, ")
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, BlocklabError):
        return str(cause)
    given = first.get("input")
    shown = "" if first["type"] == "missing" or isinstance(given, dict) else f" (got {given!r})"
    return f"{what}: {where + ': ' if where else ''}{message}{shown}"
