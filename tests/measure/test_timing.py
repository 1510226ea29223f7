"""Timing: steps in turn, and the step that is timed; no test looks at the clock."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from blocklab.measure import timing
from blocklab.measure.timing import shortest_times, time_in_turn, training_step


class Clock:
    """Time that only passes where a step says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> tuple[Clock, Clock]:
    """The clock on the wall, and the process's own."""
    wall, own = Clock(), Clock()
    monkeypatch.setattr(timing.time, "perf_counter", wall)
    monkeypatch.setattr(timing.time, "process_time", own)
    monkeypatch.setattr(timing, "probe_device", lambda: torch.device("cpu"))
    return wall, own


def test_steps_are_timed_in_turn_after_one_round_for_nothing(clocks: tuple[Clock, Clock]) -> None:
    wall, own = clocks
    calls: list[str] = []

    def step(name: str, seconds: list[float]) -> None:
        calls.append(name)
        passed = seconds.pop(0)
        wall.now += passed
        own.now += 2 * passed

    def steps() -> dict[str, timing.Step]:
        calls.clear()
        first, second = [9.0, 2.0, 1.0], [8.0, 3.0, 4.0]
        return {"a": lambda: step("a", first), "b": lambda: step("b", second)}

    assert time_in_turn(steps(), 2) == {"a": [2, 1], "b": [3, 4]}
    assert calls == ["a", "b"] * 3
    assert time_in_turn(steps(), 2, warm_up=False) == {"a": [9, 2], "b": [8, 3]}
    assert shortest_times(steps(), 2) == {"a": 1, "b": 3}
    # Of the process's own time, each of four threads has a quarter.
    assert shortest_times(steps(), 2, threads=4) == {"a": 0.5, "b": 1.5}


def test_a_step_trains_and_leaves_no_gradient() -> None:
    network, images = nn.Linear(3, 2), torch.ones(4, 3)
    before = network.weight.detach().clone()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    loss = lambda outputs: outputs.sum()  # noqa: E731
    training_step(network, images, loss, nullcontext)()
    assert network.weight.equal(before) and network.weight.grad is None
    training_step(network, images, loss, nullcontext, optimizer)()
    assert network.weight.detach().allclose(before - 0.5 * 4)
    assert network.weight.grad is None
