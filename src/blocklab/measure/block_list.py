"""What blocks there are: of which paper each is, what it costs in one place, and its options."""

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from blocklab.blocks.registry import (
    BlockInfo,
    BlockSpec,
    create_block,
    mixer_width,
    parse_block,
    registered_blocks,
)
from blocklab.errors import InputError
from blocklab.measure.cost import count_macs
from blocklab.models.meta_device import without_memory

# The reference place: the third stage of a ResNet at 224 pixels, before its last 1x1 convolution.
CHANNELS, SIDE = 256, 14
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
_YEAR = re.compile(r"(?<![.\d:])(?:19|20)\d\d(?!\d)")


@dataclass(frozen=True)
class BlockLine:
    """A block with its default options, as `blocklab models --blocks` lists it.

    Attributes:
        name, kind: as `register_block` has them.
        title: the first sentence of its documentation.
        year, arxiv: of its paper, where its file names one.
        options: by name, with their defaults.
        macs, params: in the reference place, 256 channels of a 14x14 map at stride 1; a mixer with
            the convolutions that it brings, at the width that it asks for. None where it cannot
            stand there, or not be counted without values.
    """

    name: str
    kind: str
    title: str
    year: int | None
    arxiv: str | None
    options: dict[str, Any]
    macs: int | None
    params: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)


def block_lines() -> Iterator[BlockLine]:
    """List every registered block, by kind and name, those of plugins too."""
    for info in registered_blocks():
        year, arxiv = paper_of(info.cls)
        macs, params = _cost(info)
        options = info.options().model_dump(mode="json")
        yield BlockLine(info.name, info.kind, _title(info.cls), year, arxiv, options, macs, params)


def in_yaml(value: object) -> str:
    """Show a value, such as an option's, as a study's file has it."""
    words = {None: "null", True: "true", False: "false"}
    if isinstance(value, list):
        return f"[{', '.join(map(in_yaml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {in_yaml(item)}" for key, item in value.items()) + "}"
    return words[value] if value is None or isinstance(value, bool) else str(value)


def paper_of(cls: type) -> tuple[int | None, str | None]:
    """Return the year and the arXiv number of a block's paper, as its class or its file names it.

    A year that is not named is that of the number.
    """
    of_class = inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0]  # below it may name others
    for text in (of_class, getattr(sys.modules.get(cls.__module__), "__doc__", None) or ""):
        arxiv, year = _ARXIV.search(text), _YEAR.search(text)
        if arxiv or year:
            number = arxiv[1] if arxiv else None
            return int(year[0]) if year else 2000 + int(arxiv[1][:2]), number  # type: ignore[index]
    return None, None


def _title(cls: type) -> str:
    """Return the first sentence of a class's documentation, or of its file's."""
    text = inspect.cleandoc(cls.__doc__ or "") or cls.__name__
    line = " ".join(text.split("\n\n")[0].split())
    return re.split(r"[.:](?:\s|$)", line)[0]


def block_in_place(
    info: BlockInfo, spec: BlockSpec, channels: int = CHANNELS
) -> tuple[nn.Module, int]:
    """Build a block without memory in a place of so many channels, at stride 1.

    Returns:
        the block, and the channels of its input: a mixer's are as many as it asks for.

    Raises:
        InputError: where the block cannot stand there.
    """
    spec = parse_block(info.kind, spec)
    told: dict[str, Any] = {"channels": channels, "activation": "relu", "drop_path": 0.0}
    if info.kind == "mixer":
        channels = mixer_width(spec, channels)
        told |= {"in_channels": channels, "out_channels": channels}
        told |= {"stride": 1, "first_in_stage": False}
    with without_memory():
        return create_block(info.kind, spec, **told), channels


def _cost(info: BlockInfo) -> tuple[int, int] | tuple[None, None]:
    try:
        block, channels = block_in_place(info, {"type": info.versioned_name})
        counts: list[int] = []
        images = torch.empty(1, channels, SIDE, SIDE, device="meta")
        count_macs(block, images, counts.append)
    except (InputError, RuntimeError):  # a block of a user's may ask a map for its values
        return None, None
    return sum(counts), sum(parameter.numel() for parameter in block.parameters())
