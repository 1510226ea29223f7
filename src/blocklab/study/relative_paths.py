"""Relative paths in a study's file, all of them alike: they are seen from the file's folder.

They are those of data (``folder:``, ``parquet:``), of recipes and of weights to start from, of the
study and of its rows, and of the studies that a collection names. What the command line gives is
seen from where it is typed.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blocklab.data.sources import PATH_KINDS
from blocklab.models.pretrained import is_address


def seen_from(folder: Path, value: object) -> object:
    """Return a study file's content, not yet checked, with its relative paths made absolute."""
    if not isinstance(value, Mapping):
        return value
    seen = _with_paths(folder, value)
    if isinstance(rows := value.get("rows"), Mapping):
        seen["rows"] = {
            name: _with_paths(folder, row) if isinstance(row, Mapping) else row
            for name, row in rows.items()
        }
    return seen


def path_from(folder: Path, path: str) -> str:
    """Return a path that a file in `folder` names."""
    return os.path.abspath(folder / os.path.expanduser(path))


def _with_paths(folder: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    seen = dict(fields)
    for name, inside, absolute in (
        ("data", "source", _address_from),
        ("recipe", "base", _recipe_from),
        ("pretrained", "weights", _weights_from),
    ):
        given = fields.get(name)
        if isinstance(given, str):
            seen[name] = absolute(folder, given)
        elif isinstance(given, Mapping) and isinstance(given.get(inside), str):
            seen[name] = {**given, inside: absolute(folder, given[inside])}
    return seen


def _address_from(folder: Path, address: str) -> str:
    kind, _, path = address.partition(":")
    return f"{kind}:{path_from(folder, path)}" if kind in PATH_KINDS and path.strip() else address


def _weights_from(folder: Path, weights: str) -> str:
    return weights if is_address(weights) else path_from(folder, weights)


def _recipe_from(folder: Path, name: str) -> str:
    return path_from(folder, name) if name.endswith((".yaml", ".yml")) else name
