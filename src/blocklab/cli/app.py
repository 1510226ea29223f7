"""The command line's frame: its commands, how it ends, and what an error looks like.

A command imports what it computes with when it runs, so that help, names and refusals of what was
typed do not wait for PyTorch.

Exit status 0: done. 1: something failed midway. 2: wrong input. 130: stopped by Ctrl-C. An error is
one line on stderr, and so is what a stop leaves.
"""

import codecs
import errno
import importlib
import io
import os
import signal
import sys
from contextlib import suppress
from itertools import pairwise
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from blocklab.errors import BlocklabError, InputError, Stopped, error_line, shortened, with_place

# The module of each command, which adds it to `app`; in the order in which help lists them.
COMMANDS = {
    "quickstart": "quickstart",
    "models": "models",
    "describe": "models",
    "train": "train",
    "study": "study",
    "plan": "plan",
    "report": "study",
    "records": "records",
    "compare": "compare",
    "evaluate": "runs",
    "predict": "runs",
    "diagnose": "runs",
    "figure": "figure",
    "export": "runs",
    "bench": "bench",
    "check": "check",
    "new": "new",
    "data": "data",
    "studies": "shipped",
    "recipes": "shipped",
    "runs": "stored",
}

STOPPED = "what had ended before is kept; the same command goes on from there"


_UNWRITTEN = {errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG}


class _InOrder(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return [name for name in COMMANDS if name in self.commands]


app = typer.Typer(
    name="blocklab",
    cls=_InOrder,
    help="Name a convolutional backbone, fill its slots with blocks, and learn what that buys.",
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as version_of

        print(f"blocklab {version_of('blocklab')}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


def run(arguments: list[str]) -> int:
    """Run one command line; return its exit status."""
    verb = arguments[0] if arguments else ""
    try:
        _refuse_empty(arguments)
        # Only what is called is imported: listing models does not wait for the training room.
        for module in dict.fromkeys([COMMANDS[verb]] if verb in COMMANDS else COMMANDS.values()):
            importlib.import_module(f"blocklab.cli.{module}")
        status = typer.main.get_command(app).main(
            args=arguments, prog_name="blocklab", standalone_mode=False
        )
        sys.stdout.flush()
        if status == Stopped.exit_status:  # Typer's answer to Ctrl-C
            raise Stopped(STOPPED)
        return status if isinstance(status, int) else 0
    except TyperException as error:
        in_full = getattr(error, "format_message", error.__str__)  # names the option at fault
        said = in_full().rstrip(".")
        return _say(f"{said}; `blocklab {_verb(arguments)}--help` shows what it takes", 2)
    except Stopped as stop:
        return _say(str(stop), stop.exit_status, "stopped")
    except BlocklabError as error:
        return _say(str(error), error.exit_status)
    except (KeyboardInterrupt, typer.Abort):  # before a command began, or after it ended
        return _say(STOPPED, Stopped.exit_status, "stopped")
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        _say_no_more(sys.stdout)
        return 1
    except MemoryError:
        return _say("out of memory; use a smaller batch_size, fewer --workers or smaller images", 1)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            return _say(f"a name is too long: {shortened(error.filename)}; give a shorter one", 2)
        if isinstance(error, OSError) and error.filename is None and error.errno in _UNWRITTEN:
            _say_no_more(sys.stdout)  # what names a file is told of where it is written
            return _say(f"cannot write the output: {error.strerror}; free some space", 1)
        if os.environ.get("BLOCKLAB_TRACEBACK"):
            raise
        if place := _place_in_plugins(error):
            line = with_place(error_line(error), place)
            return _say(f"{line}; mend that, or see all with BLOCKLAB_TRACEBACK=1", 1)
        return _say(
            f"{error_line(error)} (a fault of blocklab's: please report it with what "
            "BLOCKLAB_TRACEBACK=1 shows)",
            1,
        )


def _place_in_plugins(error: Exception) -> str:
    """Say where in a user's own file an error comes from; nothing where none was loaded."""
    if "blocklab.blocks.plugins" not in sys.modules:  # whose import takes PyTorch's
        return ""
    from blocklab.blocks.plugins import place_in_plugins

    return place_in_plugins(error)


def _refuse_empty(arguments: list[str]) -> None:
    """Refuse an empty path, such as a shell's unset variable: it would be the working directory."""
    for before, given in pairwise(["", *arguments]):
        if given == "--out=" or (given == "" and before == "--out"):
            raise InputError('--out "" is no folder; is a variable of your shell unset?')
        if given == "" and not before.startswith("-"):
            raise InputError("an argument is empty; is a variable of your shell unset?")


def _verb(arguments: list[str]) -> str:
    return f"{arguments[0]} " if arguments and arguments[0] in COMMANDS else ""


def _say(message: str, status: int, what: str = "error") -> int:
    try:
        print(f"{what}: {' '.join(message.split())}", file=sys.stderr, flush=True)
    except OSError:  # the status tells, where nothing can be written
        _say_no_more(sys.stderr)
    return status


# What a terminal of few letters gets in place of those that tables and errors use.
SPELT = {
    **{0x2212: "-", 0x2013: "-", 0x2011: "-", 0x00B1: "+-", 0x00D7: "x", 0x2026: "..."},
    **{0x2264: "<=", 0x2265: ">=", 0x2192: "->", 0x00B7: ".", 0x2019: "'"},
}


def _spell(error: UnicodeError) -> tuple[str, int]:
    """Write letters that an output's encoding lacks in ones that it has: no figure loses a sign."""
    assert isinstance(error, UnicodeEncodeError)
    missing = error.object[error.start : error.end]
    return "".join(SPELT.get(ord(c)) or ascii(c)[1:-1] for c in missing), error.end


def _say_no_more(stream: TextIO) -> None:
    """Send what is still to be written nowhere, so that nothing fails at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _open_streams() -> None:
    """Give a process that was started with closed streams (`>&-`) some that lead nowhere.

    Else the first files that it opens would take their place, and be written to.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - for all its life
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def main() -> None:
    """Run the command line of this process."""
    _open_streams()
    codecs.register_error("blocklab.spell", _spell)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="blocklab.spell")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stop in order, as Ctrl-C is
    try:
        status = run(sys.argv[1:])
    except KeyboardInterrupt:  # a second one, while the first was being told
        status = Stopped.exit_status
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    # All is done and said: of a stop that comes now, Python, which is ending, would print a
    # traceback.
    for stop in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(stop) is not signal.SIG_IGN:
            signal.signal(stop, lambda number, frame: os._exit(status))
    sys.exit(status)
