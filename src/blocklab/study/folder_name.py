"""What a study's folder is called: after its file, and what a command changes in what that says.

``blocklab study mine.yaml --rows se --seeds 1 --set lr=0.02`` is ``mine+rows=se+seeds=1+lr=0.02``,
so that it takes no other study's page and a person sees what differs.
"""

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from blocklab.errors import InputError

NOT_IN_NAMES = '/\\:*?"<>|'  # somewhere they part a path, or are refused
MOST_BYTES = 100  # of a name: a file system takes 255, and what is written beside it is longer
DIGITS = 6  # of a hash, where a name cannot stand as it is


def safe_name(name: str) -> str:
    """Return a name as a folder's: as it is, where it can be that; else what can be, and a hash.

    Letters of any script and spaces stay, and so no two names become one.

    Raises:
        InputError: if nothing of it is left.
    """
    composed = unicodedata.normalize("NFC", name)
    kept = "".join(c if c.isprintable() and c not in NOT_IN_NAMES else "_" for c in composed)
    kept = kept.lstrip(". ").rstrip(". ")
    if not kept:
        raise InputError(f"a study cannot be called '{name}'; rename its file")
    if kept == composed and len(kept.encode()) <= MOST_BYTES:
        return kept
    digest = _digest(composed)
    short = kept.encode()[: MOST_BYTES - DIGITS - 1].decode("utf-8", "ignore").rstrip(". ")
    return f"{short}-{digest}"


def joined_name(name: str, changes: Iterable[str]) -> str:
    """Return what the folder of a study is called in which that is changed."""
    said = "".join(f"+{change}" for change in changes)
    return name + (f"+{safe_name(said[1:])}" if said else "")


def worded_changes(settings: Mapping[str, Any], **options: Any) -> tuple[str, ...]:
    """Return changes as ``rows=a,b`` or ``lr=0.02``; an option that is None changes nothing.

    Settings stand last, in the order of their names.
    """
    changes = [(what, value) for what, value in options.items() if value is not None]
    changes += sorted(settings.items())
    return tuple(f"{what}={_worded(value)}" for what, value in changes)


def path_digest(path: Path) -> str:
    """Return what tells a file from another of its name, without saying where it lies."""
    return _digest(os.path.realpath(path), 16)


def _digest(text: str, digits: int = DIGITS) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:digits]


def _worded(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(one, str | int) for one in value):
        return ",".join(map(str, value))
    return json.dumps(value, default=str, ensure_ascii=False).replace('"', "")
