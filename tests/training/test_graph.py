"""What a network counts or draws in Python, which a CUDA graph would repeat: seen in a step."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from blocklab.models.factory import create_model
from blocklab.training.graph import _in_python, _moved


class Does(nn.Module):
    """Does something in each forward pass."""

    def __init__(self, act: Callable[["Does"], object]) -> None:
        super().__init__()
        self.act, self.calls, self.rate, self.on = act, 0, 0.1, False

    def forward(self, x: Tensor) -> Tensor:
        self.act(self)
        return x


def draw_in_python(_: Does) -> None:
    random.random()


def draw_in_numpy(_: Does) -> None:
    np.random.rand()


def draw_on_the_processor(_: Does) -> None:
    torch.rand(1)


def count(one: Does) -> None:
    one.calls += 1


def warm_up(one: Does) -> None:
    one.rate *= 0.9


def switch(one: Does) -> None:
    one.on = not one.on


def nothing(one: Does) -> None:
    one.act = nothing


def moved(network: nn.Module, x: Tensor) -> str:
    before = _in_python(network)
    network(x)
    return _moved(before, _in_python(network))


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (draw_in_python, "the state of Python's random numbers"),
        (draw_in_numpy, "the state of NumPy's random numbers"),
        (draw_on_the_processor, "the state of the processor's random numbers"),
        (count, "Does.calls"),
        (warm_up, "Does.rate"),
        (switch, "Does.on"),
    ],
)
def test_what_moves_in_each_step_is_seen(act: Callable[[Does], object], told: str) -> None:
    network = nn.Sequential(Does(nothing), nn.Sequential(Does(act)))
    said = f"{told} changes in each step, and would not in a graph"
    assert moved(network, torch.zeros(2, 3)) == said


def test_usual_networks_move_nothing() -> None:
    assert moved(Does(nothing), torch.zeros(2, 3)) == ""
    network = create_model("resnet20_se", num_classes=4)  # BatchNorm counts on the device
    assert moved(network, torch.rand(2, 3, 16, 16)) == ""
    one = Does(nothing)
    one.rate = float("nan")  # is never equal to itself
    assert moved(one, torch.zeros(2, 3)) == ""
