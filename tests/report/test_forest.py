"""Differences drawn row by row: on one axis, cut where one row would squeeze all others."""

import re
from collections.abc import Callable

import pytest

from blocklab.report.forest import forest
from blocklab.results.study_results import StudyResults

MakeResults = Callable[..., StudyResults]


def place(cell: str, what: str) -> list[float]:
    return [float(value) for value in re.findall(rf'{what}="([\d.]+)%"', cell)]


def test_bars_and_dots_lie_where_they_belong(make_results: MakeResults) -> None:
    results = make_results({"plain": [76.0, 76.2, 76.1], "a": [78.0, 78.1, 78.3]})
    drawn = forest(results)
    assert drawn is not None and not drawn.cut
    gap = results.rows[1].difference
    assert gap is not None and gap.low is not None and gap.high is not None
    bar = re.search(r'<line class="bar"[^>]*>', drawn.cells["a"])
    assert bar is not None
    (low,), (high,), (dot,) = (
        place(bar.group(), "x1"),
        place(bar.group(), "x2"),
        place(drawn.cells["a"], "cx"),
    )
    assert high == pytest.approx(94, abs=0.1)  # the end of the axis
    assert (dot - 50) / (high - 50) == pytest.approx(gap.mean / gap.high, abs=0.01)
    assert (low - 50) / (high - 50) == pytest.approx(gap.low / gap.high, abs=0.01)
    assert 'class="forest better"' in drawn.cells["a"]
    assert 'aria-label="the baseline"' in drawn.cells["plain"]
    assert 'class="zero"' in drawn.cells["plain"] and "<circle" not in drawn.cells["plain"]


def test_one_far_row_is_cut_and_says_where_it_is(make_results: MakeResults) -> None:
    rows = {f"r{i}": [76.0 + i / 10, 76.2 + i / 10, 76.1 + i / 10] for i in range(5)}
    drawn = forest(make_results({**rows, "far": [20.0, 20.2, 20.1]}))
    assert drawn is not None and drawn.cut
    assert 'class="arrow"' in drawn.cells["far"] and "\u221256.00</text>" in drawn.cells["far"]
    assert "<circle" not in drawn.cells["far"]
    assert 'class="arrow"' not in drawn.cells["r4"] and "<circle" in drawn.cells["r4"]


def test_one_seed_is_a_ring_without_a_bar(make_results: MakeResults) -> None:
    drawn = forest(make_results({"plain": [76.0], "a": [78.0]}))
    assert drawn is not None
    assert 'class="mean alone"' in drawn.cells["a"] and 'class="bar"' not in drawn.cells["a"]
    assert forest(make_results({"plain": ["missing"], "a": ["missing"]})) is None
