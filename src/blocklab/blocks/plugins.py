"""A user's own blocks: a Python file, named on the command line and never inside a YAML file.

The file is run, and its blocks are registered with a digest of its content, which is part of what
defines a run: a changed file trains again. What the file itself imports is not in the digest.
"""

import hashlib
import sys
import traceback
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from blocklab.blocks.registry import BlockInfo, registering
from blocklab.errors import BlocklabError, InputError, error_line, place_in_files, with_place

DIGITS = 12  # of a file's SHA-256


@dataclass(frozen=True)
class _Plugin:
    digest: str
    blocks: tuple[BlockInfo, ...]


_LOADED: dict[Path, _Plugin] = {}


def load_plugin(path: str | Path) -> tuple[BlockInfo, ...]:
    """Run a file that registers blocks, and return them.

    A file that has not changed is run once a process, however often it is loaded; one that has
    changed takes the place of what it was.

    Raises:
        InputError: naming the file, where it is no such file or something in it is wrong. Nothing
            of it stays registered.
    """
    file = Path(path).resolve()
    source = _read(file)
    digest = hashlib.sha256(source).hexdigest()[:DIGITS]
    known = _LOADED.get(file)
    if known is not None and known.digest == digest:
        return known.blocks
    with registering(digest, known.blocks if known else ()) as blocks:
        _run(file, source)
    if not blocks:
        _LOADED.pop(file, None)
        raise InputError(
            f"{file} registers no block and no backbone; put @register_block('name') or "
            "@register_backbone('name') above a class"
        )
    _LOADED[file] = _Plugin(digest, tuple(blocks))
    return _LOADED[file].blocks


def loaded_plugins() -> tuple[str, ...]:
    """Return the paths of the files that this process has loaded, for its worker processes."""
    return tuple(map(str, _LOADED))


def place_in_plugins(error: BaseException, *files: str) -> str:
    """Say where in a user's file, or in one of `files`, an error comes from: ``x.py, line 3``."""
    return place_in_files(error, (*files, *loaded_plugins()))


def fault_line(error: BaseException) -> str:
    """Return an exception on one line, with the place in a user's file, if it comes from one.

    Our own errors say what they have to: memory, say, runs out wherever it happens to.
    """
    line = error_line(error)
    return line if isinstance(error, BlocklabError) else with_place(line, place_in_plugins(error))


@contextmanager
def plugin_errors() -> Iterator[None]:
    """Say of what goes wrong in a network that a user's block may be the cause, if there is one.

    Raises:
        InputError: in place of any error that says nothing to a user.
    """
    try:
        yield
    except BlocklabError:
        raise
    except Exception as error:
        if not _LOADED:
            raise
        files = " ".join(f"`blocklab check {quote(str(file))}`" for file in _LOADED)
        raise InputError(
            f"the network does not run: {fault_line(error)}; {files} tells whether a block of "
            "yours is why"
        ) from error


def _read(file: Path) -> bytes:
    if file.suffix != ".py":
        raise InputError(f"{file} is no Python file; a plugin is a .py file that registers them")
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}; check the path") from None


def _run(file: Path, source: bytes) -> None:
    """Run the file as a module that pickling and inspection can find.

    Raises:
        InputError: with the line, whatever the file raises.
    """
    place = hashlib.sha256(bytes(file)).hexdigest()[:8]  # two files may share a name
    module = types.ModuleType(f"blocklab_plugin_{file.stem}_{place}", f"Blocks of {file}.")
    module.__file__ = str(file)
    earlier = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, str(file), "exec"), module.__dict__)
    except BaseException as error:
        sys.modules.pop(module.__name__)
        if earlier is not None:
            sys.modules[module.__name__] = earlier
        if isinstance(error, KeyboardInterrupt):
            raise
        raise InputError(_one_line(file, error)) from error


def _one_line(file: Path, error: BaseException) -> str:
    """Say where in the file an error comes from, and what it is."""
    lines = [
        line
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename == str(file)
    ]
    message = error_line(error)
    if isinstance(error, SyntaxError):
        lines, message = [error.lineno or 0], f"{error.msg}; mend it"
    elif not isinstance(error, BlocklabError):
        message = f"{message}; `python {quote(str(file))}` shows more"
    return f"{file}, line {lines[-1]}: {message}" if lines and lines[-1] else f"{file}: {message}"
