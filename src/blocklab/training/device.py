"""Where and how fast: device, precision, layout, and the other processes of the same run.

All that is Fabric's stays behind this module. bf16 is taken where the processor has instructions
for it. Asked for by name it also runs on a CPU without them, emulated and slower, so that a run
can be repeated there; a GPU without them is refused. channels_last goes with bf16 where nothing
was measured, as convolutions in bf16 are fastest in that layout.
"""

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from lightning_fabric import Fabric
from torch import Tensor, distributed, nn

from blocklab.data.split import Split
from blocklab.errors import InputError, RunError, did_you_mean
from blocklab.training.recipe import Recipe

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces each AMP

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
PRECISIONS = ("32-true", "bf16-mixed")


@dataclass(frozen=True)
class Setup:
    """What a run computes with; recorded in its folder.

    `note` says in a few words how `auto` chose, or is empty. `algorithms` are those of depth-wise
    convolutions that do not compute in their usual way, by name.
    """

    fabric: Fabric
    precision: str
    layout: str
    compiled: bool = False
    note: str = ""
    algorithms: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def described(cls, fabric: Fabric, run: Mapping[str, Any]) -> Self:
        """Rebuild a setup from `describe`, with what there is to compute on."""
        return cls(
            fabric,
            run["precision"],
            run["memory_format"],
            run.get("compile", False),
            run.get("setup_note", ""),
            run.get("algorithms", {}),
        )

    @property
    def device(self) -> torch.device:
        """The device itself."""
        return self.fabric.device

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout of images and weights, as PyTorch names it."""
        return FORMATS[self.layout]

    @property
    def rank(self) -> int:
        """The number of this process among those that train the run, from 0."""
        return self.fabric.global_rank

    @property
    def world_size(self) -> int:
        """How many processes train the run, one a device."""
        return self.fabric.world_size

    def describe(self) -> dict[str, Any]:
        """Return what run.json says of it, which is also what a resumed run goes on with."""
        return {
            "precision": self.precision,
            "memory_format": self.layout,
            "compile": self.compiled,
            "algorithms": dict(self.algorithms),
            "setup_note": self.note,
            "devices": self.world_size,
        }

    def share_of(self, split: Split) -> Split:
        """Return this process's part of a split to evaluate: the parts are of nearly one size."""
        if self.world_size == 1:
            return split
        bounds = [len(split) * part // self.world_size for part in (self.rank, self.rank + 1)]
        return Split(split.images, split.labels, split.indices[slice(*bounds)])

    def sum(self, values: Tensor) -> Tensor:
        """Add up over all processes."""
        if self.world_size > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def gather(self, rows: Tensor) -> Tensor:
        """Join the rows of all processes, which may have different numbers of them, on the CPU."""
        rows = rows.cpu()
        if self.world_size == 1:
            return rows
        parts: list[Any] = [None] * self.world_size
        distributed.all_gather_object(parts, rows)
        return torch.cat(parts)

    def agree(self, model: nn.Module) -> None:
        """Give every process the first one's running statistics: each has those of its images."""
        if self.world_size > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, 0)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, check, lambda: False)() for check in checks)
    return False


def choose_precision(recipe: Recipe, device: torch.device) -> str:
    """Return Fabric's name of the recipe's precision; `auto` is bf16 where that is fast.

    Raises:
        InputError: if the recipe asks for bf16 on a CUDA device that has none.
    """
    fast = has_fast_bf16(device)
    if recipe.precision == "bf16" and device.type == "cuda" and not fast:
        raise InputError("this GPU has no bf16; set precision=fp32")
    wanted = recipe.precision == "bf16" or (recipe.precision == "auto" and fast)
    return "bf16-mixed" if wanted else "32-true"


def usual_layout(precision: str) -> str:
    """Return the layout that is mostly the faster one, for where nothing is measured."""
    return "channels_last" if precision == "bf16-mixed" else "contiguous"


def choose_setup(
    recipe: Recipe,
    precision: str | None = None,
    layout: str | None = None,
    compiled: bool | None = None,
    *,
    devices: int = 1,
    nodes: int = 1,
    note: str = "",
    algorithms: Mapping[str, str] | None = None,
) -> Setup:
    """Choose device, precision and layout; a resumed run hands in what it began with.

    `devices` are processes a node. With more than one in all, `setup.fabric.launch` starts them.

    Raises:
        InputError: if the recipe asks for what the machine does not have.
        RunError: if what a run began with is nothing known.
    """
    precision = precision or choose_precision(recipe, probe_device())
    if layout is None:
        layout = recipe.memory_format
        layout = usual_layout(precision) if layout == "auto" else layout
    for name, value, known in (
        ("precision", precision, PRECISIONS),
        ("memory_format", layout, tuple(FORMATS)),
    ):
        if value not in known:
            raise RunError(
                f"no {name} '{value}'{did_you_mean(value, known) or ';'} {' or '.join(known)}"
            )
    if compiled is None:
        compiled = recipe.compile == "on"
    if compiled and (missing := missing_compiler(probe_device())):
        raise InputError(f"compile=on needs {missing}; install it, or set compile=off")
    strategy = "auto"
    if devices * nodes > 1:
        # Processes that torchrun or SLURM has started are ours to join; else we start them.
        strategy = "ddp" if started_elsewhere() else "ddp_spawn"
    fabric = Fabric(
        accelerator="auto",
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        precision=precision,  # type: ignore[arg-type]
    )
    return Setup(fabric, precision, layout, compiled, note, algorithms or {})


def probe_device() -> torch.device:
    """Return the device that a run of one process would get."""
    return Fabric(accelerator="auto", devices=1).device


def started_elsewhere() -> bool:
    """Whether torchrun or a SLURM job step of several tasks has started this process."""
    torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    slurm = "SLURM_JOB_ID" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1
    return torchrun or slurm


def missing_compiler(device: torch.device) -> str | None:
    """Return what `torch.compile` lacks on the device, or None if it lacks nothing."""
    named = os.environ.get("CXX")
    compilers = [named] if named else ["g++", "clang++", "gcc", "clang", "cl"]
    if not any(shutil.which(compiler) for compiler in compilers):
        return "a C++ compiler"
    if device.type == "cuda":
        try:
            import triton  # noqa: F401  # pyright: ignore[reportMissingImports]
        except ImportError:
            return "the package triton"
    return None


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
