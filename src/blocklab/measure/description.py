"""A network part by part: what shape leaves it, what it costs, how many parameters it has."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
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


def describe(model: nn.Module, input_size: ImageSize = 224) -> Description:
    """Describe a network on one image of so many pixels a side, or of a height and a width.

    Costs nothing on the meta device. A parameter that several parts use counts in the first. A
    network that is no `Backbone` is told by its outermost modules, and within them those that its
    ``feature_info`` names as stages.

    Raises:
        InputError: for a size that the network cannot take.
    """
    if isinstance(model, Backbone):
        return _by_stages(model, input_size)
    return _by_modules(model, input_size)


def _by_stages(model: Backbone, input_size: ImageSize) -> Description:
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
            count_macs(part, x, counts.append, input_size)
        params = sum(p.numel() for key, p in used.found.items() if key not in seen)
        seen |= used.found.keys()
        x = part.output
        if name != "stem" or counts or params:  # a stem may be part of the first stage
            parts.append(Part(name, tuple(x.shape[1:]), sum(counts) // len(x), params))
    idle = Counter[str]()  # what an image does not meet, such as what training alone uses
    for name, parameter in model.named_parameters():
        if id(parameter) not in seen:
            idle[_part_of(model, name) or parts[0].name] += parameter.numel()
    told = (replace(part, params=part.params + idle[part.name]) for part in parts)
    return Description(plain_size(input_size), tuple(told))


def _part_of(model: Backbone, parameter: str) -> str:
    """Return the part in whose modules a parameter lies; none, of what precedes the stages."""
    for stage in range(len(model.stage_modules)):
        if any(parameter.startswith(f"{module}.") for module in model.stage_parts(stage)):
            return f"stage {stage + 1}"
    before, _, _ = parameter.partition(".")
    modules = [name for name, _ in model.named_children()]
    first = min(modules.index(part.split(".")[0]) for part in model.stage_parts(0))
    return "" if before in modules[:first] else "head"


_REST = "between them"


def _by_modules(model: nn.Module, input_size: ImageSize) -> Description:
    """Describe a network by its modules, as it calls them."""
    modules = dict(_outermost(model))
    macs = dict.fromkeys([*modules, _REST], 0)
    shapes: dict[str, tuple[int, ...]] = {}
    inside: list[str] = []
    images = blank_images(model, input_size)

    def count(macs_of_one: int) -> None:
        macs[inside[0] if inside else _REST] += macs_of_one

    with ExitStack() as stack:
        for name, module in modules.items():

            def enter(_: nn.Module, __: Any, name: str = name) -> None:
                inside.append(name)

            def leave(_: nn.Module, __: Any, output: Any, name: str = name) -> None:
                inside.pop()
                first = next((leaf for leaf in tree_leaves(output) if _is_tensor(leaf)), None)
                shapes[name] = tuple(first.shape[1:]) if first is not None else ()

            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave).remove)
        count_macs(model, images, count)
    parts, seen = [], set[int]()
    for name in [*shapes, _REST]:  # in the order in which they end
        own = modules[name].parameters() if name in modules else model.parameters()
        counted = {id(p): p.numel() for p in own if id(p) not in seen}
        seen |= counted.keys()
        part = Part(name, shapes.get(name, ()), macs[name] // len(images), sum(counted.values()))
        if part.macs or part.params:
            parts.append(part)
    return Description(plain_size(input_size), tuple(parts))


def _outermost(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield a network's children; those of a child in which it says that its stages are."""
    info = getattr(model, "feature_info", None) or []
    listed = info if isinstance(info, list) else getattr(info, "info", [])
    stages = [str(one.get("module", "")) for one in listed]
    for name, child in model.named_children():
        if any(stage.startswith(f"{name}.") for stage in stages):
            yield from ((f"{name}.{inner}", part) for inner, part in child.named_children())
        else:
            yield name, child


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _stage(model: Backbone, x: Tensor, stage: int, last: bool) -> Tensor:
    x = model.forward_stage(x, stage)
    return model.forward_norm(x) if last else x
