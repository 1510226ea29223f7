"""`auto`: layout and compile of a row, chosen by a short measurement before its first seed.

What is measured is remembered per machine and model, below BLOCKLAB_CACHE. What is chosen is
written beside the runs, in `OUT/.setups`: once for a row, whose seeds then all have it, and the
precision once for the folder, so that rows are compared in the same arithmetic. A run notes its
own in run.json and keeps it when resumed. So no timing decides a result twice.

Steps are timed in the process's own CPU time where they run on the CPU: what else the machine does
then is hardly in it. Found with it, on two cores of a server with AVX-512: `torch.compile` takes
one to three minutes and then trains ResNet-18 and VAN-B0 no faster (0.97 and 1.0 times), so that
recipes leave it off.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from filelock import FileLock
from torch.nn import functional as F

from blocklab.data import ImageData
from blocklab.data.cache import cache_folder
from blocklab.errors import InputError, RunError
from blocklab.files import write_json
from blocklab.models import ModelSpec
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
from blocklab.training.surroundings import processor

SETUPS = ".setups"  # in the folder of run folders
FEWEST_STEPS = 400  # of a run that is measured: the measurement's 8 are 2 % of them
ROUNDS = 3
CLEAR_GAIN = 0.05  # of a step's time; less than that may be noise, and the usual layout stays
HOPED_GAIN = 0.25  # of a step's time, by compiling: if that would not repay it, it is not tried
USUAL_COMPILE_SECONDS = 60.0

Seconds = dict[str, float]
Value = TypeVar("Value")


@dataclass(frozen=True)
class MeasuredSetup:
    """What a row trains with; `note` says how it was chosen."""

    precision: str
    memory_format: str
    compiled: bool
    note: str = ""


@dataclass(frozen=True)
class Workload:
    """What is trained, as far as its speed depends on it."""

    spec: ModelSpec
    recipe: Recipe
    image_size: int
    num_classes: int
    train_images: int
    threads: int

    @classmethod
    def of(cls, spec: ModelSpec, recipe: Recipe, data: ImageData, threads: int) -> Self:
        """Return the workload of a run on some data."""
        return cls(spec, recipe, data.image_size, len(data.class_names), len(data.train), threads)

    @property
    def steps(self) -> int:
        """Steps of a whole run."""
        count = self.train_images / self.recipe.batch_size
        return self.recipe.epochs * (int(count) if self.recipe.drop_last else math.ceil(count))

    def key(self, precision: str) -> dict[str, Any]:
        """Return all that a step's time depends on, besides what is chosen by it."""
        device = probe_device()
        cuda = device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name(device) if cuda else processor(),
            "torch": torch.__version__,
            "threads": self.threads,
            "model": self.spec.to_dict(),
            "num_classes": self.num_classes,
            "batch_size": self.recipe.batch_size,
            "image_size": self.image_size,
            "optimizer": self.recipe.optimizer,
            "precision": precision,
        }


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
        precision = _fixed(file, _precision_in, lambda: own, lambda value: {"precision": value})
    choice = _fixed(
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
    return MeasuredSetup(precision, layout, compiled, "; ".join(notes))


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
        return _alternate(steps, work.threads)

    return _remembered(work.key(precision), tuple(FORMATS), measure)


def measured_compile(work: Workload, precision: str, layout: str) -> Seconds:
    """Return the seconds of a compiled ``step``, and of the ``first`` one; measured here once."""

    def measure() -> Seconds:
        began = time.perf_counter()  # the compiler's processes are not this one's CPU time
        step = _make_step(work, precision, layout, True)
        step()
        first = time.perf_counter() - began
        return _alternate({"step": step}, work.threads) | {"first": first}

    key = work.key(precision) | {"memory_format": layout, "compile": True}
    return _remembered(key, ("step", "first"), measure)


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


def _alternate(steps: Mapping[str, Callable[[], None]], threads: int) -> Seconds:
    """Return each step's shortest time over some rounds, after one that warms up."""
    on_cpu = probe_device().type == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    best = dict.fromkeys(steps, math.inf)
    for number in range(ROUNDS + 1):
        for name, step in steps.items():
            began = clock()
            step()
            seconds = (clock() - began) / (threads if on_cpu else 1)
            if number:
                best[name] = min(best[name], seconds)
    return best


def _remembered(
    key: Mapping[str, Any], names: Sequence[str], measure: Callable[[], Seconds]
) -> Seconds:
    """Return what was measured under the key on this machine, or measure it and remember it."""
    text = json.dumps(key, sort_keys=True)
    file = cache_folder() / "setups" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"

    def read(saved: Any) -> Seconds | None:
        seconds = saved["seconds"] if saved["key"] == key else {}
        whole = all(isinstance(seconds.get(name), float) and seconds[name] > 0 for name in names)
        return seconds if whole else None

    def measure_quietly() -> Seconds:
        with torch.random.fork_rng():  # whoever asks has its random numbers as before
            return measure()

    return _fixed(
        file, read, measure_quietly, lambda value: {"key": key, "seconds": value}, needed=False
    )


def _fixed(
    file: Path,
    read: Callable[[Any], Value | None],
    make: Callable[[], Value],
    write: Callable[[Value], Any],
    needed: bool = True,
) -> Value:
    """Return what a JSON file holds; if there is none or it is damaged, make and write it.

    One process makes it while others wait. Not `needed`, it may stay unwritten.
    """
    if (value := _read(file, read)) is not None:
        return value
    lock = FileLock(file.with_suffix(".lock"))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        if not needed:
            return make()
        raise RunError(
            f"cannot write {file}: {error.strerror or error}; choose another --out"
        ) from error
    try:
        if (value := _read(file, read)) is None:
            value = make()
            with suppress(*() if needed else (RunError,)):
                write_json(file, write(value))
        return value
    finally:
        lock.release()


def _read(file: Path, read: Callable[[Any], Value | None]) -> Value | None:
    try:
        return read(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return None


def _precision_in(saved: Any) -> str | None:
    return saved["precision"] if saved["precision"] in PRECISIONS else None


def _choice_in(saved: Any) -> MeasuredSetup | None:
    choice = MeasuredSetup(**saved)
    known = choice.precision in PRECISIONS and choice.memory_format in FORMATS
    return choice if known and isinstance(choice.compiled, bool) else None
