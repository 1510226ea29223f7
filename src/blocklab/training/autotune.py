"""`auto`: what a row computes with, chosen by a short measurement before its first seed.

Layout, compile, CUDA graphs, and the algorithms of large depth-wise kernels.

What is measured is remembered per machine and model, below BLOCKLAB_CACHE. What is chosen is
written beside the runs, in `OUT/.setups`: once for a row, whose seeds then all have it, and the
precision once for the folder, so that rows are compared in the same arithmetic. A run notes its
own in run.json and keeps it when resumed. So no timing decides a result twice.

Steps are timed in the process's own CPU time where they run on the CPU: what else the machine does
then is hardly in it. Found with it, on two cores of a server with AVX-512: `torch.compile` takes
one to three minutes and then trains ResNet-18 and VAN-B0 no faster (0.97 and 1.0 times), so that
recipes leave it off.
"""

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from blocklab.errors import error_line
from blocklab.measure.device import LAYOUTS, probe_device
from blocklab.measure.memory import release_memory
from blocklab.measure.timing import (
    CLEAR_GAIN,
    Step,
    shortest_times,
    time_in_turn,
    training_step,
)
from blocklab.models.probe import noise_images
from blocklab.training.algorithms import measured_algorithms
from blocklab.training.device import (
    FABRIC_PRECISIONS,
    Setup,
    choose_precision,
    make_setup,
    missing_compiler,
    usual_layout,
)
from blocklab.training.graph import WARM_UP_STEPS, GraphedStep
from blocklab.training.loop import prepare
from blocklab.training.remembered import Seconds, read_or_make, remembered
from blocklab.training.step import TrainingStep
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
    graph: bool = False


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
        precision = read_or_make(
            file, _precision_in, lambda: own, lambda value: {"precision": value}
        )
    choice = read_or_make(
        out / SETUPS / f"{row}.json", _choice_in, lambda: choose(work, precision), asdict
    )
    release_memory()  # also of what failed, whose traceback held it
    notes = [choice.note] if choice.note else []
    if precision != own:
        notes.insert(0, f"{precision} as the other runs in this folder, though {own} is fast here")
    return make_setup(
        choice.precision,
        choice.memory_format,
        choice.compiled,
        devices=devices,
        nodes=nodes,
        note="; ".join(notes),
        algorithms=choice.algorithms,
        graph=choice.graph and devices * nodes == 1,
        deterministic=recipe.deterministic,
        parts=recipe.accumulate > 1,
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
        other = next(name for name in LAYOUTS if name != usual)
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
        each = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
        notes.append(f"large kernels by measurement: {each}")
    graph, why = _choose_graph(work, precision, layout, compiled)
    if why:
        notes.append(f"CUDA graph: {'on' if graph else 'off'} ({why})")
    return MeasuredSetup(precision, layout, compiled, "; ".join(notes), algorithms, graph)


def _choose_graph(work: Workload, precision: str, layout: str, compiled: bool) -> tuple[bool, str]:
    """Say whether to replay whole steps as a graph, and why; without a word where none can be."""
    wanted = work.recipe.cuda_graph
    if wanted == "off" or (wanted == "auto" and probe_device().type != "cuda"):
        return False, ""
    if probe_device().type != "cuda":
        return False, "only a CUDA device has them"
    if wanted == "auto" and work.steps < FEWEST_STEPS:
        return False, f"{work.steps} steps are too few"
    try:
        found = measured_graph(work, precision, layout, compiled)
    except Exception as error:  # a block that reads a number, say, or asks for memory of its own
        return False, f"the step cannot be captured: {error_line(error)}"
    faster = found["graph"] < (1 - CLEAR_GAIN) * found["step"]
    times = f"{1000 * found['graph']:.3g} ms a step against {1000 * found['step']:.3g}"
    return wanted == "on" or faster, times


def measured_graph(work: Workload, precision: str, layout: str, compiled: bool) -> Seconds:
    """Return the seconds of a training ``step`` and of one as a ``graph``; measured here once.

    Raises:
        Exception: whatever the step does that cannot be captured.
    """

    def measure() -> Seconds:
        plain, whole = (
            whole_step(work, make_setup(precision, layout, compiled, graph=graph))
            for graph in (False, True)
        )
        return shortest_times({"step": plain, "graph": whole}, rounds=WARM_UP_STEPS + 4)

    key = work.key(precision) | {"memory_format": layout, "compile": compiled, "graph": True}
    return remembered(key, ("step", "graph"), measure)


def whole_step(work: Workload, setup: Setup) -> Step:
    """Return a function that does one step of the loop, as a graph where the setup says so.

    It raises what kept the step from being captured.
    """
    recipe = work.recipe
    state = prepare(work.spec.build(work.num_classes), recipe, setup)
    compiled = torch.compile(state.model, dynamic=False, disable=not setup.compiled)
    network, optimizer = setup.fabric.setup(cast(nn.Module, compiled), state.optimizer)
    network.train()
    step = TrainingStep(state.model, network, optimizer, state.average, recipe, setup)
    graphed = GraphedStep(step, recipe.batch_size)
    images = noise_images(state.model, work.image_size, recipe.batch_size)
    images = images.contiguous(memory_format=setup.memory_format)
    labels = torch.randint(work.num_classes, images.shape[:1]).to(setup.device)

    def run() -> None:
        step.set_rates(recipe.lr, 0)
        if not setup.graph:
            step(images, labels, labels, recipe.batch_size)
            return
        graphed(images, labels, labels, recipe.batch_size)
        if graphed.why_not:
            raise RuntimeError(graphed.why_not)

    return run


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
        steps = {name: make_step(work, make_setup(precision, name)) for name in LAYOUTS}
        return shortest_times(steps, threads=work.threads)

    return remembered(work.key(precision), tuple(LAYOUTS), measure)


def measured_compile(work: Workload, precision: str, layout: str) -> Seconds:
    """Return the seconds of a compiled ``step``, and of the ``first`` one; measured here once."""

    def measure() -> Seconds:
        step = make_step(work, make_setup(precision, layout, compiled=True))
        # By the clock: the compiler's processes are not this one's CPU time.
        first = time_in_turn({"first": step}, 1, warm_up=False)["first"][0]
        return shortest_times({"step": step}, threads=work.threads) | {"first": first}

    key = work.key(precision) | {"memory_format": layout, "compile": True}
    return remembered(key, ("step", "first"), measure)


def make_step(work: Workload, setup: Setup, images: int | None = None) -> Step:
    """Return a function that trains a network of its own for one step on made-up images.

    `images` are so many (default: the recipe's batch).
    """
    state = prepare(work.spec.build(work.num_classes), work.recipe, setup)
    network = cast(nn.Module, torch.compile(state.model, dynamic=False, disable=not setup.compiled))
    state.model.train()
    batch = noise_images(state.model, work.image_size, images or work.recipe.batch_size)
    labels = torch.randint(work.num_classes, batch.shape[:1]).to(setup.device)
    return training_step(
        network,
        batch.contiguous(memory_format=setup.memory_format),
        lambda logits: F.cross_entropy(logits, labels),
        setup.fabric.autocast,
        state.optimizer,
    )


def _precision_in(content: Any) -> str | None:
    return content["precision"] if content["precision"] in FABRIC_PRECISIONS.values() else None


def _choice_in(content: Any) -> MeasuredSetup | None:
    choice = MeasuredSetup(**content)
    valid = choice.precision in FABRIC_PRECISIONS.values() and choice.memory_format in LAYOUTS
    return choice if valid and isinstance(choice.compiled, bool) else None
