"""The command line: one command a verb, which parses, calls and prints."""

from blocklab.cli.app import main

__all__ = ["main"]
