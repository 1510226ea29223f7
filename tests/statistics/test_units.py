"""A metric's unit changes no verdict: of cycles by the hundred million, or of a rate of errors."""

import pytest

from blocklab.statistics.contrasts import pool_rows
from blocklab.statistics.family import BETTER, compare_rows
from blocklab.statistics.pairs import all_pairs
from blocklab.statistics.summary import summarise

ROWS = {"plain": [1.0, 1.1, 1.05], "se": [5.0, 5.1, 5.05], "eca": [1.02, 1.07, 1.09]}


@pytest.mark.parametrize("unit", [1e-12, 1e-10, 1.0, 1e8, 1e12])
def test_verdicts_are_those_of_any_unit(unit: float) -> None:
    values = {row: {i: unit * one for i, one in enumerate(of)} for row, of in ROWS.items()}
    found, usual = compare_rows(values, "plain"), compare_rows(_plain(), "plain")
    assert found.comparisons["se"].word == BETTER
    for row, one in found.comparisons.items():
        assert (one.word, one.p) == (
            usual.comparisons[row].word,
            pytest.approx(usual.comparisons[row].p),
        )
    pool, plain = pool_rows(values), pool_rows(_plain())
    assert pool.sd == pytest.approx(unit * (plain.sd or 0))
    low, _ = all_pairs(pool).interval("se", "plain") or (0, 0)
    assert low == pytest.approx(unit * (all_pairs(plain).interval("se", "plain") or (0, 0))[0])


@pytest.mark.parametrize("figure", [0.0, 1e-10, 65.43, 12345678.9, 98765432.1, 1e15 / 3])
def test_equal_seeds_show_no_spread(figure: float) -> None:
    """However large they are: what sums of them leave is rounding."""
    for seeds in (3, 6, 7):
        values = {
            row: dict.fromkeys(range(seeds), figure * by)
            for row, by in (("plain", 1), ("se", 1.0000001), ("eca", 1.0000002))
        }
        family = compare_rows(values, "plain")
        assert family.method == "none"
        assert {one.p for one in family.comparisons.values()} == {None}
        pool = pool_rows(values)
        assert pool.sd == 0.0 and all_pairs(pool).interval("se", "plain") is None
        contrast = pool.contrast({"se": 1.0, "plain": -1.0})
        assert contrast and contrast.error in (None, 0.0)
        assert summarise([figure] * seeds).low is None


def _plain() -> dict[str, dict[int, float]]:
    return {row: dict(enumerate(of)) for row, of in ROWS.items()}
