"""A block on trial: built in the places that its kind can have in a network, and run there.

Parameters and running statistics are random rather than those that it starts with: zeros at the
start would hide what is wrong behind them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from blocklab.blocks.protocol import init_itself
from blocklab.blocks.registry import BlockInfo, BlockSpec, create_block, mixer_width
from blocklab.errors import InputError, error_line

PLANES = 64  # channels that most reductions leave something of
WIDTHS = (3, 16, 64, 100)  # channels that it is built and run with: few, usual, no power of 2
LARGE_SIZE = (32, 32)  # of a map, at one of the widths
WIDE_PLANES = 1024  # where a minimum of channels no longer hides a reduction
SIZES = ((7, 5), (8, 12), (2, 2), (1, 6), (1, 1))
BATCH = 4

Place = dict[str, Any]  # what a slot tells a block
_OTHERWISE: Place = {"activation": "gelu", "drop_path": 0.1}


class CheckFailed(Exception):
    """A check found a fault; the message says where."""


class NotApplicable(Exception):
    """A check does not concern this block, or was not asked for."""


@dataclass(frozen=True)
class Subject:
    """The block that is checked."""

    info: BlockInfo
    spec: BlockSpec
    compile_backend: str | None = None

    def places(self, planes: int = PLANES, spec: BlockSpec | None = None) -> list[Place]:
        """Return what slots of its kind can tell it."""
        if self.info.kind != "mixer":
            return [{"channels": planes, "activation": "relu", "drop_path": 0.0}]
        width = mixer_width(spec or self.spec, planes)
        wide = {"in_channels": width, "out_channels": width, "activation": "relu"}
        steps = [(1, False), (1, True), (2, True)]
        places = [{**wide, "stride": s, "first_in_stage": first} for s, first in steps]
        narrow = {**places[2], "in_channels": planes // 2}  # as in a basic block, where maps shrink
        return [*places, narrow]

    @cached_property
    def refused(self) -> dict[int, str]:
        """The widths that it refuses in words of its own, an `InputError`, with what it says."""
        found: dict[int, str] = {}
        for planes in WIDTHS:
            try:
                for place in self.places(planes):
                    self.build(place)
            except InputError as error:
                if error.__cause__ is None and planes != PLANES:
                    found[planes] = str(error)
            except Exception:  # which is no refusal: `builds` says what it is
                continue
        return found

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths that it is tried at."""
        return tuple(planes for planes in WIDTHS if planes not in self.refused)

    def all_places(self) -> list[Place]:
        """Return `places` of every width it takes, and what else slots may tell beside those."""
        places = [place for planes in self.widths for place in self.places(planes)]
        return [*places, *({**place, **_OTHERWISE} for place in self.places())]

    def build(
        self,
        place: Place,
        *,
        spec: BlockSpec | None = None,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        random: bool = True,
    ) -> nn.Module:
        """Build the block from a seed, initialised as in a backbone or, by default, at random."""
        set_seed(seed)
        block = create_block(self.info.kind, spec or self.spec, **place)
        for part in block.modules():
            init_itself(part)
        block.to(dtype)
        return randomised(block) if random else block

    def images(
        self,
        place: Place,
        size: tuple[int, int] = SIZES[0],
        *,
        batch: int = BATCH,
        dtype: torch.dtype = torch.float32,
        seed: int = 100,
    ) -> Tensor:
        """Draw an input from a seed."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, channels_of(place), *size, generator=generator, dtype=dtype)


def channels_of(place: Place) -> int:
    """Return how many channels enter."""
    return place["channels"] if "channels" in place else place["in_channels"]


def randomised(block: nn.Module) -> nn.Module:
    """Give a block random parameters and running statistics, in place; return it."""
    with torch.no_grad():
        for parameter in block.parameters():
            size = parameter.square().mean().sqrt()
            noise = torch.randn_like(parameter)
            parameter += 0.5 * noise * (size if size > 0 else 0.2)
        for name, buffer in block.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.3)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return block


def told(place: Place) -> str:
    """Say which of a block's places this is."""
    said = []
    if "stride" in place:
        said += [f"stride {place['stride']}", *["first of its stage"] * place["first_in_stage"]]
        said.append(f"{place['in_channels']} to {place['out_channels']} channels")
    elif place["channels"] != PLANES:
        said.append(f"{place['channels']} channels")
    if _OTHERWISE.items() <= place.items():
        said += [f"{name} {value}" for name, value in _OTHERWISE.items()]
    return f" ({', '.join(said)})" if said else ""


def listed(widths: tuple[int, ...]) -> str:
    """Return numbers as a sentence has them."""
    *most, last = map(str, widths)
    return f"{', '.join(most)} and {last}" if most else last


def set_seed(seed: int) -> None:
    """Seed what the CPU draws, where blocks are tried.

    `torch.manual_seed` also notes it for devices that nobody uses, with a traceback each: more than
    a tenth of the time that a block's checks took.
    """
    torch.default_generator.manual_seed(seed)


@contextmanager
def where(what: str) -> Iterator[None]:
    """Say of an error where it happened."""
    try:
        yield
    except NotApplicable:
        raise
    except CheckFailed as failure:
        raise CheckFailed(f"{what}, {failure}") from failure
    except Exception as error:
        raise CheckFailed(f"{what}: {error_line(error)}") from error


def forward(block: nn.Module, x: Tensor, training: bool = False) -> Tensor:
    """Run a block on a copy of x; what it draws at random is the same each time."""
    set_seed(1)
    return block.train(training)(x.clone())


def difference(got: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference as a part of the norm of what was expected."""
    if got.shape != expected.shape:
        raise CheckFailed(f"shape {tuple(got.shape)} instead of {tuple(expected.shape)}")
    got, expected = got.detach().double(), expected.detach().double()
    if not got.isfinite().all():
        return float("inf")
    scale = float(expected.norm())
    return float((got - expected).norm()) / (scale if scale > 0 else 1.0)


def gradients_of(
    block: nn.Module, x: Tensor, training: bool, seed: int = 2
) -> tuple[Tensor, dict[str, Tensor | None]]:
    """Return the output, and the gradient of a random weighting of it by name."""
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
    set_seed(1)
    out = block.train(training)(leaf.clone())
    generator = torch.Generator().manual_seed(seed)
    weighting = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype)
    wanted = {"the input": leaf}
    wanted |= {name: p for name, p in block.named_parameters() if p.requires_grad}
    if not out.requires_grad:
        return out, dict.fromkeys(wanted)
    found = torch.autograd.grad(out, list(wanted.values()), weighting, allow_unused=True)
    return out, dict(zip(wanted, found, strict=True))
