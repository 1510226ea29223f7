"""`auto`: what a row computes with, chosen by a short measurement before its first seed.

Layout, compile, and the algorithms of large depth-wise kernels.

What is measured is remembered per machine and model, below BLOCKLAB_CACHE. What is chosen is
written beside the runs, in `OUT/.setups`: once for a row, whose seeds then all have it, and the
precision once for the folder, so that rows are compared in the same arithmetic. A run notes its
own in run.json and keeps it when resumed. So no timing decides a result twice.

Steps are timed in the process's own CPU time where they run on the CPU: what else the machine does
then is hardly in it. Found with it, on two cores of a server with AVX-512: `torch.compile` takes
one to three minutes and then trains ResNet-18 and VAN-B0 no faster (0.97 and 1.0 times), so that
recipes leave it off.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from blocklab.errors import InputError
from blocklab.training.algorithms import measured_algorithms
from blocklab.training.device import (
    FORMATS,
    PRECISIONS,
    Setup,
    choose_precision,
    choose_setup,
    missing_compiler,
    probe_device,
    usual_layout,
)
from blocklab.training.loop import prepare
from blocklab.training.recipe import Recipe
from blocklab.training.stopwatch import CLEAR_GAIN, Seconds, alternate, fixed, remembered
from blocklab.training.workload import Workload

SETUPS = ".setups"  # in the folder of run folders
FEWEST_STEPS = 400  # of a run that is measured: the measurement's 8 are 2 % of them
HOPED_GAIN = 0.25  # of a step's time, by compiling: if that would not repay it, it is not tried
USUAL_COMPILE_SECONDS = 60.0


@dataclass(frozen=True)
class MeasuredSetup:
    """What a row trains with; `note` says how it was chosen."""

    precision: str
    memory_format: str
    compiled: bool
    note: str = ""
    algorithms: dict[str, str] = field(default_factory=dict)


def resumed_setup(
    recipe: Recipe, run: Mapping[str, Any], devices: int = 1, nodes: int = 1
) -> Setup:
    """Return the setup that a run began with, from its run.json.

    Raises:
        InputError: if it began on another number of devices.
    """
    began = run.get("devices", 1)
    if began != devices * nodes:
        raise InputError(
            f"this run began on {began} devices, not {devices * nodes}; go on with as many, or "
            "choose another --out"
        )
    return choose_setup(
        recipe,
        run["precision"],
        run["memory_format"],
        run.get("compile", False),
        devices=devices,
        nodes=nodes,
        note=run.get("setup_note", ""),
        algorithms=run.get("algorithms", {}),
    )


def row_setup(work: Workload, out: Path, row: str, devices: int = 1, nodes: int = 1) -> Setup:
    """Return the setup of a row's runs: what its first run chose, or else a new choice.

    `row` names the row in the folder `out` of run folders, whatever the seed.

    Raises:
        InputError: if the recipe asks for what the machine does not have.
        RunError: if the folder cannot be written.
    """
    recipe = work.recipe
    precision = own = choose_precision(recipe, probe_device())
    if recipe.precision == "auto":
        file = out / SETUPS / "precision.json"
        precision = fixed(file, _precision_in, lambda: own, lambda value: {"precision": value})
    choice = fixed(
        out / SETUPS / f"{row}.json", _choice_in, lambda: choose(work, precision), asdict
    )
    notes = [choice.note] if choice.note else []
    if precision != own:
        notes.insert(0, f"{precision} as the other runs in this folder, though {own} is fast here")
    return choose_setup(
        recipe,
        choice.precision,
        choice.memory_format,
        choice.compiled,
        devices=devices,
        nodes=nodes,
        note="; ".join(notes),
        algorithms=choice.algorithms,
    )


def choose(work: Workload, precision: str) -> MeasuredSetup:
    """Choose layout and compile for a workload; measures only what the recipe leaves open."""
    recipe, notes = work.recipe, []
    layout = usual = usual_layout(precision)
    if recipe.memory_format != "auto":
        layout = recipe.memory_format
    elif work.steps < FEWEST_STEPS:
        notes.append(f"{usual}: {work.steps} steps are too few to measure")
    else:
        seconds = measured_layouts(work, precision)
        other = next(name for name in FORMATS if name != usual)
        layout = other if seconds[other] < (1 - CLEAR_GAIN) * seconds[usual] else usual
        times = (f"{name} {1000 * seconds[name]:.3g} ms" for name in (usual, other))
        notes.append(f"{layout}, by the time of a step: {', '.join(times)}")
    compiled = recipe.compile == "on"
    if recipe.compile == "auto":
        compiled, why = _choose_compile(work, precision, layout)
        notes.append(f"compile: {'on' if compiled else 'off'} ({why})")
    algorithms: dict[str, str] = {}
    if work.steps >= FEWEST_STEPS and not compiled:
        algorithms = measured_algorithms(work, precision, layout)
    if algorithms:
        counts = Counter(algorithms.values())
        said = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
        notes.append(f"large kernels by measurement: {said}")
    return MeasuredSetup(precision, layout, compiled, "; ".join(notes), algorithms)


def _choose_compile(work: Workload, precision: str, layout: str) -> tuple[bool, str]:
    if missing := missing_compiler(probe_device()):
        return False, f"no {missing.removeprefix('a ').removeprefix('the ')}"
    if work.steps < FEWEST_STEPS:
        return False, f"{work.steps} steps are too few"
    plain = measured_layouts(work, precision)[layout]
    if work.steps * plain * HOPED_GAIN < USUAL_COMPILE_SECONDS:
        return False, f"a run of {work.steps * plain:.0f} s is too short to repay it"
    try:
        found = measured_compile(work, precision, layout)
    except Exception as error:  # a block that cannot be compiled is no reason not to train
        return False, f"it fails with {type(error).__name__}"
    step, first = found["step"], found["first"]
    worth = work.steps * (plain - step) > first and step < (1 - CLEAR_GAIN) * plain
    return worth, f"{1000 * step:.3g} ms a step against {1000 * plain:.3g}, after {first:.0f} s"


def measured_layouts(work: Workload, precision: str) -> Seconds:
    """Return the seconds of a training step in each layout, measured here once."""

    def measure() -> Seconds:
        steps = {name: _make_step(work, precision, name, False) for name in FORMATS}
        return alternate(steps, work.threads)

    return remembered(work.key(precision), tuple(FORMATS), measure)


def measured_compile(work: Workload, precision: str, layout: str) -> Seconds:
    """Return the seconds of a compiled ``step``, and of the ``first`` one; measured here once."""

    def measure() -> Seconds:
        began = time.perf_counter()  # the compiler's processes are not this one's CPU time
        step = _make_step(work, precision, layout, True)
        step()
        first = time.perf_counter() - began
        return alternate({"step": step}, work.threads) | {"first": first}

    key = work.key(precision) | {"memory_format": layout, "compile": True}
    return remembered(key, ("step", "first"), measure)


def _make_step(work: Workload, precision: str, layout: str, compiled: bool) -> Callable[[], None]:
    """Return a function that trains a network of its own for one step on made-up images."""
    setup = choose_setup(work.recipe, precision, layout, compiled)
    state = prepare(work.spec.build(work.num_classes), work.recipe, setup)
    network = torch.compile(state.model, dynamic=False, disable=not compiled)
    state.model.train()
    shape = (work.recipe.batch_size, 3, work.image_size, work.image_size)
    images = torch.randn(shape, device=setup.device)
    images = images.contiguous(memory_format=setup.memory_format)
    labels = torch.randint(work.num_classes, shape[:1], device=setup.device)

    def step() -> None:
        with setup.fabric.autocast():
            logits = network(images)
        F.cross_entropy(logits.float(), labels).backward()
        state.optimizer.step()
        state.optimizer.zero_grad()
        if setup.device.type == "cuda":
            torch.cuda.synchronize(setup.device)

    return step


def _precision_in(saved: Any) -> str | None:
    return saved["precision"] if saved["precision"] in PRECISIONS else None


def _choice_in(saved: Any) -> MeasuredSetup | None:
    choice = MeasuredSetup(**saved)
    known = choice.precision in PRECISIONS and choice.memory_format in FORMATS
    return choice if known and isinstance(choice.compiled, bool) else None
