"""How many images are met at once: what is measured is what a device does, not a whole batch."""

from typing import Any

import pytest
import torch

from blocklab.models.spec import model_spec
from blocklab.training import algorithms, autotune
from blocklab.training.autotune import choose, make_step
from blocklab.training.device import make_setup
from blocklab.training.recipe import Recipe
from blocklab.training.workload import Workload


def work(**changes: Any) -> Workload:
    recipe = Recipe.parse({"epochs": 1, "batch_size": 10, "precision": "fp32", **changes})
    return Workload(model_spec("resnet20"), recipe, 8, 5, 4005, 1)


@pytest.mark.parametrize(
    ("accumulate", "world", "at_once", "batch"), [(1, 1, 10, 10), (3, 1, 4, 10), (2, 4, 2, 3)]
)
def test_a_device_has_its_share_and_takes_it_in_parts(
    accumulate: int, world: int, at_once: int, batch: int
) -> None:
    whole = work(accumulate=accumulate)
    mine = whole.share(world)
    assert (mine.at_once, mine.recipe.batch_size) == (at_once, batch)
    assert abs(mine.steps - whole.steps) <= 0.2 * whole.steps
    assert whole.share(1) == whole


def test_other_parts_are_measured_anew_and_usual_ones_are_not() -> None:
    keys = [work(accumulate=count).key("32-true") for count in (1, 2, 5)]
    assert keys[0] != keys[1] != keys[2] and "at_once" not in keys[0]
    assert work().share(2).key("32-true")["batch_size"] == 5


def test_a_steps_images_are_those_of_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def step(model: object, maps: torch.Tensor, *_: object) -> None:
        seen.append(len(maps))

    monkeypatch.setattr(autotune, "training_step", step)
    monkeypatch.setattr(algorithms, "training_step", step)
    setup = make_setup("32-true", "contiguous")
    for count in (1, 3):
        make_step(work(accumulate=count), setup)
        algorithms._step(work(accumulate=count), setup, (4, 5, 1, 8, 8), "plain")
    make_step(work(), setup, images=7)
    assert seen == [10, 10, 4, 4, 7]


def test_what_is_chosen_for_several_devices_is_measured_of_one_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []

    def note(work: Workload, *_: object) -> Any:
        seen.append(work.recipe.batch_size)
        return {}

    monkeypatch.setattr(autotune, "measured_algorithms", note)
    monkeypatch.setattr(autotune, "choose_gate_form", lambda *of: (False, note(*of) or ""))
    monkeypatch.setattr(autotune, "_choose_layout", lambda *of: ("contiguous", note(*of) or ""))
    for world in (1, 2):
        choose(work(), "32-true", world)
    assert seen == [10, 10, 10, 5, 5, 5]
