"""Statements over data sets: against SciPy, statsmodels and scikit-posthocs, and by chance."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from blocklab.statistics.datasets import (
    Cell,
    Gap,
    at_least,
    mean_gap,
    rank_rows,
    sampled_gap,
    weighted_gap,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _cell(values: np.ndarray) -> Cell:
    return Cell(float(values.mean()), float(values.std(ddof=1)), len(values))


def test_on_one_data_set_it_is_welchs_test(rng: np.random.Generator) -> None:
    ours, theirs = rng.normal(70, 0.3, 4), rng.normal(69, 1.2, 6)
    gap = weighted_gap({"a": 1, "b": -1}, {"a": _cell(ours), "b": _cell(theirs)})
    assert gap is not None
    welch = stats.ttest_ind(ours, theirs, equal_var=False)
    assert gap.p_against(0) == pytest.approx(welch.pvalue)
    assert gap.interval() == pytest.approx(tuple(welch.confidence_interval()))
    tost = CompareMeans(DescrStatsW(ours), DescrStatsW(theirs)).ttost_ind(-2, 2, usevar="unequal")
    assert gap.p_within(2) == pytest.approx(tost[0])
    turned = weighted_gap({"a": -1, "b": 1}, {"a": _cell(ours), "b": _cell(theirs)})
    assert turned is not None and turned.p_within(2) == pytest.approx(tost[0])
    assert mean_gap([gap]) == gap


def test_over_data_sets_it_is_satterthwaites_sum(rng: np.random.Generator) -> None:
    """Two rows on two data sets are four groups with weights 1/2 and -1/2."""
    groups = [rng.normal(0, sd, n) for sd, n in ((0.2, 3), (0.4, 5), (1.5, 4), (0.1, 3))]
    gaps = []
    for ours, theirs in (groups[:2], groups[2:]):
        gap = weighted_gap({"a": 1, "b": -1}, {"a": _cell(ours), "b": _cell(theirs)})
        assert gap is not None
        gaps.append(gap)
    parts = [(group.var(ddof=1) / len(group) / 4, len(group) - 1) for group in groups]
    variance = sum(part for part, _ in parts)
    df = variance**2 / sum(part**2 / n for part, n in parts)
    mean = (groups[0].mean() - groups[1].mean() + groups[2].mean() - groups[3].mean()) / 2
    both = mean_gap(gaps)
    assert both.p_against(0.3) == pytest.approx(2 * stats.t.sf(abs(mean - 0.3) / variance**0.5, df))
    sampled = sampled_gap([*gaps, Gap(1.0)])
    assert sampled is not None
    values = [*(gap.mean for gap in gaps), 1.0]
    assert sampled.p_against(0) == pytest.approx(stats.ttest_1samp(values, 0)[1])
    assert sampled_gap(gaps) is None


def test_what_has_no_spread_is_not_tested() -> None:
    one = weighted_gap({"a": 1, "b": -1}, {"a": Cell(5, None, 1), "b": Cell(4, 0.5, 3)})
    same = weighted_gap({"a": 1, "b": -1}, {"a": Cell(5, 0.0, 3), "b": Cell(4, 0.0, 3)})
    some = weighted_gap({"a": 1, "b": -1}, {"a": Cell(5, 0.4, 3), "b": Cell(4, 0.5, 3)})
    assert one and same and some
    for gap in (one, same, mean_gap([some, one]), mean_gap([same, same]), sampled_gap([some] * 3)):
        assert gap is not None and gap.mean == 1
        assert gap.p_against(0) is gap.p_within(1) is gap.interval() is None
    assert mean_gap([some, same]).interval() is not None
    assert weighted_gap({"a": 1, "b": -1}, {"a": Cell(5, 0.4, 3)}) is None


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_false_verdicts_and_coverage_in_simulation(seeds: int, rng: np.random.Generator) -> None:
    """Three data sets whose spreads differ ten times: at most 5 %, give or take chance (0.5 %)."""
    misses, studies = 0, 2000
    sds = (0.2, 0.5, 2.0)
    for _ in range(studies):
        gaps = []
        for sd in sds:
            cells = {"a": _cell(rng.normal(1, sd, seeds)), "b": _cell(rng.normal(0, sd / 2, seeds))}
            gaps.append(weighted_gap({"a": 1, "b": -1}, cells))
        interval = mean_gap([gap for gap in gaps if gap]).interval()
        assert interval is not None
        misses += not interval[0] <= 1 <= interval[1]
    assert misses / studies <= 0.05 + 3 * 0.005, misses / studies


def test_at_least_so_many(rng: np.random.Generator) -> None:
    p = [0.04, 0.001, 0.3]
    assert at_least(p, 3) == 0.3 and at_least(p, 1) == pytest.approx(0.003)
    assert at_least(p, 2) == pytest.approx(0.08)
    for least in (0, 4):
        with pytest.raises(ValueError, match="of 3 data sets"):
            at_least(p, least)
    # By chance: one of three data sets has an effect so large that its p is 0.
    null = rng.uniform(size=(20_000, 3))
    null[:, 0] = 0
    for least, most in ((2, 0.05), (3, 0.05)):
        shown = np.mean([at_least(list(line), least) < 0.05 for line in null])
        assert shown <= most + 0.005
    assert np.mean([at_least(list(line), 1) < 0.05 for line in null]) == 1


def _tables(rng: np.random.Generator) -> list[np.ndarray]:
    plain = rng.normal(70, 1, (6, 5)) + np.array([0, 0.5, 1, 3, 3])
    return [plain, plain.round()]  # with ties


def test_ranks_are_friedmans_and_nemenyis(rng: np.random.Generator) -> None:
    for table in _tables(rng):
        rows = list("abcde")
        found = rank_rows([dict(zip(rows, line, strict=True)) for line in table.tolist()])
        assert found is not None and found.datasets == 6
        ranks = stats.rankdata(-table, axis=1).mean(0)
        assert found.rows == pytest.approx(dict(zip(rows, ranks, strict=True)))
        assert list(found.rows.values()) == sorted(found.rows.values())
        assert found.p == pytest.approx(stats.friedmanchisquare(*table.T)[1])
        for one, other in itertools.combinations(rows, 2):
            together = any({one, other} <= set(group) for group in found.groups)
            assert together == (abs(found.rows[one] - found.rows[other]) < found.critical)
        low = rank_rows([dict(zip(rows, line, strict=True)) for line in table.tolist()], False)
        assert low is not None and low.rows == pytest.approx(
            {row: 6 - rank for row, rank in found.rows.items()}
        )


def test_the_critical_difference_is_demsars() -> None:
    """Table 5(a) of Demsar 2006: q of 0.05 for 2 to 10 classifiers, and his example's 1.25."""
    printed = {3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}
    for rows, q in printed.items():
        means = [{str(row): float(row) for row in range(rows)} for _ in range(14)]
        found = rank_rows(means)
        assert found is not None
        assert found.critical == pytest.approx(q * (rows * (rows + 1) / 84) ** 0.5, abs=0.001)
        if rows == 4:
            assert found.critical == pytest.approx(1.25, abs=0.005)


def test_nemenyis_test_is_scikit_posthocs(rng: np.random.Generator) -> None:
    posthocs = pytest.importorskip("scikit_posthocs", reason="scikit-posthocs is not installed")
    for table in _tables(rng):
        rows = list("abcde")
        found = rank_rows([dict(zip(rows, line, strict=True)) for line in table.tolist()])
        assert found is not None
        p = posthocs.posthoc_nemenyi_friedman(pd.DataFrame(table, columns=rows))
        for one, other in itertools.combinations(rows, 2):
            shown = abs(found.rows[one] - found.rows[other]) >= found.critical
            assert shown == (p.loc[one, other] <= 0.05)


def test_too_little_to_rank() -> None:
    two = {"a": 1.0, "b": 2.0}
    three = {**two, "c": 3.0}
    assert rank_rows([]) is rank_rows([three]) is rank_rows([two, two]) is None
    assert rank_rows([three, two]) is None
    level = rank_rows([dict.fromkeys(three, 5.0)] * 3)
    assert level is not None and level.p == 1 and level.groups == (("a", "b", "c"),)
