"""Which model of the catalogue a checkpoint is of: the one that shares most names and shapes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from typing import cast

import torch
from torch import Tensor

from blocklab.backbones.config import BackboneConfig
from blocklab.backbones.registry import family_of
from blocklab.models.names import list_models
from blocklab.models.spec import ModelSpec, model_spec

COUNT = "num_batches_tracked"
_BLOCKS = {  # family -> the stage and the block in a tensor's name; blocks for each that is counted
    "resnet": (re.compile(r"layer(\d+)\.(\d+)\."), 1),
    "van": (re.compile(r"block(\d+)\.(\d+)\."), 1),
    "replknet": (re.compile(r"stages\.(\d+)\.blocks\.(\d+)\."), 2),
    "metaformer": (re.compile(r"stages\.(\d+)\.blocks\.(\d+)\."), 1),
}
_MERGED = re.compile(r"\.(lkb_origin|small_conv|lkb_reparam)\..*")


@dataclass(frozen=True)
class Fit:
    """The model of the catalogue that a checkpoint fits best, and by how many tensors."""

    name: str
    spec: ModelSpec
    shared: int
    of_checkpoint: int
    of_model: int
    difference: str | None  # the first name that only one of them has, or that differs in shape

    def __str__(self) -> str:
        if self.difference is None:
            return f"{self.name} best (all {self.shared} tensors but the head's)"
        return (
            f"{self.name} best ({self.shared} of its {self.of_checkpoint} tensors, "
            f"{self.of_model} in the model; the first that differs: {self.difference})"
        )


def core_shape(shape: torch.Size) -> tuple[int, ...]:
    """Return a shape without its last ones: a linear layer's and its 1x1 convolution's agree.

    A vector is one however it lies: (1, 1, 1, C), too.
    """
    sizes = list(shape)
    if sum(size > 1 for size in sizes) == 1:
        return (max(sizes),)
    while sizes and sizes[-1] == 1:
        sizes.pop()
    return tuple(sizes)


def best_fit(state: Mapping[str, Tensor], family: str) -> Fit | None:
    """Return the named model of a family whose tensors, by our names, are most like these.

    The head does not count: it follows the number of classes. Of models that fit alike (those that
    differ in an activation, say) the catalogue's first is taken. Only models nearest in depth are
    looked at, so that a refusal is a matter of a second. None: nothing is alike.
    """
    shapes = _comparable({name: value.shape for name, value in state.items()}, family)
    deep = _depths(state, family)
    distances = {
        name: _distance(cast(BackboneConfig, model_spec(name).config).blocks_per_stage, deep)
        for name in list_models()
        if model_spec(name).family == family
    }
    nearest = min(distances.values())
    best, best_score = None, 0.0
    for name in (name for name, distance in distances.items() if distance == nearest):
        candidate = _shapes_of(name)
        shared = len(shapes.items() & candidate.items())
        score = shared / max(1, len(shapes.keys() | candidate.keys()))
        if score > best_score:
            best, best_score = name, score
        if score == 1:
            break
    if best is None:
        return None
    candidate = _shapes_of(best)
    differing = [name for name in shapes if candidate.get(name) != shapes[name]]
    differing += [name for name in candidate if name not in shapes]
    return Fit(
        best,
        model_spec(best),
        len(shapes.items() & candidate.items()),
        len(shapes),
        len(candidate),
        differing[0] if differing else None,
    )


@cache
def _shapes_of(name: str) -> dict[str, tuple[int, ...]]:
    spec = model_spec(name)
    state = spec.build_meta().state_dict()
    return _comparable({name: value.shape for name, value in state.items()}, spec.family)


def _comparable(shapes: Mapping[str, torch.Size], family: str) -> dict[str, tuple[int, ...]]:
    """Return what identifies a design: no head, no counts, a merged kernel as if it were not."""
    head = f"{family_of(family)[0].classifier_name}."
    kept: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        if name.startswith(head) or name.endswith(COUNT):
            continue
        if _MERGED.search(name):
            if len(shape) == 4 and ".small_conv." not in name:
                kept[_MERGED.sub(".kernel", name)] = core_shape(shape)
            continue
        kept[name] = core_shape(shape)
    return kept


def _depths(names: Mapping[str, object], family: str) -> tuple[int, ...]:
    """Count the blocks of each stage by their names."""
    pattern, parts = _BLOCKS[family]
    last: dict[int, int] = {}
    for name in names:
        if found := pattern.match(name):
            stage, block = int(found[1]), int(found[2])
            last[stage] = max(last.get(stage, 0), block)
    return tuple((last[stage] + 1) // parts for stage in sorted(last))


def _distance(depths: tuple[int, ...], others: tuple[int, ...]) -> int:
    """Count the blocks by which depths differ; a stage that only one has counts with its blocks."""
    return sum(abs(one - other) for one, other in zip_longest(depths, others, fillvalue=0))


__all__ = ["COUNT", "Fit", "best_fit", "core_shape"]
