"""A backbone as data: what the configurations of all of them share, and slots limited to stages."""

from typing import Annotated, Any, ClassVar, Self, cast

from pydantic import ConfigDict, Field, model_validator
from torch import nn

from blocklab.blocks.registry import (
    LARGEST_SIZE,
    LONGEST_LIST,
    BlockSpec,
    create_block,
    parse_block,
)
from blocklab.errors import InputError
from blocklab.yaml_files import PlainModel

Rate = Annotated[float, Field(ge=0, lt=1)]
MOST_BLOCKS = 1_000  # of all stages; ResNet-1202 has 600
MOST_PARTS = 10_000  # blocks, times what their slots hold


class Sizes(PlainModel):
    """Sizes of a network, which have bounds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    largest: ClassVar[int] = LARGEST_SIZE
    longest: ClassVar[int] = LONGEST_LIST


class BackboneConfig(Sizes):
    """A backbone as data: its sizes and what fills its slots; all defaults filled in."""

    drop_rate: Rate = Field(0.0, description="dropout before the classifier")
    drop_path_rate: Rate = Field(0.0, description="stochastic depth of the last block")

    # What a subclass says of itself.
    @property
    def blocks_per_stage(self) -> tuple[int, ...]:
        """Return how many blocks each stage has."""
        raise NotImplementedError

    @property
    def first_conv(self) -> str:
        """Return the name of the convolution that takes the image."""
        raise NotImplementedError

    @property
    def stem_stride(self) -> int:
        """Return by how much the stem shrinks the image."""
        raise NotImplementedError

    @property
    def reduction(self) -> int:
        """Return by how much the image has shrunk after the last stage."""
        return self.stem_stride * 2 ** (len(self.blocks_per_stage) - 1)

    @property
    def native_size(self) -> int:
        """Return the side of the images that the stem is made for."""
        return 32 if self.stem_stride == 1 else 224

    @model_validator(mode="after")
    def _few_enough(self) -> Self:
        blocks = sum(self.blocks_per_stage)
        if blocks > MOST_BLOCKS:
            raise ValueError(f"depths are {MOST_BLOCKS:,} blocks in all at most, not {blocks:,}")
        held = sum(_parts(value) for _, value in self)
        if blocks * held > MOST_PARTS:
            raise ValueError(
                f"{blocks:,} blocks whose slots hold {held} parts are too many; blocks times parts "
                f"are {MOST_PARTS:,} at most"
            )
        return self


def _parts(value: Any) -> int:
    """Count the blocks in a slot, those that they hold included."""
    if isinstance(value, dict):
        return ("type" in value) + sum(map(_parts, value.values()))
    return sum(map(_parts, value)) if isinstance(value, list | tuple) else 0


def parse_staged(kinds: str | tuple[str, ...], value: object, stages: int) -> BlockSpec:
    """Parse a block that may be limited to stages: ``{type: se, stages: [2, 3, 4]}``.

    Stages count from 1. A block in all stages is written without them.
    """
    chosen = None
    if isinstance(value, dict) and "stages" in value:
        value = dict(value)
        chosen = value.pop("stages")
        if isinstance(chosen, int):
            chosen = [chosen]
        valid = isinstance(chosen, list | tuple) and all(
            type(stage) is int and 1 <= stage <= stages for stage in chosen
        )
        if not valid or not chosen:
            raise InputError(f"stages are numbers from 1 to {stages}, not {chosen!r}")
    spec = parse_block(kinds, value)
    if chosen is not None and set(cast(list[int], chosen)) != set(range(1, stages + 1)):
        spec["stages"] = sorted(set(cast(list[int], chosen)))
    return spec


def parse_staged_chain(value: object, stages: int) -> list[BlockSpec]:
    """Parse attentions, none, one or a list, each of which may be limited to stages."""
    if value is None or value == "none":
        return []
    items = value if isinstance(value, list | tuple) else [value]
    return [parse_staged("attention", item, stages) for item in items]


def in_stage(spec: BlockSpec, stage: int) -> bool:
    """Whether a parsed block sits in `stage` (from 1)."""
    return "stages" not in spec or stage in spec["stages"]


def without_stages(spec: BlockSpec) -> BlockSpec:
    """Return the block itself, as the registry knows it."""
    return {key: value for key, value in spec.items() if key != "stages"}


def create_staged_chain(specs: list[BlockSpec], stage: int, channels: int) -> nn.Module | None:
    """Build those attentions of a chain that sit in `stage`, or None where none does."""
    blocks = [
        create_block("attention", without_stages(spec), channels=channels)
        for spec in specs
        if in_stage(spec, stage)
    ]
    if not blocks:
        return None
    return blocks[0] if len(blocks) == 1 else nn.Sequential(*blocks)


def drop_path_rates(rate: float, blocks: int) -> list[float]:
    """Stochastic depth that grows linearly from 0 to `rate` over the blocks."""
    return [rate * block / max(1, blocks - 1) for block in range(blocks)]
