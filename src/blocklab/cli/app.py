"""The command line's frame: its commands, how it ends, and what an error looks like.

A command imports what it computes with when it runs, so that help, names and refusals of what was
typed do not wait for PyTorch.

Exit status 0: done. 1: something failed midway. 2: wrong input. 130: stopped by Ctrl-C. An error is
one line on stderr, and so is what a stop leaves.
"""

import importlib
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from blocklab.errors import BlocklabError, Stopped, error_line

# The module of each command, which adds it to `app`; in the order in which help lists them.
COMMANDS = {
    "quickstart": "quickstart",
    "models": "models",
    "describe": "models",
    "train": "train",
    "study": "study",
    "report": "study",
    "evaluate": "runs",
    "predict": "runs",
    "diagnose": "runs",
    "export": "runs",
    "bench": "bench",
    "check": "check",
    "studies": "shipped",
    "recipes": "shipped",
}

STOPPED = "what had ended before is kept; the same command goes on from there"


class _InOrder(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return [name for name in COMMANDS if name in self.commands]


app = typer.Typer(
    name="blocklab",
    cls=_InOrder,
    help="Name a convolutional backbone, fill its slots with blocks, and learn what that buys.",
    add_completion=False,
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError:
        return _say("out of memory; use a smaller batch_size, fewer --workers or smaller images", 1)
    except Exception as error:
        if os.environ.get("BLOCKLAB_TRACEBACK"):
            raise
        return _say(
            f"{error_line(error)} (a fault of blocklab's: please report it with what "
            "BLOCKLAB_TRACEBACK=1 shows)",
            1,
        )


def _verb(arguments: list[str]) -> str:
    return f"{arguments[0]} " if arguments and arguments[0] in COMMANDS else ""


def _say(message: str, status: int, what: str = "error") -> int:
    print(f"{what}: {' '.join(message.split())}", file=sys.stderr)
    return status


def main() -> None:
    """Run the command line of this process."""
    sys.exit(run(sys.argv[1:]))
