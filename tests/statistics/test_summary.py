"""Intervals and tests against SciPy called directly, and against numbers worked out by hand."""

import math
import warnings

import numpy as np
import pytest
from blocklab.statistics.paired import paired_difference
from scipy import stats
from statsmodels.stats.multitest import multipletests

from blocklab.statistics.summary import PERCENT, POINTS, holm, summarise


def test_interval_of_three_seeds_by_hand() -> None:
    summary = summarise([56.0, 57.0, 58.0])
    assert summary.mean == 57.0
    assert summary.sd == 1.0
    # t of 2 degrees of freedom at 97.5 % is 4.302653 in any table; 4.302653 / sqrt(3) = 2.484138
    assert summary.low == pytest.approx(57 - 2.484138, abs=1e-5)
    assert summary.high == pytest.approx(57 + 2.484138, abs=1e-5)
    assert summary.n == 3


@pytest.mark.parametrize("n", [2, 5, 10])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_interval_is_the_one_of_scipy(n: int, confidence: float) -> None:
    values = np.random.default_rng(n).normal(60, 0.25, n)
    summary = summarise(values.tolist(), confidence)
    low, high = stats.t.interval(confidence, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert (summary.low, summary.high) == (pytest.approx(low), pytest.approx(high))
    assert summary.sd == pytest.approx(values.std(ddof=1))


def test_one_seed_has_no_interval() -> None:
    summary = summarise([57.25])
    assert (summary.mean, summary.sd, summary.low, summary.high) == (57.25, None, None, None)


def test_equal_values_show_no_spread_and_have_no_interval() -> None:
    summary = summarise([0.1] * 3)
    assert (summary.sd, summary.low, summary.high) == (0, None, None)
    assert summary.mean == pytest.approx(0.1)


def test_an_interval_is_cut_at_what_cannot_be_passed() -> None:
    summary = summarise([97.0, 99.0], bounds=PERCENT)
    assert (summary.high, summary.mean) == (100.0, 98.0)
    assert summary.low == pytest.approx(98 - 12.7062, abs=1e-3)  # t of one degree, SD 1.4142
    gap = paired_difference({0: 99.0, 1: 60.0}, {0: 1.0, 1: 2.0}, bounds=POINTS)
    assert gap is not None and (gap.low, gap.high) == (-100.0, 100.0)
    assert summarise([97.0, 99.0]).high == pytest.approx(98 + 12.7062, abs=1e-3)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_what_cannot_be_averaged_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"summarise|cannot average"):
        summarise(values)


def test_difference_is_paired_by_seed_not_by_order() -> None:
    ours = {2: 63.0, 0: 61.0, 1: 62.5}
    theirs = {0: 60.0, 1: 61.0, 2: 62.0, 3: 99.0}
    gap = paired_difference(ours, theirs)
    assert gap is not None
    assert gap.values == (1.0, 1.5, 1.0)  # seeds 0, 1, 2; seed 3 has no partner
    assert gap.mean == pytest.approx(3.5 / 3)
    expected = stats.ttest_rel([61.0, 62.5, 63.0], [60.0, 61.0, 62.0])
    interval = expected.confidence_interval(0.95)
    assert (gap.low, gap.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert gap.p == pytest.approx(expected.pvalue)
    # By hand: SD of (1, 1.5, 1) is 0.288675, so t = 1.166667 / (0.288675 / sqrt(3)) = 7, and with
    # 2 degrees of freedom p = 1 - t / sqrt(t^2 + 2) = 1 - 7 / sqrt(51)
    assert gap.p == pytest.approx(1 - 7 / math.sqrt(51))


def test_difference_over_one_shared_seed_is_only_a_mean() -> None:
    gap = paired_difference({0: 61.0, 1: 62.0}, {1: 60.5, 2: 60.0})
    assert gap is not None
    assert (gap.mean, gap.low, gap.high, gap.p, gap.n) == (1.5, None, None, None, 1)


def test_equal_differences_have_no_p_and_give_no_warning() -> None:
    ours = {0: 60.1, 1: 60.3, 2: 61.7}
    theirs = {seed: value - 0.7 for seed, value in ours.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gap = paired_difference(ours, theirs)
    assert gap is not None
    assert gap.p is None
    assert (gap.low, gap.high) == (None, None)
    assert gap.mean == pytest.approx(0.7)


def test_no_shared_seed_is_no_difference() -> None:
    assert paired_difference({0: 60.0}, {1: 61.0}) is None


def test_holm_by_hand_and_of_statsmodels() -> None:
    # sorted 0.01, 0.02, 0.04 times 3, 2, 1; each at least the one before
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    p_values = np.random.default_rng(3).uniform(0, 0.2, 40)
    expected = multipletests(p_values, method="holm")[1]
    assert holm(p_values.tolist()) == pytest.approx(expected.tolist())
    assert holm([]) == []
