"""What a study with looks costs: against what it must come to at the ends."""

import pytest

from blocklab.statistics.sequential import Looks
from blocklab.statistics.sequential_planning import sequential_cost

LOOKS = Looks((3, 5), gain=1.0)


def test_a_large_gain_is_decided_at_the_first_look() -> None:
    found = sequential_cost(0.05, 3, LOOKS, 1.0)
    assert (found.power, found.looks) == (1.0, (3, 5))
    # three rows of three seeds and a baseline of six: whether all gain, or none does
    assert found.runs == found.runs_of_none == pytest.approx(15)


def test_a_small_gain_goes_on_to_the_last_look_and_is_seldom_shown() -> None:
    few = sequential_cost(2.0, 3, LOOKS, 0.5)
    assert few.power < 0.2
    assert 15 < few.runs <= 3 * 5 + 10
    assert sequential_cost(0.4, 3, LOOKS, 1.0).power > few.power
