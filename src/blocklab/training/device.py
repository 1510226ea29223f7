"""Where and how fast: device, precision and layout. All that is Fabric's stays behind this module.

bf16 is taken where the processor has instructions for it (elsewhere it is emulated and slower);
channels_last goes with it, as convolutions in bf16 are fastest in that layout.
"""

import logging
import os
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric

from blocklab.errors import InputError
from blocklab.training.recipe import Recipe

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces each AMP

_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True)
class Setup:
    """What a run computes with; recorded in its folder."""

    fabric: Fabric
    precision: str
    layout: str

    @property
    def device(self) -> torch.device:
        """The device itself."""
        return self.fabric.device

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout of images and weights, as PyTorch names it."""
        return _FORMATS[self.layout]


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, check, lambda: False)() for check in checks)
    return False


def choose_setup(recipe: Recipe, precision: str | None = None, layout: str | None = None) -> Setup:
    """Choose device, precision and layout; a resumed run hands in what it began with.

    Raises:
        InputError: if the recipe asks for bf16 on a CUDA device that has none.
    """
    probe = Fabric(accelerator="auto", devices=1)
    fast = has_fast_bf16(probe.device)
    if precision is None:
        if recipe.precision == "bf16" and probe.device.type == "cuda" and not fast:
            raise InputError("this GPU has no bf16; set precision=fp32")
        wanted = recipe.precision == "bf16" or (recipe.precision == "auto" and fast)
        precision = "bf16-mixed" if wanted else "32-true"
    if layout is None:
        layout = recipe.memory_format
        if layout == "auto":
            layout = "channels_last" if precision == "bf16-mixed" else "contiguous"
    fabric = Fabric(accelerator="auto", devices=1, precision=precision)  # type: ignore[arg-type]
    return Setup(fabric, precision, layout)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
