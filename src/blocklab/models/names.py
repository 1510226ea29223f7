"""The catalogue: every named model as data. Reading it needs no PyTorch."""

import fnmatch
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from blocklab.errors import InputError, did_you_mean
from blocklab.models.inline_spec import is_filled, parse_filled
from blocklab.yaml_files import parse_yaml


def catalogue() -> dict[str, dict[str, Any]]:
    """Every named model's entry, in the order of the catalogue's files."""
    return _read_catalogue()[0]


def declared_params(name: str) -> int:
    """Return how many parameters the catalogue says a named model has, with 1000 classes.

    Raises:
        InputError: if the catalogue does not name the model.
    """
    params = _read_catalogue()[1]
    if name not in params:
        raise InputError(f"the catalogue has no '{name}'{did_you_mean(name, params)}")
    return params[name]


@cache
def _read_catalogue() -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    entries: dict[str, dict[str, Any]] = {}
    params: dict[str, int] = {}
    folder = resources.files("blocklab.models") / "catalogue"
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        for name, entry in parse_yaml(file.read_text(encoding="utf-8"), file.name).items():
            if name in entries:
                raise InputError(f"the catalogue names '{name}' twice; see {file.name}")
            params[name] = entry.pop("params")
            entries[name] = entry
    return entries, params


def entry_of(name: str, also: Sequence[str] = ()) -> Mapping[str, Any]:
    """Return a named model's entry, or what a name with slots after a colon says.

    `also` are names of other models, one of which may be meant.

    Raises:
        InputError: if the catalogue does not name the model, or the slots cannot be read.
    """
    if is_filled(name):
        return parse_filled(name)
    entries = catalogue()
    if name not in entries:
        raise InputError(
            f"no model '{name}'{did_you_mean(name, [*entries, *also]) or ';'} "
            "`blocklab models` lists all of them, and --plugin FILE brings your own"
        )
    return entries[name]


def list_models(filter: str = "*") -> list[str]:
    """Return the names of the models that match a shell pattern, such as ``"res2net*"``.

    ``"timm:convnext*"`` are timm's.
    """
    if filter.startswith("timm:"):
        from blocklab.models.timm_models import timm_names

        return [name for name in timm_names() if fnmatch.fnmatch(name, filter)]
    return [name for name in catalogue() if fnmatch.fnmatch(name, filter)]
