"""One study on several data sets: what is said over all of them, and how it is shown."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from blocklab.report.index import write_index
from blocklab.results.over_datasets import OverDatasets
from blocklab.results.study_results import StudyResults

MakeResults = Callable[..., StudyResults]
Top1 = dict[str, list[float | str | None]]

CLEAR: list[Top1] = [
    {"base": [50.0, 50.2, 50.1], "up": [53.0, 53.3, 53.1], "even": [50.2, 50.0, 50.1]},
    {"base": [90.0, 90.4, 90.1], "up": [91.4, 91.6, 91.9], "even": [90.2, 90.3, 90.0]},
    {"base": [20.0, 22.0, 21.0], "up": [29.0, 28.5, 27.0], "even": [20.5, 21.5, 21.0]},
]


def _over(make: MakeResults, tables: list[Top1], claims: tuple[str, ...] = ()) -> OverDatasets:
    names = tuple(f"d{number}" for number in range(len(tables)))
    return OverDatasets("Over", names, tuple(make(table) for table in tables), claims)


def test_gains_are_means_over_data_sets_with_intervals_that_agree(
    make_results: MakeResults,
) -> None:
    over = _over(make_results, CLEAR)
    base, up, even = over.rows
    assert base.means == pytest.approx((50.1, 90.16667, 21), abs=1e-4) and base.gain is None
    gaps = [np.mean(table["up"]) - np.mean(table["base"]) for table in CLEAR]
    assert up.gain == pytest.approx(np.mean(gaps))
    parts = [np.var(table[row], ddof=1) / 3 / 9 for table in CLEAR for row in ("up", "base")]
    df = sum(parts) ** 2 / sum(part**2 / 2 for part in parts)
    error = sum(parts) ** 0.5
    half = stats.t.isf(0.05 / 2 / 2, df) * error  # of two rows at once
    assert up.interval == pytest.approx((up.gain - half, up.gain + half))
    assert up.p == pytest.approx(min(1, 2 * 2 * stats.t.sf(up.gain / error, df)))
    elsewhere = stats.ttest_1samp(gaps, 0).confidence_interval()
    assert up.elsewhere == pytest.approx(tuple(elsewhere))
    assert (up.word, even.word) == ("better", "no difference shown")
    assert over.ranks is not None and up.rank == 1 and over.ranks.datasets == 3


def test_what_is_not_tested_says_why(make_results: MakeResults) -> None:
    gone = [CLEAR[0], {**CLEAR[1], "up": ["missing"], "even": [90.0, "missing", "missing"]}]
    _, up, even = _over(make_results, gone).rows
    assert (up.word, up.reason) == (
        "too few seeds",
        "no run of it or of the baseline has finished on d1",
    )
    assert up.gain is None and up.means[1] is None
    assert (even.word, even.reason) == (
        "too few seeds",
        "one seed on a data set has no spread to test against",
    )
    assert even.gain is not None and even.interval is None and even.elsewhere is None
    unfinished: Top1 = {**CLEAR[1], "up": ["missing"], "even": ["missing"]}
    of_three = _over(make_results, [*CLEAR[:2], unfinished])
    assert not [line for line in of_three.sentences if "Fewer than three" in line]
    assert (
        "Fewer than three data sets say nothing of others."
        in _over(make_results, CLEAR[:2]).sentences
    )
    level: Top1 = {"base": [50.0, 50.0], "up": [51.0, 51.0]}
    _, up = _over(make_results, [level, level]).rows
    assert up.word == "no difference shown" and up.interval is None
    baseless = _over(make_results, [{"base": ["missing"], "up": [1.0]}] * 2)
    assert baseless.rows[1].word == "too few seeds" and baseless.ranks is None
    assert baseless.sentences[0] == "Gains are means over 2 data sets, each of the same weight."


def test_claims_on_all_on_average_and_on_some(make_results: MakeResults) -> None:
    mixed = [CLEAR[0], CLEAR[1], {**CLEAR[2], "up": [15.0, 14.0, 13.0]}]
    claims = (
        "up > base on all",
        "up > base on average",
        "up > base on at least 1",
        "up > base by 0.5 on at least 2",
        "up < base on all",
        "even == base within 5 on all",
        "up == base within 0.5 on at least 2",
    )
    clear = {one.claim: one for one in _over(make_results, CLEAR, claims).judgements}
    assert [one.word for one in clear.values()] == [
        *("supported", "supported", "supported", "supported"),
        *("contradicted", "supported", "contradicted"),
    ]
    split = {one.claim: one for one in _over(make_results, mixed, claims).judgements}
    assert split["up > base on all"].word == "contradicted"
    assert split["up > base on at least 1"].word == "supported"
    assert split["up < base on all"].word == "contradicted"
    assert "so on 2 of 3" in split["up > base on all"].numbers
    weak = [CLEAR[0], {**CLEAR[1], "up": [88.0, 90.5, 92.5]}, mixed[2]]
    (unclear,) = _over(make_results, weak, ("up > base on at least 2",)).judgements
    assert unclear.word == "undecided", "where less is shown speaks for no more"
    # p of "all" is the largest of the data sets', of "at least 1" three times the smallest.
    alone = [stats.ttest_ind(t["up"], t["base"], equal_var=False).pvalue for t in CLEAR]
    assert clear["up > base on all"].p == pytest.approx(max(alone))
    assert clear["up > base on at least 1"].p == pytest.approx(3 * min(alone))
    assert clear["up > base on all"].p_holm >= clear["up > base on all"].p
    lost = [CLEAR[0], {**CLEAR[1], "up": ["missing"]}]
    (one,) = _over(make_results, lost, ("up > base on all",)).judgements
    assert (one.word, one.numbers, one.p) == ("undecided", "no finished run of a row on d1", None)


def test_the_page_of_all_shows_it(make_results: MakeResults, tmp_path: Path) -> None:
    over = _over(make_results, CLEAR, ("up > base on all",))
    entries = [(f"d{n}", one) for n, one in enumerate(over.results)]
    page = write_index(tmp_path / "over", entries, "Over", over).read_text()
    for said in (
        "<h2>Over the data sets</h2>",
        '<td><span class="better">better</span></td>',
        "Gains are means over 3 data sets",
        "Friedman",
        "<svg",
        "up &gt; base on all",
        "Data sets that were chosen are rarely one.",
    ):
        assert said in page
    assert (tmp_path / "over" / "figures" / "mean_ranks.png").stat().st_size > 1000
    base, up, _ = table = list(csv.DictReader((tmp_path / "over" / "over_datasets.csv").open()))
    assert len(table) == 3 and base["gain_top1_points_mean"] == base["verdict"] == ""
    assert float(base["test_top1_percent_mean on d1"]) == 90.17
    row = over.rows[1]
    assert row.interval and row.elsewhere and row.p
    assert float(up["gain_top1_points_mean"]) == round(row.gain or 0, 2) > 0
    assert float(up["gain_top1_points_low"]) == round(row.interval[0], 2)
    assert float(up["gain_top1_points_other_datasets_high"]) == round(row.elsewhere[1], 2)
    assert float(up["p"]) == pytest.approx(row.p, rel=1e-3)
    assert up["verdict"] == "better" and up["mean_rank"] == "1.0"
    two = _over(make_results, [{r: t[r] for r in ("base", "up")} for t in CLEAR[:2]])
    page = write_index(tmp_path / "over", entries[:2], "Over", two).read_text()
    assert "<svg" not in page and "Fewer than three data sets say nothing of others." in page
    assert not (tmp_path / "over" / "figures" / "mean_ranks.png").exists()
    assert "Over the data sets" not in write_index(tmp_path / "plain", entries, "P").read_text()
