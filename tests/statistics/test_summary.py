"""Intervals and tests against SciPy called directly, and against numbers worked out by hand."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from blocklab.statistics.summary import PERCENT, holm, summarise


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
    assert summarise([97.0, 99.0]).high == pytest.approx(98 + 12.7062, abs=1e-3)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_what_cannot_be_averaged_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"summarise|cannot average"):
        summarise(values)


def test_holm_by_hand_and_of_statsmodels() -> None:
    # sorted 0.01, 0.02, 0.04 times 3, 2, 1; each at least the one before
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    p_values = np.random.default_rng(3).uniform(0, 0.2, 40)
    expected = multipletests(p_values, method="holm")[1]
    assert holm(p_values.tolist()) == pytest.approx(expected.tolist())
    assert holm([]) == []
