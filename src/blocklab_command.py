"""Where the program `blocklab` begins: outside the package, so that help imports no PyTorch."""

answering = False  # whether this process is the command line, not a program that imports blocklab


def main() -> None:
    """Run the command line of this process."""
    global answering
    answering = True
    from blocklab.cli import app

    app.main()
