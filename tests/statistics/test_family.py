"""A study's verdicts: how often they are wrong, and that intervals and words agree."""

import math
import warnings

import numpy as np
import pytest
from scipy import stats

from blocklab.statistics.dunnett import critical_value
from blocklab.statistics.family import BETTER, WORSE, Family, compare_rows
from blocklab.statistics.outlying import chance_of_failed_row, outlying_rows
from blocklab.statistics.spread import Layout, as_array, null_maxima, unevenness_p

EVEN = {
    "base": [60.0, 60.3, 60.5],
    "up": [63.0, 63.1, 62.6],
    "down": [57.0, 57.5, 57.2],
    "same": [60.4, 60.1, 60.6],
}


def judge(rows: dict[str, list[float]], **how: object) -> Family:
    values = {row: dict(enumerate(seeds)) for row, seeds in rows.items()}
    return compare_rows(values, next(iter(rows)), **how)  # type: ignore[arg-type]


def words(family: Family) -> dict[str, str]:
    return {row: one.word for row, one in family.comparisons.items()}


def test_each_verdict_has_its_row() -> None:
    lone = {"lone": [66.0], "apart": [], "twin": [60.0, 60.3, 60.5], "low": [1.0, 1.0, 1.1]}
    family = judge(EVEN | lone, identical={"twin"}, at_chance={"low"})
    assert words(family) == {
        "up": "better",
        "down": "worse",
        "same": "no difference shown",
        "lone": "too few seeds",
        "apart": "too few seeds",
        "twin": "identical function",
        "low": "at chance",
    }
    # what is not tested neither counts as a row nor lends its spread
    assert (family.method, family.rows, family.df) == ("pooled", 3, 8)
    alone = judge(EVEN)
    assert family.comparisons["up"] == alone.comparisons["up"]
    assert family.comparisons["lone"].p is None
    assert family.comparisons["apart"].reason == "no run has finished"


def test_a_baseline_without_a_run_is_what_is_said() -> None:
    rows = {"base": {}, "up": {0: 1.0, 1: 2.0, 2: 1.5}}
    reason = compare_rows(rows, "base").comparisons["up"].reason
    assert reason == "no run of the baseline has finished"


def test_how_uneven_rows_are_judged_is_said_of_pairs_too() -> None:
    wild = {
        "base": [70.0, 70.1, 69.9, 70.05, 69.95],
        "calm": [70.1, 70.2, 70.0, 70.15, 70.05],
        "wild": [60.0, 79.0, 75.0, 61.0, 72.0],
    }
    values = {row: dict(enumerate(seeds)) for row, seeds in wild.items()}
    for paired, said in ((True, "Student's test of its own differences"), (False, "Welch's test")):
        family = compare_rows(values, "base", paired=paired)
        assert family.method == "own" and said in " ".join(family.sentences)


def test_rows_of_one_function_are_one_row_to_the_test() -> None:
    """They would lend their spread, and count, several times."""
    alone = judge(EVEN)
    twins = {**EVEN, "again": EVEN["up"], "more": [*EVEN["same"], 60.2]}
    family = judge(twins, twins={"again": "up", "more": "same"})
    assert (family.rows, family.df) == (3, 9)  # the seed that one of them has beside is of both
    assert family.comparisons["again"] == family.comparisons["up"]
    assert family.comparisons["more"] == family.comparisons["same"]
    assert list(family.comparisons) == ["up", "down", "same", "again", "more"]
    twice = judge({**EVEN, "again": EVEN["up"]}, twins={"again": "up"})
    assert twice.comparisons["up"] == alone.comparisons["up"]
    assert judge({**EVEN, "again": EVEN["up"]}).df == 10 > twice.df == 8


def test_differences_p_values_and_intervals_are_dunnetts() -> None:
    family = judge(EVEN)
    spread = math.sqrt(np.mean([np.var(seeds, ddof=1) for seeds in EVEN.values()]))
    assert (family.sd, family.df) == (pytest.approx(spread), 8)
    expected = stats.dunnett(
        *(EVEN[row] for row in ("up", "down", "same")),
        control=EVEN["base"],
        rng=np.random.default_rng(0),
    )
    ends = expected.confidence_interval(0.95)
    for i, row in enumerate(("up", "down", "same")):
        gap = family.comparisons[row].difference
        assert gap is not None and gap.low is not None and gap.high is not None
        assert gap.p == pytest.approx(expected.pvalue[i], abs=2e-3)
        assert (gap.low, gap.high) == (
            pytest.approx(ends.low[i], abs=0.01),
            pytest.approx(ends.high[i], abs=0.01),
        )
        t = gap.mean / (spread * math.sqrt(2 / 3))
        assert gap.p_alone == pytest.approx(2 * stats.t.sf(abs(t), 8))


def test_lower_may_be_better_and_intervals_end_at_what_can_be() -> None:
    assert words(judge(EVEN, higher_is_better=False))["up"] == "worse"
    cut = judge(EVEN, bounds=(-2.9, 2.5)).comparisons
    assert cut["up"].difference is not None and cut["up"].difference.high == 2.5
    assert cut["down"].difference is not None and cut["down"].difference.low == -2.9


def test_more_rows_ask_for_more() -> None:
    rng = np.random.default_rng(0)
    few = {"base": [60.0, 60.2, 60.4], "one": [60.65, 60.5, 60.75]}
    assert words(judge(few))["one"] == "better"
    noise = {f"n{i}": (60.2 + rng.normal(0, 0.2, 3)).tolist() for i in range(60)}
    among = judge(few | noise).comparisons["one"]
    assert among.word == "no difference shown"
    assert among.reason == "shown before the correction for so many rows, not after"
    assert among.p is not None and among.difference is not None
    assert among.difference.p_alone is not None
    assert among.difference.p_alone < 0.05 < among.p


def test_no_spread_is_no_proof() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = judge({"base": [60.0, 60.0], "row": [61.0, 61.0]}).comparisons["row"]
    assert (one.word, one.p) == ("no difference shown", None)
    assert "no spread" in one.reason
    # one row without spread among others is judged by theirs
    family = judge(EVEN | {"still": [60.1, 60.1, 60.1]})
    assert family.comparisons["still"].p is not None


def test_a_baseline_that_never_learned_is_named_and_rows_without_runs_are_not_at_chance() -> None:
    rows = {"base": [1.0, 1.0], "low": [1.0, 1.1], "learned": [5.0, 5.1], "not run": []}
    assert words(judge(rows, at_chance={"base", "low"})) == {
        "low": "at chance",
        "learned": "baseline at chance",
        "not run": "too few seeds",
    }


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_cannot_be_averaged_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="cannot average"):
        judge(EVEN | {"bad": [1.0, value]})


# Seeds as blocks


def test_paired_by_seed_is_the_two_way_analysis_with_blocks() -> None:
    shift = np.array([0.0, 5.0, -3.0, 1.0])
    rng = np.random.default_rng(5)
    rows = {name: (60 + shift + rng.normal(0, 0.2, 4)) for name in ("base", "a", "b", "c")}
    rows["a"] = rows["a"] + 1.5
    given = {name: seeds.tolist() for name, seeds in rows.items()}
    family = judge(given, paired=True)
    table = np.stack(list(rows.values()))
    left = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    assert family.df == 9 and family.sd is not None
    assert family.sd == pytest.approx(math.sqrt((left**2).sum() / 9))
    gap = family.comparisons["a"].difference
    assert gap is not None and gap.low is not None
    assert gap.values == pytest.approx(tuple(rows["a"] - rows["base"]))
    half = critical_value(0.05, [4] * 3, 4, 9) * family.sd * math.sqrt(2 / 4)
    assert gap.mean - gap.low == pytest.approx(half)
    assert words(family)["a"] == "better"
    assert words(judge(given))["a"] == "no difference shown"  # the seeds' own shifts hide it


def test_paired_of_two_rows_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(2)
    ours, theirs = rng.normal(60.3, 0.3, 6).tolist(), rng.normal(60, 0.3, 6).tolist()
    one = judge({"base": theirs, "row": ours}, paired=True).comparisons["row"]
    expected = stats.ttest_rel(ours, theirs)
    interval = expected.confidence_interval(0.95)
    assert one.p == pytest.approx(expected.pvalue)
    assert one.difference is not None
    assert (one.difference.low, one.difference.high) == pytest.approx(tuple(interval))


def test_paired_takes_the_seeds_that_all_rows_have() -> None:
    values = {
        "base": {0: 60.0, 1: 60.2, 2: 60.4, 3: 60.1},
        "full": {0: 61.0, 1: 61.3, 2: 61.3, 3: 61.2},
        "part": {1: 60.1, 2: 60.5, 3: 60.2},
        "none": {7: 60.0, 8: 60.0},
    }
    family = compare_rows(values, "base", paired=True)
    gap = family.comparisons["full"].difference
    assert gap is not None and (gap.n, gap.n_baseline) == (3, 3)
    assert gap.mean == pytest.approx((1.1 + 0.9 + 1.1) / 3)
    assert family.comparisons["none"].word == "too few seeds"
    assert "shares no finished seed" in family.comparisons["none"].reason
    apart = {"base": {0: 1.0, 1: 2.0, 2: 1.5, 3: 1.4}, "a": {0: 1.0, 1: 2.0}, "b": {2: 1.0, 3: 2.0}}
    family = compare_rows(apart, "base", paired=True)
    assert {one.word for one in family.comparisons.values()} == {"too few seeds"}
    assert "no two seeds" in family.comparisons["a"].reason


# Uneven spreads


def test_unlike_spreads_are_seen_whatever_the_differences() -> None:
    rng = np.random.default_rng(0)
    even = [rng.normal(60, 0.3, 4).tolist() for _ in range(8)]
    layout = Layout((4,) * 8)
    p = unevenness_p(layout, as_array(even))
    assert p > 0.3
    moved = [[value + 10 * i for value in row] for i, row in enumerate(even)]
    assert unevenness_p(layout, as_array(moved)) == p
    even[3] = [60.0, 71.0, 49.0, 55.0]
    assert unevenness_p(layout, as_array(even)) < 0.001
    # rows of different length are compared by their own degrees of freedom
    mixed = Layout((2, 3, 5, 9))
    rows = [rng.normal(0, 1, n).tolist() for n in mixed.counts]
    assert 0.01 < unevenness_p(mixed, as_array(rows)) < 1


@pytest.mark.parametrize("blocks", [False, True])
def test_the_guard_fires_as_often_as_it_says(blocks: bool) -> None:
    rng = np.random.default_rng(3)
    layout = Layout((3,) * 6, blocks)
    found = np.array([unevenness_p(layout, one) for one in rng.normal(size=(1500, 6, 3))])
    assert (found < 0.3).mean() == pytest.approx(0.3, abs=0.04)
    assert (found < 0.05).mean() == pytest.approx(0.05, abs=0.02)


def test_made_studies_of_even_normal_rows_reach_what_dunnett_says() -> None:
    rng = np.random.default_rng(4)
    layout = Layout((30,) * 5)
    maxima = null_maxima(layout, rng.normal(size=(5, 30)))
    assert np.quantile(maxima, 0.95) == pytest.approx(
        critical_value(0.05, [30] * 4, 30, layout.df), abs=0.12
    )


def test_two_seeds_of_unlike_rows_are_too_few() -> None:
    rows = {"base": [60.0, 60.1], "a": [63.0, 63.1], "wild": [40.0, 75.0], "b": [60.0, 60.2]}
    family = judge(rows)
    assert set(words(family).values()) == {"too few seeds"}
    assert "three or more" in family.comparisons["a"].reason
    assert family.rows == 0
    assert "Two seeds say too little" in family.sentences[1]
    # a row of three beside them is still judged if the baseline has three
    rows = {"base": [60.0, 60.1, 60.3], "two": [63.0, 63.1], "wild": [40.0, 75.0, 10.0]}
    found = words(judge(rows))
    assert (found["two"], found["wild"]) == ("too few seeds", "no difference shown")


def failed(seeds: int, studies: int = 1, rows: int = 5) -> np.ndarray:
    """Studies of even rows, the first two of which gain 4 SDs; one seed of the last has failed."""
    values = np.random.default_rng(seeds).normal(60, 0.25, (studies, rows + 1, seeds))
    values[:, 1:3] += 1.0
    values[:, -1, 0] -= 10
    return values


def test_a_row_with_a_failed_seed_is_set_apart_and_hides_nothing() -> None:
    found = [judge({str(i): r.tolist() for i, r in enumerate(one)}) for one in failed(3, 20)]
    apart = [family for family in found if family.apart]
    assert len(apart) >= 12
    assert all(words(family)["5"] == "too few seeds" for family in apart)
    shown = [words(family)[row] == "better" for family in apart for row in ("1", "2")]
    assert np.mean(shown) > 0.8
    family = apart[0]
    assert (family.method, family.apart, family.rows) == ("pooled", ("5",), 5)
    assert family.df == 10  # of five rows, the baseline among them
    assert "five or more" in family.comparisons["5"].reason
    assert family.sentences[0].startswith("5: set apart, for its seeds scatter far beyond")
    gap = family.comparisons["1"].difference
    assert gap is not None and gap.low is not None and family.sd is not None
    # the family stays one of five rows, with a little less of alpha for a row that failed unseen
    lost = chance_of_failed_row(Layout((3,) * 6), 1)
    assert lost == pytest.approx(6 / 18**3)
    half = critical_value(0.05 - lost, [3] * 5, 3, 10) * family.sd * math.sqrt(2 / 3)
    assert gap.mean - gap.low == pytest.approx(half)
    assert family.critical is not None and family.stretch > 1


def test_from_five_seeds_on_a_row_set_apart_is_judged_by_its_own_spread() -> None:
    judged = [(one, judge({str(i): r.tolist() for i, r in enumerate(one)})) for one in failed(6, 9)]
    one, family = next((one, family) for one, family in judged if family.apart)
    assert family.apart == ("5",)
    assert words(family)["1"] == words(family)["2"] == "better"
    gap = family.comparisons["5"].difference
    own_p = float(np.asarray(stats.ttest_ind(one[5], one[0], equal_var=False))[1])
    assert gap is not None and gap.p_alone == pytest.approx(own_p)
    assert gap.p == pytest.approx(min(1, 5 * own_p))
    assert "judged by Welch's test" in family.sentences[0]


def test_very_uneven_rows_of_five_seeds_are_judged_by_welchs_test() -> None:
    rng = np.random.default_rng(3)
    rows = {str(i): rng.normal(60, sd, 5).tolist() for i, sd in enumerate((0.1, 0.1, 0.6, 1.0))}
    rows["1"] = [value + 1.5 for value in rows["1"]]
    family = judge(rows)
    assert (family.method, family.apart) == ("own", ())
    own = stats.ttest_ind(rows["1"], rows["0"], equal_var=False)
    own_p = float(np.asarray(own)[1])
    gap, interval = family.comparisons["1"].difference, own.confidence_interval(1 - 0.05 / 3)
    assert gap is not None and gap.p == pytest.approx(3 * own_p)
    assert (gap.low, gap.high) == pytest.approx(tuple(interval))
    assert words(family)["1"] == "better"
    assert "Welch's test" in family.sentences[1]


def test_what_is_outlying() -> None:
    rng = np.random.default_rng(0)
    layout = Layout((4,) * 9)
    even = rng.normal(size=(3000, 9, 4))
    assert outlying_rows(layout, even).any(-1).mean() < 0.002
    even[:, 2, 1] += 40
    assert outlying_rows(layout, even)[:, 2].mean() > 0.99
    assert outlying_rows(layout, even)[:, [0, 1, *range(3, 9)]].mean() < 0.002
    # half of the rows without any spread: nothing is known
    still = np.zeros((9, 4))
    still[:3] = rng.normal(size=(3, 4))
    assert not outlying_rows(layout, still).any()
    # a baseline that is outlying leaves nothing to compare the others with by their spread
    rows = {str(i): row.tolist() for i, row in enumerate(even[0])}
    assert judge({"2": rows["2"], **rows}).apart == ()
    # nor do many failed seeds of few: some other row's may all have failed
    many = rng.normal(size=(20, 3))
    many[4:13, 0] -= 40
    assert judge({str(i): row.tolist() for i, row in enumerate(many)}).apart == ()


def test_a_scattered_row_may_have_more_seeds_than_the_others() -> None:
    rng = np.random.default_rng(1)
    rows = {str(i): rng.normal(60, 0.2, 4).tolist() for i in range(8)}
    rows["up"] = [62.0, 62.3, 62.1, 61.9]
    rows["wild"] = [60.0, 5.0, 61.0, 90.0, 1.0]
    family = judge(rows)
    assert family.apart == ("wild",)
    assert family.comparisons["up"].word == "better"


def draws(kind: str, shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """Studies of standardised seeds, none of whose rows differs in its mean."""
    if kind == "t3":
        return rng.standard_t(3, shape)
    if kind == "lognormal":
        return np.exp(0.5) - np.exp(rng.normal(size=shape))
    if kind == "failing":
        return rng.normal(size=shape) - 20 * (rng.random(shape) < 0.1)
    if kind == "uneven":
        return rng.normal(size=shape) * np.exp(0.8 * rng.normal(size=(*shape[:2], 1)))
    return rng.normal(size=shape)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("kind", ["normal", "t3", "lognormal", "failing", "uneven"])
def test_a_study_without_differences_is_rarely_wrong(kind: str, seeds: int) -> None:
    studies, rows = 200, 10
    rng = np.random.default_rng(seeds)
    wrong = 0
    for one in draws(kind, (studies, rows + 1, seeds), rng):
        # Only studies that a pooled spread alone would judge wrong can be judged wrong.
        means, variance = one.mean(1), one.var(1, ddof=1).mean()
        t = np.abs(means[1:] - means[0]).max() / math.sqrt(variance * 2 / seeds)
        if t <= critical_value(0.05, [seeds] * rows, seeds, (rows + 1) * (seeds - 1)):
            continue
        family = judge({str(i): row.tolist() for i, row in enumerate(one)})
        wrong += bool({"better", "worse"} & set(words(family).values()))
        for comparison in family.comparisons.values():
            gap = comparison.difference
            assert gap is not None
            if gap.low is not None and gap.high is not None and gap.p is not None:
                shown = comparison.word in ("better", "worse")
                assert shown == (not gap.low <= 0 <= gap.high) == (gap.p < 0.05)
    assert wrong / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)


def test_a_gain_of_a_point_is_shown_among_forty_rows_by_three_seeds() -> None:
    rng = np.random.default_rng(7)
    shown, studies = 0, 12
    for one in rng.normal(0, 0.25, (studies, 41, 3)):
        one[1] += 1.0
        family = judge({str(i): row.tolist() for i, row in enumerate(one)})
        shown += family.comparisons["1"].word == "better"
    assert shown >= 10


def test_a_row_with_fewer_seeds_that_scatter_more_is_asked_welchs_test_too() -> None:
    """What seeds that are gone leave: eight rows, three of three seeds that scatter most."""
    counts, sds = (10, 5, 5, 5, 5, 5, 3, 3, 3), (1.0,) * 6 + (3.0,) * 3
    wrong, asked = 0, 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        values = {
            str(row): dict(enumerate((sd * rng.normal(size=n)).tolist()))
            for row, (n, sd) in enumerate(zip(counts, sds, strict=True))
        }
        family = compare_rows(values, "0")
        if family.method != "uneven":
            continue
        asked += 1
        wrong += any(one.word in (BETTER, WORSE) for one in family.comparisons.values())
        if asked > 20:
            continue
        assert any("Welch's test as well" in sentence for sentence in family.sentences)
        base = list(values["0"].values())
        for row, one in family.comparisons.items():
            seeds = list(values[row].values())
            welch = min(1.0, 8 * float(stats.ttest_ind(seeds, base, equal_var=False).pvalue))
            gap = one.difference
            assert gap and gap.p is not None and gap.low is not None and gap.high is not None
            if len(seeds) == 3 and np.std(seeds, ddof=1) > (family.sd or 0.0):
                assert gap.p >= welch * (1 - 1e-9)
            assert (gap.p < 0.05) == (gap.low > 0 or gap.high < 0)
    assert asked > 200 and wrong < 0.05 * asked


@pytest.mark.parametrize(
    ("counts", "sds"),
    [((6, *[3] * 8), (1.0,) * 8 + (3.0,)), ((16, 3, 3, 3), (1.0, 2.0, 2.0, 2.0))],
    ids=["a first look", "rows that came later"],
)
def test_a_row_with_fewer_seeds_than_the_baseline_is_asked_welchs_test_too(
    counts: tuple[int, ...], sds: tuple[float, ...]
) -> None:
    wrong, asked = 0, 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        values = {
            str(row): dict(enumerate((sd * rng.normal(size=n)).tolist()))
            for row, (n, sd) in enumerate(zip(counts, sds, strict=True))
        }
        family = compare_rows(values, "0")
        if family.method != "uneven":
            continue
        asked += 1
        wrong += any(one.word in (BETTER, WORSE) for one in family.comparisons.values())
        base = list(values["0"].values())
        for row, one in family.comparisons.items():
            seeds = list(values[row].values())
            welch = float(stats.ttest_ind(seeds, base, equal_var=False).pvalue)
            if np.std(seeds, ddof=1) > (family.sd or 0.0):
                assert one.p is not None and one.p >= min(1.0, family.rows * welch) * (1 - 1e-9)
        assert any("Welch's test as well" in sentence for sentence in family.sentences)
    assert asked > 60 and wrong <= 0.05 * asked
