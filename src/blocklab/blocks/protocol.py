"""What a block may say of itself, and the one place where it is asked.

`Block` declares it all, each with what holds where a block says nothing. A block need not inherit
from it: any `nn.Module` whose class has one of its names says that. Only classes are asked, so that
a part of a block which happens to be called ``merge`` is a part.
"""

from collections.abc import Collection, Mapping
from types import FunctionType
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from blocklab.blocks.obstacles import (
    hand_over_hooks,
    keep,
    looking_at,
    obstacle_within,
    replaced_method,
)
from blocklab.errors import BlocklabError, InputError, did_you_mean


class Block:
    """All that a block may say of itself."""

    has_norm_and_activation: ClassVar[bool] = False
    """A mixer's: it brings its BatchNorm and activation, and gets none from its residual block."""

    out_channels: int
    """A token mixer's or an FFN mixer's: the channels that leave it (else those that enter)."""

    mixes_samples: str = ""
    """What lets samples of a batch reach one another by design, say "softmax over the batch".

    Empty: nothing does. Where something does, an output depends on the others of the batch, in
    evaluation too. Such a block may refuse a batch of one, is not given one where costs are
    counted, and a network with it is not exported as a graph.
    """

    width_options: ClassVar[tuple[str, ...]] = ()
    """A mixer's: its options that `inner_width` alone reads.

    A network that does not ask for a width refuses them, as they would do nothing there.
    """

    @staticmethod
    def inner_width(planes: int, **options: Any) -> int:
        """Return how wide a mixer with these options wants the inside of a block of `planes`."""
        return planes

    def no_weight_decay(self) -> set[str]:
        """Names of its parameters to leave out of weight decay, beside biases and norms."""
        return set()

    def init_weights(self) -> None:
        """Start as the block's paper says, after the backbone initialised every layer its way."""

    def merge(self) -> None:
        """Replace in place what only training needs, with the same outputs in evaluation.

        What the tensors are called afterwards is what a merged file calls them. A second call
        changes nothing. Also called where tensors are on the meta device, for costs.
        """

    def fold_norms(self) -> nn.Module | None:
        """Fold norms into convolutions in place (`blocklab.blocks.folding`), for evaluation.

        May return another module, which takes this one's place with its parts.
        """


_Call = Literal["init_weights", "merge", "fold_norms"]


def brings_norm_and_activation(mixer: nn.Module) -> bool:
    """Whether a mixer needs no BatchNorm and activation after it."""
    return bool(_said(type(mixer), "has_norm_and_activation"))


def inner_width(mixer: type[nn.Module], planes: int, options: Mapping[str, Any]) -> int:
    """How wide a mixer wants the inside of a residual block of `planes` channels.

    Raises:
        InputError: if it says no number of channels.
    """
    width = _said(mixer, "inner_width")(planes, **options)
    return _channels(width, f"inner_width() of {mixer.__name__} gives")


def width_options(mixer: type[nn.Module], options: Collection[str]) -> tuple[str, ...]:
    """Which of a mixer's `options` `inner_width` alone reads: without effect elsewhere.

    Those of a class that it comes from are left out where it has them not.

    Raises:
        InputError: if it says something else than names of its options.
    """
    said = _said(mixer, "width_options")
    if not isinstance(said, tuple | list) or not all(isinstance(name, str) for name in said):
        raise InputError(f"width_options of {mixer.__name__} is {said!r}; write a tuple of names")
    for name in vars(mixer).get("width_options", ()):
        if name not in options:
            raise InputError(
                f"width_options of {mixer.__name__} names '{name}', which is no option of it"
                f"{did_you_mean(name, options) or ';'} name one, or leave it out"
            )
    return tuple(name for name in said if name in options)


def width_of(block: nn.Module, channels: int) -> int:
    """How many channels leave a block that `channels` enter.

    Raises:
        InputError: if it says no number of channels.
    """
    width = getattr(block, "out_channels", channels)
    return _channels(width, f"out_channels of {type(block).__name__} is")


def mixed_by(network: nn.Module) -> str:
    """What mixes samples in a block or a network, itself or a part of it; empty: nothing does."""
    said = (getattr(part, "mixes_samples", Block.mixes_samples) for part in network.modules())
    return next((words for words in said if isinstance(words, str) and words), "")


def smallest_batch(network: nn.Module) -> int:
    """How many images a block or a network takes at least."""
    return 2 if mixed_by(network) else 1


def init_itself(part: nn.Module) -> None:
    """Let a part, which the backbone has initialised, start as it says.

    Raises:
        InputError: if a user's block fails in it.
    """
    _call(part, "init_weights")


@torch.no_grad()
def merge_parts(network: nn.Module) -> tuple[str, ...]:
    """Merge all parts of a network that can be, itself included, in place; return their names.

    A part below which something is watched or used elsewhere stays as it is.

    Raises:
        InputError: if a user's block fails in it.
    """
    names = []
    with looking_at(network):
        # The walk is lazy: what a part takes out of itself is not asked.
        for name, part in network.named_modules():
            if why := _silenced(part, "merge") or (merges(part) and obstacle_within(part)):
                keep(part, why)
            elif merges(part):
                _call(part, "merge")
                names.append(name)
    return tuple(names)


def merges(part: nn.Module) -> bool:
    """Whether a part has a training form and a merged one."""
    return _speaks_for_itself(part, "merge")


@torch.no_grad()
def fold_parts(network: nn.Module) -> nn.Module:
    """Fold the norms of all parts of a network in evaluation mode; return what takes its place.

    Raises:
        InputError: if a user's block fails in it.
    """
    with looking_at(network):
        return _folded(network, {})


def folds(part: nn.Module) -> bool:
    """Whether a part says which of its norms fold."""
    return _speaks_for_itself(part, "fold_norms")


def _folded(part: nn.Module, done: dict[nn.Module, nn.Module]) -> nn.Module:
    """Fold a part, then the parts of what takes its place; one that is shared is folded once."""
    if part in done:
        return done[part]
    if why := _silenced(part, "fold_norms"):
        keep(part, why)
    other = _call(part, "fold_norms") if folds(part) else None
    new = part if other is None else other
    if new is not part:
        hand_over_hooks(part, new)
    done[part] = done[new] = new
    for name, child in list(new._modules.items()):
        if child is not None and (folded := _folded(child, done)) is not child:
            setattr(new, name, folded)
    return new


def _said(cls: type[nn.Module], name: str) -> Any:
    return getattr(cls, name, getattr(Block, name))


def _author(cls: type[nn.Module], name: _Call) -> type | None:
    """The class whose method of this name holds for a class, if there is one."""
    base = next(base for base in (*cls.__mro__, Block) if name in vars(base))
    return None if base is Block else base


def _speaks_for_itself(part: nn.Module, name: _Call) -> bool:
    """Whether a part's class has this method and computes as the class that wrote it."""
    return _author(type(part), name) is not None and not _silenced(part, name)


def _silenced(part: nn.Module, name: _Call) -> str:
    """Say why the method that a part has does not speak for it: it computes something else."""
    cls = type(part)
    author = _author(cls, name)
    if author is None:
        return ""
    if method := replaced_method(part):
        return f"its {method}() was replaced"
    for base in cls.__mro__[: cls.__mro__.index(author)]:
        for method, value in vars(base).items():
            if isinstance(value, _CODE) and _changes(base, cls, method):
                return f"{base.__name__} changes {method}() and declares no {name}()"
    return ""


_CODE = (FunctionType, property, staticmethod, classmethod)


def _changes(base: type, cls: type, method: str) -> bool:
    """Whether a base of a class changes what is computed by a method of this name."""
    if method in vars(Block) or method.startswith("init_"):
        return False
    if method in ("forward", "__call__"):
        return True
    later = cls.__mro__[cls.__mro__.index(base) + 1 :]
    before = later[: later.index(nn.Module)] if nn.Module in later else later
    return not method.startswith("__") and any(method in vars(other) for other in before)


def _call(part: nn.Module, name: _Call) -> Any:
    cls = type(part)
    try:
        return _said(cls, name)(part)
    except BlocklabError:
        raise
    except Exception as error:
        if cls.__module__.startswith("blocklab."):
            raise
        said = " ".join(str(error).split())
        raise InputError(
            f"{name}() of {cls.__name__} fails: {type(error).__name__}: {said}; mend it"
        ) from error


def _channels(width: object, what: str) -> int:
    if not isinstance(width, int) or isinstance(width, bool) or width < 1:
        raise InputError(f"{what} {width!r}; it is to be a number of channels from 1")
    return width


__all__ = [
    "Block",
    "brings_norm_and_activation",
    "fold_parts",
    "folds",
    "init_itself",
    "inner_width",
    "merge_parts",
    "merges",
    "mixed_by",
    "smallest_batch",
    "width_of",
]
