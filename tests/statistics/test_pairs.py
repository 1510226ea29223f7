"""All pairs of rows: Tukey's intervals as statsmodels has them, and how often they err."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multicomp import pairwise_tukeyhsd

from blocklab.statistics.contrasts import pool_rows
from blocklab.statistics.pairs import Pairs, all_pairs
from blocklab.statistics.spread import Layout, null_ranges

EVEN = {"a": [60.0, 60.3, 60.5], "b": [63.0, 63.1, 62.6, 62.8], "c": [61.0, 61.5]}


def pairs_of(rows: dict[str, list[float]], paired: bool = False) -> Pairs:
    values = {row: dict(enumerate(seeds)) for row, seeds in rows.items()}
    return all_pairs(pool_rows(values, paired=paired))


def test_rows_of_one_spread_have_tukeys_intervals() -> None:
    found = pairs_of(EVEN)
    names = [name for name, seeds in EVEN.items() for _ in seeds]
    expected = pairwise_tukeyhsd(np.concatenate(list(EVEN.values())), np.array(names))
    ends = np.asarray(expected.confint)
    for (row, other), (low, high) in zip((("b", "a"), ("c", "a"), ("c", "b")), ends, strict=True):
        assert found.interval(row, other) == pytest.approx((low, high), abs=2e-3)
    assert found.interval("a", "none") is None
    assert found.interval("a", "b") == pytest.approx(
        tuple(-end for end in reversed(found.interval("b", "a") or ()))
    )


def test_uneven_rows_need_three_seeds_and_of_five_what_welch_bears_out() -> None:
    rng = np.random.default_rng(0)
    rows = {
        name: rng.normal(60, sd, 6).tolist()
        for name, sd in zip("abcd", (0.1, 0.1, 3, 0.2), strict=True)
    }
    found = pairs_of(rows | {"few": [60.0, 60.1]})
    assert found.interval("a", "few") is None
    for row, other in (("c", "a"), ("c", "d")):
        interval = found.interval(row, other)
        welch = stats.ttest_ind(rows[row], rows[other], equal_var=False)
        low, high = welch.confidence_interval(1 - 0.05 / 6)  # type: ignore[attr-defined]
        assert interval is not None
        assert interval[0] <= low + 1e-9 and interval[1] >= high - 1e-9
    of_four = pairs_of({name: seeds[:4] for name, seeds in rows.items()})
    interval = of_four.interval("a", "b")
    assert interval is not None
    # the pooled spread with at least Tukey's critical value
    sd = np.sqrt(np.mean([np.var(seeds[:4], ddof=1) for seeds in rows.values()]))
    tukey = stats.studentized_range.isf(0.05, 4, 12) * sd / 2
    assert (interval[1] - interval[0]) / 2 >= tukey - 1e-9


def test_what_seeds_do_to_all_rows_is_taken_out_of_paired_ones() -> None:
    rng = np.random.default_rng(2)
    for sds in ((0.1,) * 4, (0.1, 0.1, 1.0, 0.3)):
        rows = {name: rng.normal(60, sd, 5) for name, sd in zip("abcd", sds, strict=True)}
        seeds = rng.normal(0, 5, 5)
        plain = {name: values.tolist() for name, values in rows.items()}
        moved = {name: (values + seeds).tolist() for name, values in rows.items()}
        assert pairs_of(moved, True).low == pytest.approx(pairs_of(plain, True).low)
        assert pairs_of(moved).low[0, 1] < pairs_of(plain).low[0, 1] - 1


def test_made_ranges_are_those_of_a_loop() -> None:
    values = np.random.default_rng(1).normal(size=(4, 3))
    found = null_ranges(Layout((3,) * 4), values)
    # the same law: residuals of a random row for each, drawn with replacement
    rng = np.random.default_rng(9)
    left = (values - values.mean(1, keepdims=True)) * (3 / 2) ** 0.5
    drawn = left[rng.integers(0, 4, (4000, 4))[..., None], rng.integers(0, 3, (4000, 4, 3))]
    means, sd = drawn.mean(2), drawn.std(2, ddof=1)
    spread = np.sqrt((sd**2).mean(1))
    largest = np.ptp(means, axis=1) / (np.maximum(spread, 1e-12) * (2 / 3) ** 0.5)
    assert np.quantile(found, 0.9) == pytest.approx(np.quantile(largest, 0.9), rel=0.08)


def test_no_spread_is_no_interval() -> None:
    assert pairs_of({"a": [60.0, 60.0], "b": [61.0, 61.0]}).interval("a", "b") is None


@pytest.mark.parametrize(("seeds", "unevenness"), [(2, 0.0), (3, 0.0), (3, 0.6), (6, 0.6)])
def test_any_pair_is_rarely_told_apart_where_none_differs(seeds: int, unevenness: float) -> None:
    rng, studies, wrong = np.random.default_rng(seeds), 150, 0
    for _ in range(studies):
        sds = 0.25 * np.exp(unevenness * rng.normal(size=(8, 1)))
        values = rng.normal(60, sds, (8, seeds))
        low = pairs_of({str(i): row.tolist() for i, row in enumerate(values)}).low
        wrong += bool((low > 0).any())
    assert wrong / studies <= 0.05 + 2 * (0.05 * 0.95 / studies) ** 0.5
