"""Looks that spend 5 %: against published boundaries, simulated studies, and slow sums."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from blocklab.statistics.dunnett import critical_value
from blocklab.statistics.family import BETTER, SAME, WORSE, Family, compare_rows
from blocklab.statistics.sequential import (
    FUTILE,
    Looks,
    LookTaken,
    chance_over_looks,
    chance_to_show,
    critical_values,
    levels,
    spent,
    take_looks,
)

MANY = (400, 800, 1200, 1600, 2000)  # seeds of one row: its spread is as good as known


def test_boundaries_are_those_of_lan_and_demets() -> None:
    """Their function near Pocock's, five even looks, 5 % on both sides (Reboussin et al. 2000)."""
    found = critical_values(Looks(MANY, baseline_times=1), rows=1)
    assert found == pytest.approx([2.438, 2.427, 2.410, 2.397, 2.386], abs=0.025)


@pytest.mark.parametrize(
    ("t", "chance"),
    [
        ([2.413] * 5, 0.05),  # Pocock 1977, table 1
        ([2.040 * math.sqrt(5 / look) for look in range(1, 6)], 0.05),  # O'Brien and Fleming 1979
        ([1.96] * 5, 0.142),  # Armitage, McPherson and Rowe 1969
        ([1.96] * 2, 0.083),
    ],
)
def test_looking_again_costs_what_is_published(t: list[float], chance: float) -> None:
    at = [float(2 * stats.norm.sf(one)) for one in t]
    assert chance_over_looks(MANY[: len(t)], at, rows=1) == pytest.approx(chance, abs=0.003)


@pytest.mark.parametrize("blocks", [False, True])
def test_any_row_crosses_by_each_look_as_often_as_is_spent(blocks: bool) -> None:
    looks, rows, studies = Looks((2, 4, 6), baseline_times=1 if blocks else 2), 5, 20_000
    rng = np.random.default_rng(3)
    values = rng.normal(size=(studies, rows, 6))
    base = rng.normal(size=(studies, 1, looks.of_baseline(-1)))
    if blocks:  # what a seed does to every row must not matter
        shared = 3 * rng.normal(size=(studies, 1, 6))
        values, base = values + shared, base + shared
    crossed = np.zeros(studies, dtype=bool)
    for look, critical in enumerate(critical_values(looks, rows, blocks)):
        size, theirs = looks.seeds[look], looks.of_baseline(look)
        ours, other = values[..., :size], base[..., :theirs]
        if blocks:
            both = np.concatenate([other, ours], 1)
            left = both - both.mean(2, keepdims=True)
            left -= left.mean(1, keepdims=True)
            variance = (left**2).sum((1, 2)) / (rows * (size - 1))
        else:
            squares = [
                ((one - one.mean(2, keepdims=True)) ** 2).sum((1, 2)) for one in (ours, other)
            ]
            variance = sum(squares) / (rows * (size - 1) + theirs - 1)
        gaps = np.abs(ours.mean(2) - other.mean(2)).max(1)
        crossed |= gaps / np.sqrt(variance * (1 / size + 1 / theirs)) >= critical
        wanted = spent(size / 6)
        assert crossed.mean() == pytest.approx(wanted, abs=4 * math.sqrt(wanted / studies))


def test_the_first_look_is_dunnetts_test() -> None:
    looks = Looks((3, 5))
    assert levels(looks, 4)[0] == pytest.approx(spent(0.6), abs=1e-6)
    assert spent(1.0) == pytest.approx(0.05)


def test_the_chance_to_show_is_that_of_simulated_ends() -> None:
    rng, t, share, critical = np.random.default_rng(0), 1.2, 5 / 12, 3.0
    # The difference in units of its error now; the seeds left are as good as a normal draw.
    truth = t + rng.normal(size=200_000)
    rest = truth + rng.normal(size=truth.size) * math.sqrt(share / (1 - share))
    last = share * t + (1 - share) * rest  # the mean of all, whose error is sqrt(share) of now
    shown = np.abs(last) / math.sqrt(share) >= critical
    assert chance_to_show(t, share, critical) == pytest.approx(shown.mean(), abs=0.003)


def looks_of(gains: list[float], seed: int, looks: Looks) -> list[LookTaken]:
    rng = np.random.default_rng(seed)
    size = looks.of_baseline(-1)
    values = {
        f"row {i}": dict(enumerate((gain + 0.25 * rng.normal(size=size)).tolist()))
        for i, gain in enumerate([0.0, *gains])
    }
    seen = [
        {row: range(looks.of_baseline(i) if row == "row 0" else count) for row in values}
        for i, count in enumerate(looks.seeds)
    ]
    return list(take_looks(values, "row 0", looks, seen))


def test_a_row_that_has_ended_keeps_its_word_and_its_interval() -> None:
    looks = Looks((3, 5, 8, 12))
    first, *later = looks_of([2.0, 0.0, -2.0, 0.3], 1, looks)
    assert first.family.comparisons["row 1"].word == BETTER
    assert first.family.comparisons["row 3"].word == WORSE
    assert {"row 1", "row 3"}.isdisjoint(first.going)
    for one in later:
        assert one.family.comparisons["row 1"] is first.family.comparisons["row 1"]
    assert later[-1].going == ()
    gap = first.family.comparisons["row 1"].difference
    assert gap and gap.low is not None and gap.high is not None
    assert (gap.n, gap.n_baseline) == (3, 6) and gap.low > 0


def test_a_row_that_hardly_can_show_anything_is_futile_and_a_small_interval_too() -> None:
    ended = [looks_of([0.0], seed, Looks((3, 5, 8, 12)))[-1] for seed in range(30)]
    words = [one.family.comparisons["row 1"] for one in ended]
    assert sum(one.word == FUTILE for one in words) > 15
    assert any("with a probability of" in one.reason for one in words)
    wide = looks_of([0.0], 0, Looks((3, 5, 8, 12), gain=5.0))
    assert wide[0].family.comparisons["row 1"].reason == (
        "its interval leaves out 5 points on either side"
    )


def test_identical_rows_end_and_are_not_tested() -> None:
    values = {row: {0: 1.0, 1: 2.0, 2: 4.0} for row in ("a", "b", "c")}
    values["c"] = {0: 7.0, 1: 1.0, 2: 3.0}
    (one,) = take_looks(
        values, "a", Looks((3, 5)), [dict.fromkeys(values, range(3))], identical=["b"]
    )
    assert one.family.comparisons["b"].word == SAME and "b" not in one.going
    assert one.family.rows == 1  # c alone was tested


def test_dropped_rows_stay_in_the_family() -> None:
    rng = np.random.default_rng(5)
    values = {row: dict(enumerate(rng.normal(size=4).tolist())) for row in "abc"}
    plain, more = (compare_rows(values, "a", more_rows=n) for n in (0, 7))
    assert plain.critical == critical_value(0.05, (4, 4), 4, 9)
    assert more.critical == critical_value(0.05, (4,) * 9, 4, 9)
    assert more.comparisons["b"].p and plain.comparisons["b"].p
    assert more.comparisons["b"].p > plain.comparisons["b"].p


def test_false_verdicts_over_all_looks_stay_below_five_per_cent() -> None:
    """Short: `benchmarks/sequential.py` has more studies, rows and shapes."""
    studies, looks, wrong = 300, Looks((3, 5, 8)), 0
    for seed in range(studies):
        words = [
            one.word for one in looks_of([0.0] * 3, seed, looks)[-1].family.comparisons.values()
        ]
        wrong += any(word in (BETTER, WORSE) for word in words)
    assert wrong / studies < 0.055 + 2 * math.sqrt(0.05 * 0.95 / studies)


def test_a_word_that_is_read_off_an_interval_ends_a_row() -> None:
    values = {row: dict(enumerate([80.0 + i / 10, 80.1, 80.2, 80.0])) for i, row in enumerate("ab")}

    def reworded(family: Family) -> Family:
        as_good = {row: replace(one, word="as good") for row, one in family.comparisons.items()}
        return replace(family, comparisons=as_good)

    seen = [dict.fromkeys("ab", range(2)), dict.fromkeys("ab", range(4))]
    first, _ = take_looks(values, "a", Looks((2, 4)), seen, reworded=reworded)
    assert first.family.comparisons["b"].word == "as good" and first.going == ()
