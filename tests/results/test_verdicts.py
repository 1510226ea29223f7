"""Verdicts: the corrections and tests of SciPy and statsmodels, and how often they are wrong."""

import gc
import warnings
from pathlib import Path

import numpy as np
import pytest
from blocklab.results.statistics import (
    Comparison,
    Difference,
    compare,
    holm,
    paired_difference,
    plan_seeds,
    seeds_needed,
    sign_flip_p,
    summarise,
)
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower


def gap_of(values: list[float]) -> Difference:
    base = dict.fromkeys(range(len(values)), 0.0)
    found = paired_difference(dict(enumerate(values)), base)
    assert found is not None
    return found


def test_holm_by_hand_and_of_statsmodels() -> None:
    # sorted 0.01, 0.02, 0.04 times 3, 2, 1; each at least the one before
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    p_values = np.random.default_rng(3).uniform(0, 0.2, 40)
    expected = multipletests(p_values, method="holm")[1]
    assert holm(p_values.tolist()) == pytest.approx(expected.tolist())
    assert holm([]) == []


def test_each_verdict_has_its_row() -> None:
    verdicts = compare(
        {
            "up": gap_of([3.0, 3.1, 2.9, 3.05]),
            "down": gap_of([-3.0, -3.1, -2.9, -3.05]),
            "same": gap_of([0.3, -0.2, 0.1, -0.3]),
            "lone": gap_of([9.0]),
            "apart": None,
            "twin": gap_of([0.0, 0.0, 0.0]),
        },
        identical={"twin"},
    )
    assert {row: one.word for row, one in verdicts.items()} == {
        "up": "better",
        "down": "worse",
        "same": "no difference shown",
        "lone": "too few seeds",
        "apart": "too few seeds",
        "twin": "identical function",
    }
    # the family is the three rows that can be tested
    t = stats.ttest_1samp([3.0, 3.1, 2.9, 3.05], 0.0)
    down = stats.ttest_1samp([-3.0, -3.1, -2.9, -3.05], 0.0)
    expected = multipletests(
        [t.pvalue, down.pvalue, stats.ttest_1samp([0.3, -0.2, 0.1, -0.3], 0.0).pvalue],
        method="holm",
    )[1]
    found = [verdicts[row].p_holm for row in ("up", "down", "same")]
    assert found == pytest.approx(expected.tolist())
    assert verdicts["lone"].p_holm is None
    assert verdicts["up"].rows == 3


def test_a_row_shown_alone_may_not_be_shown_among_many() -> None:
    values = [1.0, 1.4, 0.7]
    p = stats.ttest_1samp(values, 0.0).pvalue
    assert 0.02 < p < 0.05
    assert compare({"only": gap_of(values)})["only"].word == "better"
    noise = {f"n{i}": gap_of([0.1 * i, -0.3, 0.2]) for i in range(5)}
    among = compare({"one": gap_of(values)} | noise)["one"]
    assert (among.word, among.reason) == (
        "no difference shown",
        "shown alone, but not among this many rows",
    )
    assert among.p_holm == pytest.approx(6 * p)


def test_the_same_difference_on_each_seed_is_not_proof() -> None:
    # of few test images, equal differences are a matter of rounding
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compare({"row": gap_of([0.25, 0.25]), "other": gap_of([0.1, 0.4])})["row"]
        assert found.word == "no difference shown"
        assert "no spread" in found.reason
        assert (found.p_holm, found.seeds_alone, found.seeds_among_all) == (1.0, None, None)


@pytest.mark.parametrize("n", [2, 5, 6, 9])
def test_sign_flips_are_exact_and_need_six_seeds(n: int) -> None:
    values = np.random.default_rng(n).normal(0.5, 1.0, n)
    found = sign_flip_p(values.tolist())
    if n < 6:
        assert found is None
        return
    signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    flipped = np.abs((signs * values).mean(1))
    assert found == pytest.approx((flipped >= abs(values.mean()) - 1e-12).mean())
    assert sign_flip_p([1.0] * n) == pytest.approx(2 / 2**n)


def test_many_sign_flips_are_drawn_from_a_fixed_seed() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, 20).tolist()
    assert sign_flip_p(values) == sign_flip_p(values)


@pytest.mark.parametrize("sd", [0.1, 0.25, 0.35, 0.7, 2.0])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 40])
def test_seeds_needed_is_the_first_number_with_the_power(sd: float, alpha: float) -> None:
    seeds = seeds_needed(sd, 0.5, 0.8, alpha)
    assert seeds is not None
    # solve_power gives the number of seeds with a fraction; the far tail does not matter here
    solved = TTestPower().solve_power(0.5 / sd, power=0.8, alpha=alpha / 2, alternative="larger")
    if seeds > 4:
        assert seeds == int(np.ceil(solved))
    noise = np.random.default_rng(1).normal(0.5, sd, (20_000, seeds))
    shown = (stats.ttest_1samp(noise, 0, axis=1).pvalue < alpha).mean()
    assert shown > 0.78
    if seeds > 2:
        fewer = (stats.ttest_1samp(noise[:, 1:], 0, axis=1).pvalue < alpha).mean()
        assert fewer < 0.82


def test_seeds_needed_at_the_ends() -> None:
    assert seeds_needed(0.0) == 2
    assert seeds_needed(1e-6) == 2
    assert seeds_needed(1e3) is None


def test_planning_pools_all_tested_rows() -> None:
    gaps = {"a": gap_of([0.0, 1.0, 2.0]), "b": gap_of([0.0, 3.0]), "c": gap_of([5.0])}
    plan = plan_seeds(compare(gaps).values())
    assert plan is not None
    # two degrees of freedom with variance 1, one with 4.5
    assert (plan.sd, plan.df, plan.rows) == (pytest.approx(6.5**0.5 / 3**0.5), 3, 2)
    assert plan.seeds_alone == seeds_needed(plan.sd)
    assert plan.seeds_among_all == seeds_needed(plan.sd, alpha=0.025)
    assert plan_seeds([Comparison("too few seeds")]) is None


def null_studies(
    studies: int, rows: int, seeds: int, rng: np.random.Generator, images: int | None = None
) -> np.ndarray:
    """Differences to a baseline that all rows share, none of which is real: (studies, rows, seeds).

    `images` rounds accuracies to a test set of that size, as counting does.
    """
    accuracy = rng.normal(60.0, 0.25, (studies, rows + 1, seeds))
    if images:
        accuracy = np.round(accuracy * images / 100) * 100 / images
    return accuracy[:, 1:] - accuracy[:, :1]


@pytest.mark.parametrize(
    ("seeds", "images", "studies"),
    [
        (2, None, 2000),
        (3, 10_000, 2000),
        (3, 360, 2000),
        (10, None, 1000),
        pytest.param(3, None, 100_000, marks=pytest.mark.slow),
        pytest.param(5, 10_000, 100_000, marks=pytest.mark.slow),
    ],
)
def test_a_study_of_forty_rows_is_rarely_wrong(
    seeds: int, images: int | None, studies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # statsmodels collects garbage in each call, which is slow among so many
    monkeypatch.setattr(gc, "collect", int)
    rng = np.random.default_rng(2025)
    gaps = null_studies(studies, 40, seeds, rng, images)
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rows without spread, which never count as shown
        p = np.asarray(stats.ttest_1samp(gaps, 0.0, axis=2).pvalue)
    p[np.ptp(gaps, axis=2) < 1e-9] = 1.0
    wrong = p.min(axis=1) * 40 < 0.05  # Holm rejects something just where Bonferroni does
    # the shortcut says what `compare` says, on the studies where it matters and on some others
    looked_at = [*np.flatnonzero(wrong)[:5], *range(3)]
    for study in looked_at:
        verdicts = compare({str(row): gap_of(v.tolist()) for row, v in enumerate(gaps[study])})
        said = {one.word for one in verdicts.values()} & {"better", "worse"}
        assert bool(said) == wrong[study]
    # 5 % and no more, as far as this many made-up studies can tell
    assert wrong.mean() <= 0.05 + 2 * (0.05 * 0.95 / studies) ** 0.5


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_intervals_cover_what_they_say(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    ours, theirs = rng.normal(61.0, 0.3, (2000, seeds)), rng.normal(60.0, 0.2, (2000, seeds))
    held = {"mean": 0, "difference": 0}
    for mine, other in zip(ours, theirs, strict=True):
        summary = summarise(mine.tolist())
        gap = paired_difference(dict(enumerate(mine)), dict(enumerate(other)))
        assert gap is not None and summary.low is not None and summary.high is not None
        assert gap.low is not None and gap.high is not None
        held["mean"] += summary.low <= 61.0 <= summary.high
        held["difference"] += gap.low <= 1.0 <= gap.high
    for covered in held.values():
        assert 0.93 <= covered / 2000 <= 0.97


def test_the_documentation_has_the_numbers_of_seeds() -> None:
    text = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text(encoding="utf-8")
    table = text.partition("| SD of differences |")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(table) == 5
    for line in table:
        sd, *seeds = (float(cell) for cell in line.strip("|").split("|"))
        asked = [(1.0, 1), (0.5, 1), (0.2, 1), (0.5, 10), (0.5, 40)]
        assert seeds == [seeds_needed(sd, gain, alpha=0.05 / rows) for gain, rows in asked]


def test_a_baseline_that_never_learned_is_named_and_rows_without_runs_are_not_at_chance() -> None:
    gaps = {"low": gap_of([1.0, 1.1]), "learned": gap_of([5.0, 5.1]), "not run": None}
    found = compare(gaps, at_chance={"low"}, baseline_at_chance=True)
    assert {row: one.word for row, one in found.items()} == {
        "low": "at chance",
        "learned": "baseline at chance",
        "not run": "too few seeds",
    }
