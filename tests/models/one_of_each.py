"""Of many models, those that have between them everything that any of them has."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

_SIZES = ("depths", "widths", "drop_rate", "drop_path_rate")
_NUMBER = re.compile(r"\b\d[\d.e+-]*")


def one_of_each(models: Iterable[tuple[str, dict[str, Any]]]) -> set[str]:
    """Return the names that bring a filling of a slot, or a block to a kind of residual block.

    Fillings that differ in a number alone are one: blocks have tests of their own.
    """
    seen: set[tuple[str, ...]] = set()
    names: set[str] = set()
    for name, value in models:
        if new := set(_traits(value)) - seen:
            seen |= new
            names.add(name)
    return names


def _traits(value: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    family, block = value["family"], str(value.get("block"))
    for slot, filling in value.items():
        if slot not in _SIZES:
            yield family, slot, _NUMBER.sub("#", json.dumps(filling, sort_keys=True))
            yield family, block, slot, json.dumps(_types(filling), sort_keys=True)


def _types(filling: Any) -> Any:
    """Names of blocks, without their options but for an attention inside."""
    if isinstance(filling, list):
        return [_types(one) for one in filling]
    if isinstance(filling, dict):
        return {"type": filling.get("type"), "attention": _types(filling.get("attention"))}
    return filling if isinstance(filling, str) else None
