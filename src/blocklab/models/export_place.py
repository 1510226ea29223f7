"""Where an export goes: looked at before the work, filled whole or not at all.

What blocklab did not write is not replaced unless that is asked for.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from blocklab.errors import InputError, RunError
from blocklab.files import owner, sweep


def check_place(path: Path, folder: bool) -> None:
    """Refuse a file or folder that cannot be written, and write nothing.

    Raises:
        InputError: if it is the other of the two, or its folder cannot be written.
    """
    if folder and path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; name a folder")
    if not folder and path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it")
    within = path if folder else path.parent
    there = next(place for place in (within, *within.absolute().parents) if _exists(place))
    if not there.is_dir():
        raise InputError(f"cannot write into {within}: {there} is no folder; name another path")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"cannot write into {within}: {there} is read-only; name another path")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, say, which is not there
        return False


def check_own(others: Sequence[Path], force: bool) -> None:
    """Refuse to replace files that are no export of blocklab's.

    Raises:
        InputError: if there are some, and they are not to be replaced by force.
    """
    if others and not force:
        named = ", ".join(map(str, others))
        it, them = ("it is", "it") if len(others) == 1 else ("they are", "them")
        raise InputError(
            f"{named}: {it} there and not as an export of blocklab's left {them}; name another "
            f"path, or replace {them} by --force (in Python force=True)"
        )


@contextmanager
def staged(path: Path, folder: bool) -> Iterator[Path]:
    """Hand out a path of that name in a new folder; move what was written there into place whole.

    If it fails inside, nothing is left: neither files nor folders that were made for them.

    Raises:
        RunError: if the disk is full or the folder cannot be written.
    """
    within = path if folder else path.parent
    made = [place for place in (within, *within.parents) if not place.exists()]
    try:
        within.mkdir(parents=True, exist_ok=True)
        sweep(within)
        with tempfile.TemporaryDirectory(dir=within, prefix=f".export.{owner()}.") as temporary:
            inside = Path(temporary) / path.name if not folder else Path(temporary)
            yield inside
            # A file that names others last: while it is not there, nothing is.
            for file in sorted(Path(temporary).iterdir(), key=lambda file: file.name == path.name):
                file.replace(within / file.name)
    except OSError as error:
        _remove(made)
        raise RunError(
            f"cannot write {path}: {error.strerror or error}; free some space or name another path"
        ) from error
    except BaseException:
        _remove(made)
        raise


def _remove(folders: Sequence[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # somebody else has put something there
            folder.rmdir()
