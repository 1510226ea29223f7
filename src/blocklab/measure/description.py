"""A network part by part: what shape leaves it, what it costs, how many parameters it has."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from blocklab.backbones.base import Backbone
from blocklab.measure.cost import count_macs
from blocklab.models.probe import ImageSize, blank_images, evaluating, plain_size


@dataclass(frozen=True)
class Part:
    """Stem, stage or head: its output's shape (C, H, W) or (classes,), MACs and parameters."""

    name: str
    shape: tuple[int, ...]
    macs: int
    params: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {**asdict(self), "shape": list(self.shape)}


@dataclass(frozen=True)
class Description:
    """All parts, in order, at one input size."""

    input_size: ImageSize
    parts: tuple[Part, ...]

    @property
    def macs(self) -> int:
        """MACs of one image."""
        return sum(part.macs for part in self.parts)

    @property
    def params(self) -> int:
        """All parameters."""
        return sum(part.params for part in self.parts)


class _Function(nn.Module):
    """A part as a module, which is what costs are counted of."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.output = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        self.output = self.function(x)
        return self.output


class _ParametersUsed(TorchFunctionMode):
    """Collects the parameters that reach an operation, whichever module holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[int, nn.Parameter] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        for value in tree_leaves((args, kwargs or {})):
            if isinstance(value, nn.Parameter):
                self.found[id(value)] = value
        return func(*args, **(kwargs or {}))


def describe(model: Backbone, input_size: ImageSize = 224) -> Description:
    """Describe a network on one image of so many pixels a side, or of a height and a width.

    Costs nothing on the meta device. A parameter that several parts use counts in the first.

    Raises:
        InputError: for a size that the network cannot take.
    """
    x = blank_images(model, input_size)
    functions: list[tuple[str, Callable[[Tensor], Tensor]]] = [("stem", model.forward_stem)]
    last = len(model.stage_modules) - 1
    for stage in range(last + 1):
        functions.append((f"stage {stage + 1}", lambda x, s=stage: _stage(model, x, s, s == last)))
    functions.append(("head", model.forward_head))
    parts, seen = [], set[int]()
    for name, function in functions:
        part, counts, used = _Function(function), list[int](), _ParametersUsed()
        with evaluating(model), used:
            count_macs(part, x, counts.append)
        params = sum(p.numel() for key, p in used.found.items() if key not in seen)
        seen |= used.found.keys()
        x = part.output
        if name != "stem" or counts:  # a stem may be part of the first stage
            parts.append(Part(name, tuple(x.shape[1:]), sum(counts) // len(x), params))
    return Description(plain_size(input_size), tuple(parts))


def _stage(model: Backbone, x: Tensor, stage: int, last: bool) -> Tensor:
    x = model.forward_stage(x, stage)
    return model.forward_norm(x) if last else x
