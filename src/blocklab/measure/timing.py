"""Steps timed fairly, and the training step that is timed."""

import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from blocklab.measure.device import probe_device, wait

CLEAR_GAIN = 0.05  # of a step's time; less than that may be noise, and what is usual stays

Key = TypeVar("Key", bound=Hashable)
Step = Callable[[], object]


def time_in_turn(
    steps: Mapping[Key, Step], rounds: int, *, threads: int | None = None, warm_up: bool = True
) -> dict[Key, list[float]]:
    """Return each step's seconds, a value a round.

    Steps are timed in turn, round after round, so that a machine whose speed drifts favours none.
    On a CUDA device a step's time is that between two events, which the host's wait is not in.

    Args:
        steps: by name.
        rounds: that count; one that `warm_up` comes before.
        threads: where the steps run on a processor, count the process's own CPU time, shared by so
            many threads: what else the machine does is hardly in it then. None is the clock's time.
        warm_up: whether each step is first done once for nothing.
    """
    device, clock, share = probe_device(), time.perf_counter, 1
    if threads is not None and device.type == "cpu":
        clock, share = time.process_time, threads
    seconds: dict[Key, list[float]] = {name: [] for name in steps}
    for number in range(-1 if warm_up else 0, rounds):
        for name, step in steps.items():
            wait(device)
            if device.type == "cuda":
                took = _between_events(step)
            else:
                began = clock()
                step()
                wait(device)
                took = (clock() - began) / share
            if number >= 0:
                seconds[name].append(took)
    return seconds


def _between_events(step: Step) -> float:
    begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begun.record()
    step()
    ended.record()
    ended.synchronize()
    return begun.elapsed_time(ended) / 1000


def shortest_times(
    steps: Mapping[Key, Step], rounds: int = 3, *, threads: int | None = None
) -> dict[Key, float]:
    """Return each step's least seconds (see `time_in_turn`): what disturbs a step lengthens it."""
    times = time_in_turn(steps, rounds, threads=threads)
    return {name: min(seconds) for name, seconds in times.items()}


def training_step(
    network: nn.Module,
    images: Tensor,
    loss: Callable[[Tensor], Tensor],
    autocast: Callable[[], AbstractContextManager[Any]],
    optimizer: torch.optim.Optimizer | None = None,
) -> Step:
    """Return a function that runs a network forward and backward, and lets the optimizer step.

    The `loss` is of the network's outputs, in float32.
    """

    def step() -> None:
        with autocast():
            outputs = network(images)
        loss(outputs.float()).backward()
        if optimizer is not None:
            optimizer.step()
        network.zero_grad()

    return step
