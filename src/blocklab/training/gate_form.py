"""Which form gates and poolings take on a GPU: the plain one, or where memory is short the lean.

The plain form launches less and moves less; the lean one saves nothing of the map's size for the
backward pass. So the plain one is taken unless a whole step of it, measured, leaves too little of
the memory that is free.
"""

from collections.abc import Callable

import torch

from blocklab.measure.device import allocated, most_reserved, probe_device, reserved, wait
from blocklab.measure.device import free_memory as device_memory
from blocklab.measure.footprint import footprint
from blocklab.measure.memory import release_memory, reset_peak_memory
from blocklab.measure.timing import Step
from blocklab.training.workload import Workload

ROOM = 0.9  # of the free memory, for a step: the cache of images and other layouts need some too
PLENTY = 0.3  # of it, for the estimate of a step below which none is measured
STEPS = 2  # the first makes gradients and the optimizer's buffers

MakeStep = Callable[[bool], Step]  # of the lean form, or of the plain one


def choose_gate_form(work: Workload, make_step: MakeStep) -> tuple[bool, str]:
    """Say whether a row takes the lean forms, and why; without a word where memory is plenty."""
    if probe_device().type != "cuda":
        return False, ""
    free = free_memory()
    taken = footprint(work.build_meta().train(), work.image_size, lean=False)
    if taken.training_bytes(work.at_once, copies=6) < PLENTY * free:
        return False, ""
    plain = step_memory(make_step, lean=False)
    if plain is not None and plain <= ROOM * free:
        return False, f"{_gb(plain)} of {_gb(free)} free"
    lean = step_memory(make_step, lean=True)
    if lean is None and plain is None:
        return False, f"no form of them fits in {_gb(free)}"
    if lean is None or (plain is not None and lean >= plain):
        return False, f"they save nothing of {_gb(plain or 0)}, and {_gb(free)} are free"
    needed = "too little" if plain is None else f"less than {_gb(plain / ROOM)}"
    return True, f"{_gb(lean)} of {_gb(free)} free, {needed} for the plain form"


def free_memory() -> int:
    """Bytes that this process may still take of its GPU, with what its allocator keeps unused."""
    device = probe_device()
    return device_memory(device) + reserved(device) - allocated(device)


def step_memory(make_step: MakeStep, lean: bool) -> int | None:
    """Return the bytes that a step takes at its peak, the network's own included; None for more.

    They are those that the allocator asks the device for, some of which lie in gaps. What is
    measured is given back.
    """
    device = probe_device()
    release_memory()
    before = reserved(device)
    reset_peak_memory()
    try:
        step = make_step(lean)
        for _ in range(STEPS):
            step()
        wait(device)
        return most_reserved(device) - before
    except torch.OutOfMemoryError:
        return None
    finally:
        step = None  # with its network
        release_memory()


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"
