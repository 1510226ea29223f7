"""Looks that spend 5 %: against published boundaries, simulated studies, and slow sums."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from blocklab.statistics.dunnett import critical_value
from blocklab.statistics.equivalence import with_margin
from blocklab.statistics.family import BETTER, NOT_SHOWN, SAME, WORSE, Family, compare_rows
from blocklab.statistics.sequential import (
    FUTILE,
    Looks,
    LookTaken,
    Seen,
    chance_over_looks,
    chance_to_show,
    chance_to_show_no_loss,
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


def test_the_chance_to_show_no_loss_is_that_of_simulated_ends() -> None:
    rng, share, critical, margin = np.random.default_rng(0), 3 / 8, 2.6, 4.0
    for t in (-1.5, 0.3):
        truth = t + rng.normal(size=200_000)
        rest = truth + rng.normal(size=truth.size) * math.sqrt(share / (1 - share))
        last, half = share * t + (1 - share) * rest, critical * math.sqrt(share)
        shown = (last - half > -margin) | (last + half < 0)
        found = chance_to_show_no_loss(t, share, critical, margin)
        assert found == pytest.approx(shown.mean(), abs=0.003)
    assert chance_to_show_no_loss(0.0, share, critical, 50.0) == 1.0


def ended_at_first(margin: float | None, sd: float = 0.2) -> list[str]:
    """Return the words of rows that equal the baseline, at the first of three looks."""
    words, looks = list[str](), Looks((3, 5, 8))

    def reworded(family: Family) -> Family:
        return family if margin is None else with_margin(family, margin)

    for seed in range(20):
        rng = np.random.default_rng(seed)
        values = {f"{i}": dict(enumerate((sd * rng.normal(size=6)).tolist())) for i in range(9)}
        seen = [Seen({row: range(6 if row == "0" else 3) for row in values})]
        (one,) = take_looks(values, "0", looks, seen, reworded=reworded)
        words += [each.word for each in one.family.comparisons.values()]
    return words


def test_a_row_that_may_still_be_as_good_is_not_futile() -> None:
    without, within = ended_at_first(None), ended_at_first(0.5)
    assert without.count(FUTILE) > 100
    assert within.count(FUTILE) < 0.1 * without.count(FUTILE)
    far = ended_at_first(0.02)  # which eight seeds cannot show either
    assert far.count(FUTILE) > 100


def test_futile_asks_of_uneven_rows_what_the_last_look_will_ask() -> None:
    """A guard on uneven spreads asks for more than Dunnett's test, at the last look as now."""
    found, plain = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        sds = [0.2, 0.1, 0.1, 0.1, 0.6, 0.1, 0.6, 0.1]
        values = {
            f"{i}": dict(enumerate((sd * rng.normal(size=10)).tolist())) for i, sd in enumerate(sds)
        }
        seen = [Seen({row: range(10 if row == "0" else 5) for row in values})]
        (one,) = take_looks(values, "0", Looks((5, 8), gain=0.01), seen)
        for each in one.family.comparisons.values():
            gap = each.difference
            if one.family.stretch > 1.3 and gap and each.word in (FUTILE, NOT_SHOWN) and gap.high:
                assert one.family.critical
                t = abs(gap.mean) * one.family.critical / (gap.high - gap.mean)
                last = critical_value(
                    levels(Looks((5, 8)), 7)[-1], (8,) * 7, 16, one.family.df * 8 / 5
                )
                plain.append(chance_to_show(t, 5 / 8, last) < 0.1)
                found.append(each.word == FUTILE)
    assert len(found) > 50 and sum(found) > sum(plain)


def test_futile_asks_of_many_seeds_no_more_than_their_own_spreads_will() -> None:
    """What three uneven seeds are held to is not what Welch's test of twelve asks."""
    looks, told = Looks((3, 12), gain=0.01), 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        sds = [0.2, 0.1, 0.1, 0.1, 0.9, 0.1, 0.9, 0.1]
        values = {
            f"{i}": dict(enumerate((sd * rng.normal(size=6)).tolist())) for i, sd in enumerate(sds)
        }
        seen = [Seen({row: range(6 if row == "0" else 3) for row in values})]
        (one,) = take_looks(values, "0", looks, seen)
        family, level = one.family, levels(looks, 7)[-1]
        last = stats.t.isf(level / 2 / 7, _df_of_welch(12, 24))
        dunnett = critical_value(level, (12,) * 7, 24, family.df * 12 / 3)
        if family.method != "uneven" or family.stretch * dunnett < 1.2 * last:
            continue
        for each in family.comparisons.values():
            if each.difference and each.word in (FUTILE, NOT_SHOWN):
                assert family.sd
                t = abs(each.difference.mean) / family.sd / math.sqrt(1 / 3 + 1 / 6)
                chance = chance_to_show(t, 3 / 12, last)
                assert each.word == (FUTILE if chance < 0.1 else NOT_SHOWN)
                told += each.word == NOT_SHOWN
    assert told > 5


def _df_of_welch(n: int, of_baseline: int) -> float:
    """Welch and Satterthwaite's, of two even spreads."""
    parts = {n: 1 / n, of_baseline: 1 / of_baseline}
    return sum(parts.values()) ** 2 / sum(part**2 / (n - 1) for n, part in parts.items())


def test_futile_of_a_row_that_came_later_knows_that_the_baseline_has_its_seeds() -> None:
    """By the variance of the difference now and at the last look; the baseline stays at 16."""
    looks, values = Looks((3, 8), gain=0.01), dict[str, dict[int, float]]()
    values["a"] = dict(enumerate(0.3 * stats.norm.ppf((np.arange(16) + 0.5) / 16)))
    values["b"] = {0: -0.12, 1: 0.23, 2: 0.09}
    (one,) = take_looks(values, "a", looks, [Seen({row: range(len(values[row])) for row in "ab"})])
    found, family = one.family.comparisons["b"], one.family
    assert found.word == FUTILE and found.difference and family.sd
    now, last = 1 / 3 + 1 / 16, 1 / 8 + 1 / 16  # variances, of one seed
    asked = critical_value(levels(looks, 1)[-1], (8,), 16, family.df * 8 / 3) * math.sqrt(last)
    gap, rest = found.difference.mean / family.sd, math.sqrt(now - last)
    shown = float(stats.norm.sf((asked - gap) / rest) + stats.norm.cdf((-asked - gap) / rest))
    assert (
        found.reason
        == f"8 seeds would show a difference with a probability of {shown:.0%}".replace("%", " %")
    )


def test_a_look_on_record_stands() -> None:
    rng = np.random.default_rng(4)
    values = {name: dict(enumerate(rng.normal(size=10).tolist())) for name in "abc"}
    counts = [
        {"a": range(6), "b": range(3), "c": range(3)},
        {"a": range(10), "b": range(5), "c": range(3)},
    ]
    seen = [Seen(counts[0], 0.031, ("b",), ("c",)), Seen(counts[1], 0.012, ("b",))]
    one, two = take_looks(values, "a", Looks((3, 5, 8)), seen)
    assert (one.level, two.level, one.going, two.going) == (0.031, 0.012, ("b",), ("b",))
    said = one.family.comparisons["c"]
    assert said.word == FUTILE and two.family.comparisons["c"] is said


def test_a_p_between_a_looks_level_and_five_per_cent_is_explained() -> None:
    values = {
        "a": dict(enumerate([0.0, 0.1, -0.1, 0.05, -0.05, 0.0])),
        "b": {0: 0.1, 1: 0.2, 2: 0.16},
    }
    (one,) = take_looks(
        values, "a", Looks((3, 50), gain=0.05), [Seen({"a": range(6), "b": range(3)})]
    )
    found = one.family.comparisons["b"]
    assert found.p is not None and one.level < found.p < 0.05 and found.word == NOT_SHOWN
    assert found.reason == f"p is not below the look's level of {100 * one.level:.2f} %"


def looks_of(gains: list[float], seed: int, looks: Looks) -> list[LookTaken]:
    rng = np.random.default_rng(seed)
    size = looks.of_baseline(-1)
    values = {
        f"row {i}": dict(enumerate((gain + 0.25 * rng.normal(size=size)).tolist()))
        for i, gain in enumerate([0.0, *gains])
    }
    seen = [
        Seen({row: range(looks.of_baseline(i) if row == "row 0" else count) for row in values})
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
        values, "a", Looks((3, 5)), [Seen(dict.fromkeys(values, range(3)))], identical=["b"]
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

    seen = [Seen(dict.fromkeys("ab", range(count))) for count in (2, 4)]
    first, _ = take_looks(values, "a", Looks((2, 4)), seen, reworded=reworded)
    assert first.family.comparisons["b"].word == "as good" and first.going == ()
