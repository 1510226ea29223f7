"""`auto`: what a row computes with, chosen by a short measurement before its first seed.

Layout, compile, CUDA graphs, and the algorithms of large depth-wise kernels.

What is measured is remembered per machine and model, below BLOCKLAB_CACHE. What is chosen is
written beside the runs, in `OUT/.setups`: once for a row, whose seeds then all have it, and the
precision once for the folder, so that rows are compared in the same arithmetic. A run notes its
own in run.json and keeps it when resumed. So no timing decides a result twice.

Steps are timed in the process's own CPU time where they run on the CPU: what else the machine does
then is hardly in it. Found with it, on two cores of a server with AVX-512: `torch.compile` takes
one to three minutes and then trains ResNet-18 and VAN-B0 no faster (0.97 and 1.0 times). So `auto`
tries it on GPUs alone, and there in whole steps, as graphs where those are the faster ones.
"""

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from blocklab.errors import error_line
from blocklab.kernels.recording import lean_on_gpus
from blocklab.measure.device import LAYOUTS, probe_device
from blocklab.measure.graphs import WARM_UP_STEPS
from blocklab.measure.memory import release_memory
from blocklab.measure.numerics import arithmetic, settings
from blocklab.measure.timing import (
    CLEAR_GAIN,
    Step,
    shortest_times,
    time_in_turn,
    training_step,
)
from blocklab.models.probe import noise_images
from blocklab.training.algorithms import measured_algorithms
from blocklab.training.compiling import compiled_network
from blocklab.training.device import (
    FABRIC_PRECISIONS,
    Setup,
    choose_precision,
    make_setup,
    missing_compiler,
    usual_layout,
)
from blocklab.training.gate_form import choose_gate_form
from blocklab.training.graph import GraphedStep
from blocklab.training.loop import prepare
from blocklab.training.recipe import COMPILE_MODES, GRAPHED_MODES, USUAL_MODE
from blocklab.training.remembered import Seconds, read_or_make, remembered
from blocklab.training.step import TrainingStep
from blocklab.training.workload import Workload

SETUPS = ".setups"  # in the folder of run folders
FEWEST_STEPS = 400  # of a run that is measured: the measurement's 8 are 2 % of them
HOPED_GAIN = 0.25  # of a step's time, by compiling: if that would not repay it, it is not tried
USUAL_COMPILE_SECONDS = 60.0
IN_A_STEP = (
    "accumulate",
    "clip_grad_norm",
    "deterministic",
    "ema_decay",
)  # fields of a recipe that a whole step's time is of


@dataclass(frozen=True)
class MeasuredSetup:
    """What a row trains with; `note` says how it was chosen."""

    precision: str
    memory_format: str
    compiled: str  # the mode of `torch.compile`, or empty
    note: str = ""
    algorithms: dict[str, str] = field(default_factory=dict)
    graph: bool = False
    lean: bool = False

    def setup(self, work: Workload, devices: int = 1, nodes: int = 1, note: str = "") -> Setup:
        """Make the setup itself."""
        return make_setup(
            self.precision,
            self.memory_format,
            self.compiled,
            devices=devices,
            nodes=nodes,
            note=note,
            algorithms=self.algorithms,
            graph=self.graph and devices * nodes == 1,
            deterministic=work.recipe.deterministic,
            lean=self.lean,
            parts=work.recipe.accumulate > 1,
        )

    def key(self, work: Workload) -> dict[str, Any]:
        """Return all that the time of a whole step depends on."""
        chosen = {name: value for name, value in asdict(self).items() if name != "note"}
        recipe = {name: getattr(work.recipe, name) for name in IN_A_STEP}
        how = settings(probe_device(), work.recipe.deterministic)
        return work.key(self.precision) | chosen | recipe | how


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
    world = devices * nodes
    file = out / SETUPS / (f"{row}.json" if world == 1 else f"{row}-{world}.json")

    def choose_here() -> MeasuredSetup:  # in the arithmetic that the run will have
        with arithmetic(probe_device(), recipe.deterministic):
            return choose(work, precision, world)

    choice = read_or_make(file, _choice_in, choose_here, asdict)
    release_memory()  # also of what failed, whose traceback held it
    notes = [choice.note] if choice.note else []
    if precision != own:
        notes.insert(0, f"{precision} as the other runs in this folder, though {own} is fast here")
    return choice.setup(work, devices, nodes, "; ".join(notes))


def choose(work: Workload, precision: str, world: int = 1) -> MeasuredSetup:
    """Choose what a workload computes with; measures only what the recipe leaves open.

    Of a run on several devices, `world`, one's share is measured, and no CUDA graph is made.
    """
    work = work.share(world)
    recipe, notes = work.recipe, list[str]()
    usual = usual_layout(precision)
    fixed = usual if recipe.memory_format == "auto" else recipe.memory_format
    way = MeasuredSetup(precision, fixed, recipe.compile_mode)
    if not way.compiled:  # compiled code is of the plain forms
        lean, why = choose_gate_form(
            work, lambda lean: whole_step(work, replace(way, lean=lean).setup(work))
        )
        way = replace(way, lean=lean)
        notes += [f"gates: {'lean' if lean else 'plain'} ({why})"] if why else []
    if recipe.memory_format == "auto":
        layout, why = _choose_layout(work, precision, usual, way.lean)
        way = replace(way, memory_format=layout)
        notes.append(why)
    if work.steps >= FEWEST_STEPS and not way.compiled:
        way = replace(way, algorithms=measured_algorithms(work, precision, way.memory_format))
    if way.algorithms:
        counts = Counter(way.algorithms.values())
        each = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
        notes.append(f"large kernels by measurement: {each}")
    graph, why = _choose_graph(work, way) if world == 1 else (False, "")
    way = replace(way, graph=graph)
    if why:
        notes.append(f"CUDA graph: {'on' if graph else 'off'} ({why})")
    if recipe.compile == "auto":
        compiled, why = _choose_compile(work, way)
        notes.append(f"compile: {compiled or 'off'} ({why})")
        if compiled:
            way = _compiled(way, compiled)
    return replace(way, note="; ".join(notes))


def _compiled(way: MeasuredSetup, mode: str) -> MeasuredSetup:
    """The same by `torch.compile`, which chooses how kernels and gates are computed itself."""
    return replace(way, compiled=mode, algorithms={}, lean=False)


def _choose_layout(work: Workload, precision: str, usual: str, lean: bool) -> tuple[str, str]:
    if work.steps < FEWEST_STEPS:
        return usual, f"{usual}: {work.steps} steps are too few to measure"
    try:
        seconds = measured_layouts(work, precision, lean)
    except torch.OutOfMemoryError:  # two networks may be too many where one is not
        return usual, f"{usual}: there is no memory to measure both layouts in"
    other = next(name for name in LAYOUTS if name != usual)
    layout = other if seconds[other] < (1 - CLEAR_GAIN) * seconds[usual] else usual
    times = (f"{name} {1000 * seconds[name]:.3g} ms" for name in (usual, other))
    return layout, f"{layout}, by the time of a step: {', '.join(times)}"


def _choose_graph(work: Workload, way: MeasuredSetup) -> tuple[bool, str]:
    """Say whether to replay whole steps as a graph, and why; without a word where none can be."""
    wanted = work.recipe.cuda_graph
    if wanted == "off" or (wanted == "auto" and probe_device().type != "cuda"):
        return False, ""
    if probe_device().type != "cuda":
        return False, "only a CUDA device has them"
    if way.compiled in GRAPHED_MODES:
        return False, f"compile={way.compiled} makes its own"
    if wanted == "auto" and work.steps < FEWEST_STEPS:
        return False, f"{work.steps} steps are too few"
    try:
        found = measured_graph(work, way)
    except torch.OutOfMemoryError:
        return wanted == "on", "there is no memory to measure both in"
    except Exception as error:  # a block that reads a number, say, or asks for memory of its own
        return False, f"the step cannot be captured: {error_line(error)}"
    faster = found["graph"] < (1 - CLEAR_GAIN) * found["step"]
    times = f"{1000 * found['graph']:.3g} ms a step against {1000 * found['step']:.3g}"
    return wanted == "on" or faster, times


def measured_graph(work: Workload, way: MeasuredSetup) -> Seconds:
    """Return the seconds of a training ``step`` and of one as a ``graph``; measured here once.

    Raises:
        Exception: whatever the step does that cannot be captured.
    """

    def measure() -> Seconds:
        plain, whole = (
            whole_step(work, replace(way, graph=graph).setup(work)) for graph in (False, True)
        )
        return shortest_times({"step": plain, "graph": whole}, rounds=WARM_UP_STEPS + 4)

    key = replace(way, graph=True).key(work)
    return remembered(key, ("step", "graph"), measure)


def whole_step(work: Workload, setup: Setup) -> Step:
    """Return a function that does one step of the loop, as a graph where the setup says so.

    It raises what kept the step from being captured.
    """
    recipe = work.recipe
    state = prepare(work.build(), recipe, setup)
    network = compiled_network(state.model, setup)
    network, optimizer = setup.fabric.setup(network, state.optimizer)
    state.set_training()
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


def _choose_compile(work: Workload, way: MeasuredSetup) -> tuple[str, str]:
    """Return the mode of `torch.compile` that repays its time, or an empty text; and why."""
    device = probe_device()
    if device.type == "cpu":
        return "", "no processor trains faster by it"
    if missing := missing_compiler(device):
        return "", f"no {missing.removeprefix('a ').removeprefix('the ')}"
    if work.steps < FEWEST_STEPS:
        return "", f"{work.steps} steps are too few"
    plain = measured_step(work, way)["step"]
    if work.steps * plain * HOPED_GAIN < USUAL_COMPILE_SECONDS:
        return "", f"a run of {work.steps * plain:.0f} s is too short to repay it"
    # Graphs of a mode's own are for where whole steps are none.
    own_graphs = device.type == "cuda" and not way.graph and work.recipe.accumulate == 1
    found: dict[str, Seconds] = {}
    why = ""
    for mode in (USUAL_MODE, *(GRAPHED_MODES[:1] if own_graphs else ())):
        try:
            found[mode] = measured_step(work, _compiled(way, mode))
        except Exception as error:  # a block that cannot be compiled is no reason not to train
            why = f"it fails with {type(error).__name__}"
    if not found:
        return "", why
    best = min(found, key=lambda mode: found[mode]["step"])
    step, first = found[best]["step"], found[best]["first"]
    worth = work.steps * (plain - step) > first and step < (1 - CLEAR_GAIN) * plain
    why = f"{1000 * step:.3g} ms a step against {1000 * plain:.3g}, after {first:.0f} s"
    return best if worth else "", why


def measured_layouts(work: Workload, precision: str, lean: bool = False) -> Seconds:
    """Return the seconds of a training step in each layout, measured here once."""

    def measure() -> Seconds:
        steps = {name: make_step(work, make_setup(precision, name)) for name in LAYOUTS}
        with lean_on_gpus(lean):
            return shortest_times(steps, threads=work.threads)

    key = work.key(precision) | ({"lean": True} if lean else {})
    return remembered(key, tuple(LAYOUTS), measure)


def measured_step(work: Workload, way: MeasuredSetup) -> Seconds:
    """Return the seconds of a whole ``step`` of the loop, and of the ``first``; measured here once.

    Raises:
        Exception: whatever keeps the step from being compiled or captured.
    """

    def measure() -> Seconds:
        step = whole_step(work, way.setup(work))
        # By the clock: the compiler's processes are not this one's CPU time.
        first = time_in_turn({"first": step}, 1, warm_up=False)["first"][0]
        return shortest_times({"step": step}, rounds=WARM_UP_STEPS + 4) | {"first": first}

    return remembered(way.key(work) | {"whole": True}, ("step", "first"), measure)


def make_step(work: Workload, setup: Setup, images: int | None = None) -> Step:
    """Return a function that trains a network of its own for one step on made-up images.

    `images` are so many (default: as many as the recipe takes at once).
    """
    state = prepare(work.build(), work.recipe, setup)
    state.set_training()
    network = state.model
    batch = noise_images(state.model, work.image_size, images or work.at_once)
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
    if isinstance(content["compiled"], bool):  # as it was before modes had names
        content = {**content, "compiled": USUAL_MODE if content["compiled"] else ""}
    choice = MeasuredSetup(**content)
    valid = choice.precision in FABRIC_PRECISIONS.values() and choice.memory_format in LAYOUTS
    return choice if valid and choice.compiled in ("", *COMPILE_MODES) else None
