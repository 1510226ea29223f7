"""Networks without memory: built and run for their shapes alone, on PyTorch's meta device.

PyTorch infers shapes there in Python, operator by operator, which takes nearly all of the time.
Where a shape is plain at once it is given here, and what has nothing to fill is not initialised.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# Operators of one map whose result has its shape and type, and of two that broadcast.
_OF_ONE_MAP = frozenset(
    "celu elu gelu hardswish leaky_relu mish relu selu sigmoid silu tanh".split()
)
_OF_TWO_MAPS = frozenset(("add", "mul", "sub", "div"))
_FILLS = frozenset(
    [getattr(Tensor, name) for name in "normal_ uniform_ fill_ zero_ erfinv_ clamp_".split()]
    + [nn.init.normal_, nn.init.uniform_, nn.init.constant_, nn.init.kaiming_uniform_]
)


@contextmanager
def without_memory() -> Iterator[None]:
    """Modules that are built inside have shapes and no values, and are not initialised."""
    with torch.device("meta"), _NoFilling():
        yield


class _NoFilling(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FILLS:
            filled = args[0] if args else kwargs.get("tensor")
            if isinstance(filled, Tensor) and filled.is_meta:
                return filled
        return func(*args, **kwargs)


class QuickShapes(TorchDispatchMode):
    """Inside it, a network on the meta device runs several times faster, with the same shapes."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        quick = quick_result(func._overloadpacket.__name__, args)
        return func(*args, **(kwargs or {})) if quick is None else quick


def quick_result(name: str, args: Sequence[Any]) -> Any:
    """Return an operator's empty result where its shape is plain at once; None elsewhere."""
    first = args[0] if args else None
    if not isinstance(first, Tensor) or not first.is_meta or not first.is_floating_point():
        return None
    if name in _OF_ONE_MAP:
        return _like(first)
    if name in _OF_TWO_MAPS:
        other = args[1]
        if isinstance(other, Tensor) and other.is_meta and other.dtype == first.dtype:
            shape = _broadcast(first.shape, other.shape)
            return None if shape is None else first.new_empty(shape)
        return _like(first) if isinstance(other, int | float) else None
    if name == "native_batch_norm":  # the map, and the batch's statistics in training
        channels = first.shape[1] if args[5] else 0
        return _like(first), first.new_empty(channels), first.new_empty(channels)
    if name == "mean" and len(args) > 1 and args[1]:
        return first.new_empty(_without_sides(first.shape, args[1], len(args) > 2 and args[2]))
    if name == "native_layer_norm":
        kept = first.ndim - len(args[1])
        statistic = [*first.shape[:kept], *[1] * len(args[1])]
        return _like(first), first.new_empty(statistic), first.new_empty(statistic)
    if name == "convolution":
        shape = _convolved(*args)
        return None if shape is None else first.new_empty(shape)
    return None


def _like(x: Tensor) -> Tensor:
    """An empty tensor as x lies in memory; of a dense one without asking PyTorch for its order."""
    if x.is_contiguous():
        return x.new_empty(x.shape)
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return x.new_empty_strided(x.shape, x.stride())
    return torch.empty_like(x)


def _convolved(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    _output_padding: Sequence[int],
    groups: int,
) -> list[int] | None:
    """The shape of a plain convolution's result; None where PyTorch is to say what is wrong."""
    fits = (
        not transposed
        and x.ndim == weight.ndim == 4
        and x.dtype == weight.dtype
        and x.shape[1] == weight.shape[1] * groups
        and weight.shape[0] % groups == 0
        and len(stride) == len(padding) == len(dilation) == 2
        and (bias is None or (bias.dtype == x.dtype and bias.shape == weight.shape[:1]))
    )
    if not fits:
        return None
    sides = [
        (side + 2 * margin - step * (taps - 1) - 1) // jump + 1
        for side, margin, step, taps, jump in zip(
            x.shape[2:], padding, dilation, weight.shape[2:], stride, strict=True
        )
    ]
    return [x.shape[0], weight.shape[0], *sides] if min(sides) > 0 else None


def _without_sides(shape: Sequence[int], sides: Sequence[int], keep: bool) -> list[int]:
    gone = {side % len(shape) for side in sides}
    if keep:
        return [1 if side in gone else size for side, size in enumerate(shape)]
    return [size for side, size in enumerate(shape) if side not in gone]


def _broadcast(first: Sequence[int], second: Sequence[int]) -> list[int] | None:
    if len(first) != len(second):
        return None
    sides = [max(pair) if 1 in pair else pair[0] for pair in zip(first, second, strict=True)]
    fits = all(a in (1, n) and b in (1, n) for a, b, n in zip(first, second, sides, strict=True))
    return sides if fits else None
