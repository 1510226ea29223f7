"""Where the program `blocklab` begins: outside the package, so that help imports no PyTorch."""

import sys

answering = False  # whether this process is the command line, not a program that imports blocklab


def main() -> None:
    """Run the command line of this process."""
    global answering
    answering = True
    try:
        from blocklab.cli import app
    except KeyboardInterrupt:  # while it is still being imported, which takes seconds when busy
        print("stopped: nothing had begun; run the same command again", file=sys.stderr)
        sys.exit(130)
    app.main()
