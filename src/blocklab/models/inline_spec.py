"""A model in one line of text: a named model, a colon, and slots to fill otherwise.

``resnet50:attention=[se, triplet], stem=deep`` is what ``{base: resnet50, attention: [se, triplet],
stem: deep}`` is in YAML: each value is YAML, a slot's option has a dot (``mixer.scale=8``), and the
name before the colon is one of `list_models`. The YAML itself, in its braces, is taken too.
"""

import re
from typing import Any

from blocklab.errors import InputError
from blocklab.yaml_files import parse_yaml

_EXAMPLE = "such as resnet50:attention=[se,triplet],stem=deep"
_SLOT = re.compile(r"\s*([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?)\s*=(.*)", re.DOTALL)
_OPENING, _CLOSING, _QUOTES = "[{", "]}", "'\""


def is_filled(name: str) -> bool:
    """Whether a name fills slots, that is, has a colon."""
    return ":" in name


def parse_filled(name: str) -> dict[str, Any]:
    """Turn ``base:slot=value,slot.option=value`` into a mapping with a base.

    Raises:
        InputError: if a part is not ``slot=value``, a slot is there twice, or a value is not YAML.
    """
    if name.lstrip().startswith("{"):
        return parse_yaml(name, f"'{name}'")
    base, _, rest = name.partition(":")
    base = base.strip()
    if not base:
        raise InputError(f"'{name}' names no model before its colon; write one, {_EXAMPLE}")
    slots: dict[str, Any] = {}
    for part in _split(rest, name):
        match = _SLOT.fullmatch(part)
        if match is None or not match[2].strip():
            raise InputError(f"'{name}': '{part.strip()}' is not slot=value; write {_EXAMPLE}")
        slot = match[1]
        if slot in slots or slot in ("base", "backbone"):
            raise InputError(
                f"'{name}': '{slot}' is given twice; the model stands before the colon, and each "
                "slot after it once"
            )
        slots[slot] = parse_yaml(match[2].strip(), f"'{name}', {slot}")
    return {"base": base, **slots}


def _split(text: str, name: str) -> list[str]:
    """Split at the commas that no bracket or quotation encloses."""
    parts, start, depth, quote = [], 0, 0, ""
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in _QUOTES:
            quote = letter
        elif letter in _OPENING:
            depth += 1
        elif letter in _CLOSING:
            depth -= 1
        elif letter == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
        if depth < 0:
            break
    if depth or quote:
        raise InputError(f"'{name}': a bracket or quotation mark has no partner; add or remove one")
    return [*parts, text[start:]]
