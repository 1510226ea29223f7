"""Which rows stopped on their way: by hand-made losses, and as a study says it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from blocklab.results.ended_run import EndedRun
from blocklab.results.undertrained import STEEP, last_pace, why_undertrained


def run_of(losses: list[float | None], **result: object) -> EndedRun:
    lines = [{"epoch": i, "train_loss": loss} for i, loss in enumerate(losses, 1)]
    return EndedRun("0", 0, Path(), {}, lines, {"status": "finished", **result})


@pytest.mark.parametrize(
    ("losses", "pace"),
    [
        ([4.0, 3.0, 2.0, 1.0], 1.0),  # a straight line
        ([4.0, 1.0, 1.0, 1.0], 0.0),  # levelled out
        ([4.0, 2.0, 1.0, 1.0 - 3.0 / 7], 0.375),  # (3/7) / ((3 + 3/7) / 3)
        ([5.0, 3.0, 1.0, 2.0], -1.0),  # up again
        ([4.0, 3.0], None),  # of two epochs the last pace is the average
        ([2.0, 2.0, 2.0], None),  # never fell
        ([4.0, None, None], None),
    ],
)
def test_the_last_pace_is_a_share_of_the_average(losses: list[float], pace: float | None) -> None:
    assert last_pace([run_of(losses)]) == (pace if pace is None else pytest.approx(pace))


def test_of_many_epochs_the_last_tenth_is_the_end() -> None:
    losses = [10.0 - 0.1 * epoch for epoch in range(27)] + [7.0, 6.9, 6.8]
    assert last_pace([run_of(losses)]) == pytest.approx((7.4 - 6.8) / 3 / (3.2 / 29))


def test_the_mean_over_seeds_is_looked_at_where_all_of_them_have_an_epoch() -> None:
    steep, flat = run_of([4.0, 3.0, 2.0]), run_of([4.0, 2.0, 2.0])
    assert last_pace([steep, flat]) == pytest.approx(0.5)
    shorter = run_of([4.0, 3.0])
    assert last_pace([steep, shorter]) is None


def test_a_row_is_undertrained_above_half_of_its_pace_or_at_chance() -> None:
    assert why_undertrained([run_of([4.0, 3.0, 2.0])]) == (
        "its loss on the training images still fell at 100 % of its average pace in the last "
        "epochs; train it longer"
    )
    just = [4.0, 4.0 - 2 + STEEP, 2.0]  # half a point in the last epoch, one on average
    assert why_undertrained([run_of(just)]) is None
    assert why_undertrained([run_of([2.0, 2.0, 2.0])]) is None
    never = why_undertrained([run_of([2.0, 2.0, 2.0], at_chance=True)])
    assert never is not None and "never learned" in never
    assert why_undertrained([]) is None


def test_how_far_it_came_is_said(make_run: Callable[..., Path]) -> None:
    run = run_of([4.0, 3.0, 2.0])
    run.log[-1]["train_top1_percent"] = 41.26
    assert ", with 41.3 % of them right;" in str(why_undertrained([run]))
