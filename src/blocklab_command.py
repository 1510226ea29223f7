"""Where the program `blocklab` begins: outside the package, so that help imports no PyTorch."""

import sys

answering = False  # whether this process is the command line, and no program that imports blocklab


def main() -> None:
    """Run the command line of this process."""
    global answering
    answering = True
    from blocklab.cli.app import run

    sys.exit(run(sys.argv[1:]))
