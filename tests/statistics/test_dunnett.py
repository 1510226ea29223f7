"""Dunnett's distribution against SciPy, published tables and Student's t."""

import math

import numpy as np
import pytest
from scipy import stats

from blocklab.statistics.dunnett import critical_value, exceedance

# Dunnett, "New tables for multiple comparisons with a control", Biometrics 20, 1964: two-sided 5 %.
TABLE_OF_INFINITE_DF = [1.96, 2.21, 2.35, 2.44, 2.51, 2.57, 2.61, 2.65, 2.69]
TABLE_OF_10_DF = [2.23, 2.57, 2.76, 2.89]


@pytest.mark.parametrize(("df", "table"), [(math.inf, TABLE_OF_INFINITE_DF), (10, TABLE_OF_10_DF)])
def test_critical_values_of_the_published_tables(df: float, table: list[float]) -> None:
    found = [critical_value(0.05, [7] * rows, 7, df) for rows in range(1, len(table) + 1)]
    assert found == pytest.approx(table, abs=0.006)


@pytest.mark.parametrize("df", [1, 2, 10, 500])
@pytest.mark.parametrize("t", [0.3, 2.0, 9.0, 60.0])
def test_of_one_row_it_is_students_t(df: int, t: float) -> None:
    assert exceedance(t, [3], 8, df) == pytest.approx(2 * stats.t.sf(t, df), abs=1e-9)


def test_p_values_of_scipy_with_unequal_seeds() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=n) for n in (3, 5, 8, 12)]
    baseline = rng.normal(size=4) - 1.2
    expected = stats.dunnett(*rows, control=baseline, rng=np.random.default_rng(1))
    counts, df = [3, 5, 8, 12], 3 + 5 + 8 + 12 + 4 - 5
    found = [exceedance(abs(t), counts, 4, df) for t in expected.statistic]
    assert found == pytest.approx(expected.pvalue, abs=3e-3)  # SciPy's are drawn
    low = expected.confidence_interval(0.95).low
    spread = math.sqrt(sum(((row - row.mean()) ** 2).sum() for row in [*rows, baseline]) / df)
    critical = critical_value(0.05, counts, 4, df)
    for row, end in zip(rows, low, strict=True):
        half = critical * spread * math.sqrt(1 / row.size + 1 / baseline.size)
        assert row.mean() - baseline.mean() - half == pytest.approx(end, abs=0.02)


def test_it_is_the_inverse_of_itself_and_between_one_row_and_bonferroni() -> None:
    counts = [3] * 30 + [5] * 10
    critical = critical_value(0.05, counts, 3, 90)
    assert exceedance(critical, counts, 3, 90) == pytest.approx(0.05, abs=1e-8)
    assert stats.t.isf(0.025, 90) < critical < stats.t.isf(0.025 / 40, 90)


def test_it_is_what_simulated_studies_show() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(20_000, 6, 4))
    means, variance = values.mean(2), values.var(2, ddof=1).mean(1)
    t = np.abs(means[:, 1:] - means[:, :1]).max(1) / np.sqrt(variance * 2 / 4)
    for level in (1.5, 2.5, 3.5):
        assert exceedance(level, [4] * 5, 4, 18) == pytest.approx((t >= level).mean(), abs=0.011)
