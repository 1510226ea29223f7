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
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, distributed, nn

from blocklab.data.split import Split
from blocklab.errors import InputError, RunError, did_you_mean
from blocklab.measure.device import LAYOUTS, has_fast_bf16, probe_device
from blocklab.measure.launcher import started_elsewhere
from blocklab.measure.numerics import settings
from blocklab.training.recipe import COMPILE_MODES, USUAL_MODE, Recipe

logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces each AMP

# A recipe's names of precisions -> run.json's, which are Fabric's.
FABRIC_PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True)
class Setup:
    """What a run computes with; recorded in its folder.

    `compiled` is the mode of `torch.compile`, or empty. `graph` says whether whole steps are
    replayed as CUDA graphs, `deterministic` whether the device must give the same bits again.
    `note` says in a few words how `auto` chose, or is empty. `algorithms` are those of depth-wise
    convolutions that do not compute in their usual way, by name. `lean` says that gates and
    poolings save memory on a GPU, as they always do on a processor.
    """

    fabric: Fabric
    precision: str
    layout: str
    compiled: str = ""
    note: str = ""
    algorithms: Mapping[str, str] = field(default_factory=dict)
    graph: bool = False
    deterministic: bool = False
    lean: bool = False

    @property
    def device(self) -> torch.device:
        """The device itself."""
        return self.fabric.device

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """What scales the loss, to keep fp16's gradients in range; None in other precisions."""
        return getattr(self.fabric._precision, "scaler", None)

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout of images and weights, as PyTorch names it."""
        return LAYOUTS[self.layout]

    @property
    def rank(self) -> int:
        """The number of this process among those that train the run, from 0."""
        return self.fabric.global_rank

    @property
    def world_size(self) -> int:
        """How many processes train the run, one a device."""
        return self.fabric.world_size

    def describe(self) -> dict[str, Any]:
        """Return the fields of run.json, which `resumed_setup` rebuilds it from."""
        return {
            "precision": self.precision,
            "memory_format": self.layout,
            "compile": bool(self.compiled),
            **({"compile_mode": self.compiled} if self.compiled not in ("", USUAL_MODE) else {}),
            "cuda_graph": self.graph,
            **({"lean": True} if self.lean else {}),
            **settings(self.device, self.deterministic),
            "algorithms": dict(self.algorithms),
            "setup_note": self.note,
            "devices": self.world_size,
        }

    def share_of(self, split: Split) -> Split:
        """Return this process's part of a split to evaluate: the parts are of nearly one size."""
        if self.world_size == 1:
            return split
        bounds = [len(split) * part // self.world_size for part in (self.rank, self.rank + 1)]
        return split.part(np.arange(*bounds))

    def sum(self, values: Tensor) -> Tensor:
        """Add up over all processes."""
        if self.world_size > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def most(self, value: int) -> int:
        """Return the largest value of all processes."""
        if self.world_size == 1:
            return value
        values = torch.tensor(value, device=self.device)
        distributed.all_reduce(values, distributed.ReduceOp.MAX)
        return int(values)

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
            by_type: dict[torch.dtype, list[Tensor]] = {}
            for buffer in model.buffers():
                by_type.setdefault(buffer.dtype, []).append(buffer)
            for buffers in by_type.values():  # one message a type, not one a layer
                joined = torch.cat([buffer.flatten() for buffer in buffers])
                distributed.broadcast(joined, 0)
                parts = joined.split([buffer.numel() for buffer in buffers])
                for buffer, part in zip(buffers, parts, strict=True):
                    buffer.copy_(part.view_as(buffer))


def choose_precision(recipe: Recipe, device: torch.device) -> str:
    """Return Fabric's name of the recipe's precision.

    `auto` is bf16 where that is fast, fp16 on a CUDA device without it (T4, V100, RTX 20), where
    fp16 is, and fp32 elsewhere: on Apple's GPUs too, where bf16 is had by name, and was not timed.

    Raises:
        InputError: if the recipe asks for what the device has not.
    """
    fast, cuda = has_fast_bf16(device), device.type == "cuda"
    if recipe.precision == "bf16" and cuda and not fast:
        raise InputError("this GPU has no bf16; set precision=fp16 or fp32")
    if recipe.precision == "fp16" and not cuda:
        raise InputError("fp16 needs a CUDA device; set precision=bf16 or fp32")
    if recipe.precision != "auto":
        return FABRIC_PRECISIONS[recipe.precision]
    return FABRIC_PRECISIONS["bf16" if fast else "fp16" if cuda else "fp32"]


def usual_layout(precision: str) -> str:
    """Return the layout that is mostly the faster one, for where nothing is measured."""
    return "contiguous" if precision == FABRIC_PRECISIONS["fp32"] else "channels_last"


def choose_setup(recipe: Recipe) -> Setup:
    """Choose what one process computes with where nothing is measured.

    Raises:
        InputError: if the recipe asks for what the machine does not have.
    """
    precision, layout = choose_precision(recipe, probe_device()), recipe.memory_format
    layout = usual_layout(precision) if layout == "auto" else layout
    return make_setup(
        precision,
        layout,
        recipe.compile_mode,
        graph=recipe.cuda_graph == "on",
        deterministic=recipe.deterministic,
    )


def resumed_setup(
    run: Mapping[str, Any], devices: int = 1, nodes: int = 1, fabric: Fabric | None = None
) -> Setup:
    """Return the setup that a run began with, from its run.json or `Setup.describe`.

    `fabric` is that of a process that was started for it.

    Raises:
        InputError: if it began on another number of devices, or compiles and cannot here.
        RunError: if a name in it is unknown.
    """
    began = run.get("devices", 1)
    if fabric is None and began != devices * nodes:
        raise InputError(
            f"this run began on {began} devices, not {devices * nodes}; go on with as many, or "
            "choose another --out"
        )
    return make_setup(
        run["precision"],
        run["memory_format"],
        run.get("compile_mode", USUAL_MODE) if run.get("compile") else "",
        devices=devices,
        nodes=nodes,
        note=run.get("setup_note", ""),
        algorithms=run.get("algorithms", {}),
        graph=run.get("cuda_graph", False),
        deterministic=run.get("deterministic", False),
        lean=run.get("lean", False),
        parts=run.get("definition", {}).get("recipe", {}).get("accumulate", 1) > 1,
        fabric=fabric,
    )


def make_setup(
    precision: str,
    layout: str,
    compiled: str = "",
    *,
    devices: int = 1,
    nodes: int = 1,
    note: str = "",
    algorithms: Mapping[str, str] | None = None,
    graph: bool = False,
    deterministic: bool = False,
    lean: bool = False,
    parts: bool = False,
    fabric: Fabric | None = None,
) -> Setup:
    """Make a setup of what is chosen, all by the names in run.json.

    `devices` are processes a node. With more than one in all, `setup.fabric.launch` starts them.
    A `graph` is of one CUDA device; elsewhere steps run as they are. `parts` says that batches are
    taken in parts, whose gradients add up.

    Raises:
        InputError: if it compiles and the machine has no compiler.
        RunError: for a precision or layout that no version of blocklab has written.
    """
    for name, value, choices in (
        ("precision", precision, tuple(FABRIC_PRECISIONS.values())),
        ("memory_format", layout, tuple(LAYOUTS)),
        ("compile_mode", compiled or USUAL_MODE, COMPILE_MODES),
    ):
        if value not in choices:
            raise RunError(
                f"no {name} '{value}'{did_you_mean(value, choices) or ';'} {' or '.join(choices)}"
            )
    device = probe_device()
    if compiled and (missing := missing_compiler(device)):
        raise InputError(f"torch.compile needs {missing}; install it, or set compile=off")
    if fabric is None:
        strategy: str | DDPStrategy = "auto"
        if devices * nodes > 1:
            # Processes that torchrun or SLURM has started are ours to join; else we start them.
            # Running statistics need no broadcast a step: `Setup.agree` does so once an epoch.
            strategy = DDPStrategy(
                start_method="popen" if started_elsewhere() else "spawn",
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
                # So parameters that are never used are no fault. What uses them in some steps only
                # DDP refuses with it as without it. It cannot add up the parts of a batch: then
                # each step looks which were used.
                static_graph=not parts,
                find_unused_parameters=parts,
            )
        fabric = Fabric(
            accelerator=device.type,
            # By number where it is one GPU: of several that torchrun's processes see, their own.
            devices=[device.index] if device.type == "cuda" and devices * nodes == 1 else devices,
            num_nodes=nodes,
            strategy=strategy,
            precision=precision,  # type: ignore[arg-type]
        )
    graph = graph and device.type == "cuda" and fabric.world_size == 1
    algorithms = algorithms or {}
    return Setup(fabric, precision, layout, compiled, note, algorithms, graph, deterministic, lean)


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
