"""Dead neurons: how many outputs of each activation, and of each residual block, are exactly zero.

A ReLU that is below zero for every image passes no gradient back, so nothing revives it. Counted
are zeros after each activation, whether it is a module or a function, and after each residual
block; and channels that are zero at every position of every image looked at.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from blocklab.backbones.base import Backbone
from blocklab.errors import InputError
from blocklab.models.probe import evaluating

ACTIVATION, BLOCK = "activation", "residual block"
# PyTorch's operators for activations, in place or not. Gates (sigmoid, softmax, tanh) are none.
OPERATORS = frozenset(
    "relu leaky_relu prelu rrelu relu6 elu celu selu gelu silu mish hardswish hardtanh "
    "threshold".split()
)


@dataclass(frozen=True)
class Zeros:
    """What one layer gave: how many outputs, how many of them zero, and its channels.

    `kind` is ``activation`` or ``residual block``; `channels_dead` were zero everywhere.
    """

    layer: str
    kind: str
    outputs: int
    zeros: int
    channels: int
    channels_dead: int

    @property
    def zero_percent(self) -> float:
        """Share of outputs that are zero."""
        return 100 * self.zeros / self.outputs if self.outputs else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {**asdict(self), "zero_percent": self.zero_percent}


@dataclass(frozen=True)
class Diagnosis:
    """All layers in the order in which they ran, over batches `first_batch` to `last_batch`.

    Batches are counted from 1, both ends included.
    """

    first_batch: int
    last_batch: int
    images: int
    layers: tuple[Zeros, ...]

    headings = ("layer", "kind", "outputs", "zeros", "zeros (%)", "channels", "dead channels")

    @property
    def last_block(self) -> Zeros | None:
        """The last residual block's output, which is its residual activation's where it has one."""
        return next((one for one in reversed(self.layers) if one.kind == BLOCK), None)

    @property
    def title(self) -> str:
        """One line for above the table."""
        return (
            f"Zeros over test batches {self.first_batch} to {self.last_batch} ({self.images:,} "
            "images)"
        )

    def cells(self) -> list[tuple[str, ...]]:
        """Return the table's cells as text, a line a layer."""
        return [
            (
                one.layer,
                one.kind,
                f"{one.outputs:,}",
                f"{one.zeros:,}",
                f"{one.zero_percent:.2f}",
                f"{one.channels:,}",
                f"{one.channels_dead:,}",
            )
            for one in self.layers
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON; `last_block` is the figure that stands for the whole network."""
        return {
            "first_batch": self.first_batch,
            "last_batch": self.last_batch,
            "images": self.images,
            "last_block": self.last_block.to_dict() if self.last_block else None,
            "layers": [one.to_dict() for one in self.layers],
        }


class _Tally:
    """Counts of one layer, added up over batches."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.outputs = self.zeros = 0
        self.dead: Tensor | None = None  # (C,) bool

    def add(self, output: Tensor, channels_last: bool) -> None:
        zero = output.detach() == 0
        # Channels are the second axis of maps and vectors, the last one of token sequences.
        last = channels_last or zero.ndim == 3
        axis = zero.ndim - 1 if last else min(1, zero.ndim - 1)
        dead = zero.movedim(axis, 0).flatten(1).all(1)
        self.outputs += zero.numel()
        self.zeros += int(zero.sum())
        self.dead = dead if self.dead is None else self.dead & dead


class _Watch(TorchDispatchMode):
    """Sees every activation that is computed, and knows in which module."""

    def __init__(self) -> None:
        super().__init__()
        self.tallies: dict[tuple[str, str], _Tally] = {}
        self.inside: list[str] = []
        self.seen: dict[str, int] = {}  # how often a module has activated in this batch
        # What a linear layer gave last, whose channels are the last axis: (B, H, W, C) maps, too.
        self.of_linear: Tensor | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket.__name__.removesuffix("_") in OPERATORS:
            module = self.inside[-1] if self.inside else ""
            times = self.seen[module] = self.seen.get(module, 0) + 1
            name = module if times == 1 else f"{module} ({times})"
            given = self.of_linear
            last = given is not None and _is_same(args[0], given)
            self.count(name or f"({times})", ACTIVATION, out, last)
        return out

    def count(self, layer: str, kind: str, output: Tensor, channels_last: bool) -> None:
        self.tallies.setdefault((layer, kind), _Tally(kind)).add(output, channels_last)


def _is_same(one: Tensor, other: Tensor) -> bool:
    """Whether both are the same values in the same axes, and not a permuted view."""
    here = one.data_ptr() == other.data_ptr()
    return here and (one.shape, one.stride()) == (other.shape, other.stride())


def residual_blocks(model: nn.Module) -> list[str]:
    """Return the names of a network's blocks, in order.

    They are the modules of its own making that its outermost lists of modules hold; of a
    `Backbone`, those of its stages.
    """
    roots = [""]
    if isinstance(model, Backbone):
        stages = range(len(model.stage_modules))
        roots = [part for stage in stages for part in model.stage_parts(stage)]
    return [name for root in roots for name in _blocks_in(model.get_submodule(root), root)]


def _blocks_in(module: nn.Module, name: str) -> Iterator[str]:
    for child_name, child in module.named_children():
        path = f"{name}.{child_name}" if name else child_name
        own = not type(child).__module__.startswith("torch.nn.")
        listed = isinstance(module, nn.Sequential | nn.ModuleList)
        if own and listed and any(True for _ in child.children()):
            yield path
        else:
            yield from _blocks_in(child, path)


def count_zeros(
    model: nn.Module, batches: Iterable[Any], first: int = 30, last: int = 40
) -> Diagnosis:
    """Count zeros over batches `first` to `last`, counted from 1, both included.

    Args:
        model: a network; it is run as it is, in evaluation mode.
        batches: of images (B, C, H, W) on the model's device, alone or with labels beside them.
        first: the first batch that counts.
        last: the last one; where there are fewer, all that there are count.

    Raises:
        InputError: if there are fewer than `first` batches, or the numbers are no range.
    """
    if not 1 <= first <= last:
        raise InputError(f"batches {first} to {last} are no range; count from 1, first to last")
    watch, images, counted = _Watch(), 0, 0
    with evaluating(model), _hooks(model, watch), torch.inference_mode():
        for batch in islice(batches, min(first - 1, sys.maxsize), min(last, sys.maxsize)):
            pixels = batch if isinstance(batch, Tensor) else batch[0]
            watch.seen.clear()
            with watch:
                model(pixels)
            images, counted = images + len(pixels), counted + 1
    if not counted:
        raise InputError(f"there are fewer than {first} batches; count from an earlier one")
    layers = tuple(_zeros(name, tally) for (name, _), tally in watch.tallies.items())
    return Diagnosis(first, first + counted - 1, images, layers)


@contextmanager
def _hooks(model: nn.Module, watch: _Watch) -> Iterator[None]:
    """Keep the name of the module that runs, and count what each residual block gives."""
    blocks = set(residual_blocks(model))
    maps_last = getattr(model, "output_fmt", "") == "NHWC"  # as timm says of its Swin
    with ExitStack() as stack:
        for name, module in model.named_modules():

            def enter(_: nn.Module, __: Any, name: str = name) -> None:
                watch.inside.append(name)

            linear = isinstance(module, nn.Linear)

            def leave(
                _: nn.Module, __: Any, output: Any, name: str = name, linear: bool = linear
            ) -> None:
                watch.inside.pop()
                if linear:
                    watch.of_linear = output
                if name in blocks and isinstance(output, Tensor):
                    watch.count(name, BLOCK, output, maps_last)

            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave).remove)
        yield


def _zeros(layer: str, tally: _Tally) -> Zeros:
    assert tally.dead is not None  # a tally is made to add to it
    dead = int(tally.dead.sum())
    return Zeros(layer, tally.kind, tally.outputs, tally.zeros, len(tally.dead), dead)
