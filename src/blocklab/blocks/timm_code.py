"""What timm's classes take, and which code of timm's a class is.

timm's constructors swallow what they do not know (``**kwargs``), so what may be said to one is read
from its signature here: the parameters that a file can say, numbers, words, yes or no, and lists of
them. A class is identified by the code of timm's that it runs, and not by timm's version: a new
release leaves most of it as it was.
"""

import functools
import hashlib
import inspect
import operator
import types
from collections.abc import Iterable, Iterator
from typing import Any, Literal, Union, get_args, get_origin

from torch import nn

TIMM = "timm:"  # before a name of timm's, wherever one is named
DIGITS = 12  # of a SHA-256
UNSAID = ("device", "dtype")  # of a constructor, and no option of anybody's
_PLAIN = (bool, int, float, str, type(None))
# What these do is load, file or wrap a network, and not compute one. Of all attentions, which the
# last one names, those that a network has are among its modules.
_LEFT_OUT = frozenset(
    f"timm.{name}"
    for name in (
        "models._builder models._factory models._features models._features_fx models._helpers "
        "models._hub models._manipulate models._pretrained models._prune models._registry "
        "layers.create_attn"
    ).split()
)
_LOADING = "checkpoint_filter_fn"  # renames a checkpoint's tensors


def sayable_options(cls: Any) -> dict[str, tuple[Any, Any]]:
    """Return the parameters of a class, or of a partial one, that a file can say.

    Name -> type and default; parameters that a subclass passes on (``*args, **kwargs``) are those
    of the class above it.
    """
    found: dict[str, tuple[Any, Any]] = {}
    for signature in _signatures(cls):
        for name, parameter in signature.parameters.items():
            if name in ("self", *UNSAID) or name in found:
                continue
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            said = _sayable(parameter.annotation, parameter.default)
            if said is not None:
                found[name] = said, parameter.default
    return found


def _signatures(cls: Any) -> Iterator[inspect.Signature]:
    if isinstance(cls, functools.partial):
        yield inspect.signature(cls)
        return
    for one in cls.__mro__:
        if not one.__module__.startswith("timm.") or "__init__" not in vars(one):
            continue
        signature = inspect.signature(one.__init__)
        yield signature
        if not any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
            return


def _sayable(annotation: Any, default: Any) -> Any:
    """Return the part of a parameter's type that a file can say; None where there is none."""
    if annotation is inspect.Parameter.empty:
        if default is None or default is inspect.Parameter.empty:
            return bool | int | float | str | None
        return type(default) if isinstance(default, _PLAIN) else None
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [part for part in map(_plain_part, get_args(annotation)) if part is not None]
        return functools.reduce(operator.or_, parts) if set(parts) - {type(None)} else None
    return _plain_part(annotation)


def _plain_part(annotation: Any) -> Any:
    if annotation in _PLAIN or get_origin(annotation) is Literal:
        return annotation
    if get_origin(annotation) in (list, tuple):
        held = [_sayable(item, 0) for item in get_args(annotation) if item is not Ellipsis]
        return annotation if held and all(item is not None for item in held) else None
    return None


def code_digest(network: nn.Module, *roots: Any, facts: Iterable[str] = ()) -> str:
    """Return what identifies a network, or a block, of timm's: its code, and `facts`.

    It is a digest of the source, without comments and empty lines, of the classes of its modules,
    of `roots` and of all functions of timm's that these use.
    """
    sources: dict[str, str] = {}
    waiting = [*{type(module) for module in network.modules()}, *roots]
    while waiting:
        one = inspect.unwrap(waiting.pop())
        module = str(getattr(one, "__module__", ""))
        if not module.startswith("timm.") or module in _LEFT_OUT or one.__name__ == _LOADING:
            continue
        name = f"{module}.{one.__qualname__}"
        if name not in sources:
            sources[name] = _source(one)
            waiting.extend(_uses(one))
    said = "\n".join([*(sources[name] for name in sorted(sources)), *facts])
    return hashlib.sha256(said.encode()).hexdigest()[:DIGITS]


@functools.cache
def _source(one: Any) -> str:
    try:
        lines = inspect.getsource(one).splitlines()
    except (OSError, TypeError):  # a class that was made by no file of source
        return one.__qualname__
    return "\n".join(line.rstrip() for line in lines if line.strip() and line.lstrip()[0] != "#")


@functools.cache
def _uses(one: Any) -> tuple[Any, ...]:
    """Return the functions and classes that one names in its code, and the classes above it.

    Among those that it names are the ones that an option would choose.
    """
    found: list[Any] = list(one.__mro__[1:]) if isinstance(one, type) else []
    for function in vars(one).values() if isinstance(one, type) else [one]:
        function = inspect.unwrap(getattr(function, "__func__", function))
        if isinstance(function, types.FunctionType):
            named = (function.__globals__.get(name) for name in _names(function.__code__))
            found += [value for value in named if isinstance(value, type | types.FunctionType)]
    return tuple(found)


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)
