"""Whether every option of a block changes something: other values, derived from its type, tried."""

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import torch
from pydantic import BaseModel

from blocklab.blocks.activation import ACTIVATIONS
from blocklab.blocks.protocol import width_of
from blocklab.blocks.registry import BlockSpec, parse_block
from blocklab.contract.trial import (
    PLANES,
    WIDE_PLANES,
    CheckFailed,
    NotApplicable,
    Subject,
    channels_of,
    difference,
    forward,
)
from blocklab.errors import InputError

_INTEGERS = (1, 2, 3, 4, 5, 7, 8, 16)
_FLOATS = (0.1, 0.25, 0.5, 1.0, 2.0)
_ATTENTIONS = ([{"type": "se"}], [{"type": "coordinate"}], [])


def options_change_something(subject: Subject) -> str:
    """Another value of each option changes parameters, their start or outputs.

    Where a type lists its values (a choice, a switch), each of them must.
    """
    options = subject.info.options
    if not options.model_fields:
        raise NotApplicable("it has no options")
    untried: list[str] = []
    for option in options.model_fields:
        others = list(other_values(subject, option))
        if not others:
            untried.append(option)
            continue
        if _lists_values(options, option):
            for value in others:
                if not _has_effect(subject, option, value):
                    raise CheckFailed(f"{option}={value!r} changes nothing; use it or remove it")
        elif not any(_has_effect(subject, option, value, alone=True) for value in others) and (
            not any(_has_effect(subject, option, value) for value in others)
        ):
            raise CheckFailed(f"{option} changes nothing; use the option or remove it")
    said = ", ".join(option for option in options.model_fields if option not in untried)
    said += " change something" if "," in said else " changes something"
    if untried:
        said += f"; no other value found to try for {', '.join(untried)}"
    return said


def other_values(subject: Subject, option: str) -> Iterator[Any]:
    """Yield values of an option that its schema takes and that it does not have now."""
    field = subject.info.options.model_fields[option]
    now = subject.spec.get(option, field.default)
    seen: list[Any] = [now]
    for value in _candidates(field.annotation, now):
        try:
            spec = parse_block(subject.info.kind, {**subject.spec, option: value})
        except InputError:
            continue
        if (read := spec.get(option, field.default)) not in seen:
            seen.append(read)
            yield read


def _candidates(kind: Any, now: Any) -> Iterator[Any]:
    """Yield values that may be of a type; the schema has the last word."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        yield from _candidates(arguments[0], now)
    elif origin in (Union, types.UnionType):
        for argument in arguments:
            yield from _candidates(argument, now)
    elif kind is type(None):
        yield None
    elif origin is Literal:
        yield from arguments
    elif kind is bool:
        yield from (True, False)
    elif kind is int:
        if isinstance(now, int):
            yield from (now + 1, now + 2, now - 1, now - 2, 2 * now, now // 2)
        yield from _INTEGERS
    elif kind is float:
        if isinstance(now, int | float):
            yield from (now / 2, 2 * now, now + 0.1)
        yield from _FLOATS
    elif kind is str:
        yield from ACTIVATIONS
    elif origin in (tuple, list):
        yield from _sequences(arguments, now)


def _sequences(arguments: tuple[Any, ...], now: Any) -> Iterator[Any]:
    """Yield a list with one value changed, one fewer, one more."""
    if arguments and get_origin(arguments[0]) is dict:  # specifications of attentions
        yield from _ATTENTIONS
        return
    items = list(now or ())
    kinds = [kind for kind in arguments if kind is not Ellipsis] or [int]
    for place, item in enumerate(items):
        for value in _candidates(kinds[min(place, len(kinds) - 1)], item):
            yield [*items[:place], value, *items[place + 1 :]]
    yield items[:-1]
    for value in _candidates(kinds[-1], items[-1] if items else None):
        yield [*items, value]


def _lists_values(options: type[BaseModel], option: str) -> bool:
    """Whether a type is a choice between a few values, each of which must then matter."""
    kind = options.model_fields[option].annotation
    arguments = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return all(
        argument in (bool, type(None)) or get_origin(argument) is Literal for argument in arguments
    )


def _has_effect(subject: Subject, option: str, value: Any, alone: bool = False) -> bool:
    """Whether a value changes something, by itself or beside another value of another option."""
    if _differ(subject, subject.spec, {**subject.spec, option: value}):
        return True
    if alone:
        return False
    for other in subject.info.options.model_fields:
        if other != option:
            for beside in list(other_values(subject, other))[:6]:
                base = {**subject.spec, other: beside}
                if _differ(subject, base, {**base, option: value}):
                    return True
    return False


def _differ(subject: Subject, one: BlockSpec, two: BlockSpec) -> bool:
    """Whether two specifications are two functions, as far as trying tells."""
    try:
        return any(
            _shapes(subject, one, planes) != _shapes(subject, two, planes)
            for planes in (PLANES, WIDE_PLANES)
        ) or _starts_or_outputs_differ(subject, one, two)
    except Exception:  # not every combination of options can be built
        return False


def _shapes(subject: Subject, spec: BlockSpec, planes: int) -> list[Any]:
    shapes: list[Any] = []
    for place in subject.places(planes, spec):
        with torch.device("meta"):
            block = subject.build(place, spec=spec, random=False)
        shapes.append(place)
        shapes.append(width_of(block, channels_of(place)))
        shapes.append([(name, value.shape) for name, value in block.state_dict().items()])
    return shapes


def _starts_or_outputs_differ(subject: Subject, one: BlockSpec, two: BlockSpec) -> bool:
    for place in subject.places():
        starts = [subject.build(place, spec=spec, random=False) for spec in (one, two)]
        for first, second in zip(*(block.parameters() for block in starts), strict=True):
            if not torch.equal(first, second):
                return True
        # Both with the same random parameters, whatever each draws while it is built.
        first, second = (
            subject.build(place, spec=spec, dtype=torch.float64) for spec in (one, two)
        )
        second.load_state_dict(first.state_dict())
        x = subject.images(place, (8, 12), dtype=torch.float64)
        for training in (True, False):
            with torch.no_grad():
                outputs = [forward(block, x, training) for block in (first, second)]
            if outputs[0].shape != outputs[1].shape or difference(*outputs) > 1e-9:
                return True
    return False
