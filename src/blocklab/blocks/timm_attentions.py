"""timm's attentions by name, ``timm:eca``, with the options of their constructors.

What timm's `get_attn` names and keeps a map's shape. An option that a file cannot say (a class for
a layer, where timm takes no word) is none; one of a class by default is null, which leaves it.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.layers import get_attn
from torch import nn

from blocklab.blocks.registry import FINDERS, BlockInfo, options_model
from blocklab.blocks.timm_code import TIMM, code_digest, sayable_options
from blocklab.errors import InputError, did_you_mean, error_line

# What would give a map of another shape, or is only known where the block sits.
_OF_ITS_PLACE = {"channels", "in_channels", "out_channels", "dim", "dim_out", "stride", "feat_size"}
# What timm takes and does not use, once it knows the channels.
_WITHOUT_EFFECT = {
    "eca": ("kernel_size",),
    "ecam": ("kernel_size",),
    "ceca": ("kernel_size",),
    "gc": ("init_last_zero",),
    "gca": ("init_last_zero",),
    "lambda": ("qk_ratio",),
    "lcbam": ("gate_layer",),
}
_PROBED = 64  # channels of the block whose code is looked at


@dataclass(frozen=True)
class TimmAttention(BlockInfo):
    """An attention of timm's: what makes it, which takes the channels first."""

    make: Callable[..., nn.Module] = nn.Identity

    def build(self, told: Mapping[str, Any], options: Mapping[str, Any]) -> nn.Module:
        """Build it, with those options that are not as timm has them.

        Raises:
            InputError: with what timm raises.
        """
        defaults = {name: field.default for name, field in self.options.model_fields.items()}
        given = {name: value for name, value in options.items() if value != defaults[name]}
        try:
            return self.make(told["channels"], **given)
        except Exception as error:  # timm's constructors raise anything
            said = "".join(f", {name}={value}" for name, value in given.items())
            raise InputError(
                f"timm cannot build '{self.name}' with {told['channels']} channels{said}: "
                f"{error_line(error)}; give it other options or channels"
            ) from None


def timm_attention(name: str) -> TimmAttention:
    """Return what is known of an attention by its name, ``timm:eca``, perhaps with a digest.

    Raises:
        InputError: if timm has no such attention, or its code is not what it was.
    """
    plain, _, digest = name.removeprefix(TIMM).partition("@")
    if plain not in attention_names():
        raise InputError(
            f"timm {timm.__version__} has no attention '{plain}'"
            f"{did_you_mean(plain, attention_names()) or '.'} "
            f"timm's: {', '.join(attention_names())}"
        )
    found = _attention(plain)
    if digest and digest != found.digest:
        raise InputError(
            f"attention '{TIMM}{plain}' is not the one that was meant (@{digest}): timm "
            f"{timm.__version__} has other code for it (@{found.digest}); install the timm that "
            "the run.json of its run names"
        )
    return found


@functools.cache
def attention_names() -> tuple[str, ...]:
    """Return timm's names of attentions: the words that its `get_attn` compares with."""
    words = [word for word in get_attn.__code__.co_consts if isinstance(word, str)]
    return tuple(sorted(word for word in words if word.isidentifier() and _is_attention(word)))


def _is_attention(word: str) -> bool:
    try:
        return get_attn(word) is not None
    except AssertionError:
        return False


@functools.cache
def _attention(name: str) -> TimmAttention:
    make: Any = get_attn(name)
    unsaid = {*_OF_ITS_PLACE, *_WITHOUT_EFFECT.get(name, ())}
    options = {
        option: (said, default if isinstance(default, bool | int | float | str | tuple) else None)
        for option, (said, default) in sayable_options(make).items()
        if option not in unsaid
    }
    options = {
        option: (said | None if default is None else said, default)
        for option, (said, default) in options.items()
    }
    full = f"{TIMM}{name}"
    try:
        with torch.device("meta"):
            digest = code_digest(make(_PROBED))
    except Exception as error:
        raise InputError(
            f"timm {timm.__version__} cannot build '{full}' by its channels alone: "
            f"{error_line(error)}; take another attention"
        ) from None
    cls: Any = make.func if isinstance(make, functools.partial) else make
    schema = options_model(full, options)
    return TimmAttention(full, "attention", cls, ("channels",), schema, digest, make=make)


FINDERS[TIMM] = timm_attention
