"""Recipes: their schedules at known points, and what is refused."""

import pytest

from blocklab.errors import InputError
from blocklab.training.recipe import Recipe, load_recipe, recipe_names


def test_the_report_steps_every_thirty_epochs() -> None:
    recipe = load_recipe("report")
    rates = [recipe.learning_rate(epoch) for epoch in (0, 29.99, 30, 49)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01])


def test_cosine_warms_up_and_ends_at_its_floor() -> None:
    recipe = Recipe(epochs=10, warmup_epochs=2, lr=1.0, min_lr_ratio=0.1)
    rates = [recipe.learning_rate(epoch) for epoch in (0, 1, 2, 6, 10)]
    assert rates == pytest.approx([0, 0.5, 1, 0.55, 0.1])


def test_onecycle_tops_at_its_peak() -> None:
    recipe = Recipe(epochs=10, schedule="onecycle", onecycle_peak=0.3, lr=1.0)
    assert recipe.learning_rate(3) == pytest.approx(1)
    assert recipe.learning_rate(0) == pytest.approx(0.04)
    assert recipe.learning_rate(10) == pytest.approx(0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epohcs": 3}, "did you mean 'epochs'"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 1}, "BatchNorm needs two"),
        ({"warmup_epochs": 9}, "longer than the 5 epochs"),
        ({"mixup": 0.2, "batch_size": 33}, "even batch_size"),
        ({"lr": "fast"}, "lr"),
    ],
)
def test_wrong_fields_are_refused_in_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_recipe("quick", changes)
    assert "\n" not in str(caught.value)


def test_unknown_recipe_names_the_closest() -> None:
    assert recipe_names() == ["quick", "report", "strong"]
    with pytest.raises(InputError, match="did you mean 'quick'"):
        load_recipe("quik")
