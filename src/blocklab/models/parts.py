"""What people call the parts of a network: its head, its stem, and any module by name."""

import re
from collections.abc import Iterable, Iterator

from torch import nn

from blocklab.errors import InputError, did_you_mean

BACKBONE, STEM = "backbone", "stem"


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Return the names of a network's last layers; none where it does not tell them."""
    name = getattr(model, "classifier_name", None)
    if name is None:
        name = (getattr(model, "default_cfg", None) or {}).get("classifier") or ()
    return (name,) if isinstance(name, str) else tuple(name)


def parameters_of(model: nn.Module, parts: Iterable[str]) -> set[str]:
    """Return the names of the parameters in the named parts of a network.

    Args:
        model: the network.
        parts: names of its modules, ``stem`` (what stands before its stages) or ``backbone`` (all
            but its head).

    Raises:
        InputError: for a part that it has not, or that has no parameters.
    """
    names = [name for name, _ in model.named_parameters()]
    found: set[str] = set()
    for part in parts:
        inside = set(_within(model, part, names))
        if not inside:
            raise InputError(_unknown(model, part, names))
        found |= inside
    return found


def _within(model: nn.Module, part: str, names: list[str]) -> Iterator[str]:
    plain = [name for name in names if name == part or name.startswith(f"{part}.")]
    if plain:
        yield from plain
    elif part == BACKBONE and (heads := head_names(model)):
        yield from (name for name in names if not name.startswith(tuple(f"{h}." for h in heads)))
    elif part == STEM and (pattern := _stem_pattern(model)):
        yield from (name for name in names if re.match(pattern, name))


def _stem_pattern(model: nn.Module) -> str | None:
    matcher = getattr(model, "group_matcher", None)
    stem = matcher(coarse=True).get("stem") if matcher is not None else None
    return stem if isinstance(stem, str) else None


def _unknown(model: nn.Module, part: str, names: list[str]) -> str:
    if part in dict(model.named_modules()):
        return f"its part '{part}' has no weights; leave it out"
    whole = {BACKBONE: bool(head_names(model)), STEM: _stem_pattern(model) is not None}
    words = [word for word, known in whole.items() if known]
    first = dict.fromkeys([*words, *(name.partition(".")[0] for name in names)])
    modules = dict.fromkeys(name.rpartition(".")[0] for name in names)
    close = did_you_mean(part, [*words, *first, *modules])
    return f"it has no part '{part}'{close or '.'} Parts: {', '.join(first)}, or a module in one"
