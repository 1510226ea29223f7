"""What a process that a study starts must not run again, and what it must."""

import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def load_plugins(paths: Sequence[str]) -> None:
    """Register the blocks of plugin files, in a process that has not."""
    if not paths:
        return
    from blocklab.blocks.plugins import load_plugin

    for path in paths:
        load_plugin(Path(path))


@contextmanager
def no_main_module() -> Iterator[None]:
    """Hide the caller's script, which a new process would otherwise run again as a module.

    So a script may run a study at its top level. Blocks of its own it gives as plugins.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
