"""As good and not worse: read off the intervals, as two one-sided tests of statsmodels decide."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.weightstats import ttost_ind

from blocklab.statistics.equivalence import with_margin
from blocklab.statistics.family import Family, compare_rows


def judge(rows: dict[str, list[float]], higher_is_better: bool = True) -> Family:
    values = {row: dict(enumerate(seeds)) for row, seeds in rows.items()}
    return compare_rows(values, next(iter(rows)), higher_is_better=higher_is_better)


def shifted(by: float, spread: float = 0.1) -> list[float]:
    return [60 + by - spread, 60 + by, 60 + by + spread]


ROWS = {
    "base": shifted(0),
    "up": shifted(1),
    "slightly up": shifted(0.3),
    "slightly down": shifted(-0.3),
    "level": shifted(0.05),
    "perhaps up": shifted(0.2),
    "down": shifted(-1),
    "perhaps down": shifted(-0.2),
}


def test_each_word_has_its_interval() -> None:
    found = with_margin(judge(ROWS), 0.35).comparisons
    words = {row: one.word for row, one in found.items()}
    half = found["up"].difference.high - 1  # type: ignore[union-attr, operator]
    assert 0.2 < half < 0.27
    assert words == {
        "up": "better",
        "slightly up": "better",
        "slightly down": "worse",
        "level": "as good",
        "perhaps up": "not worse",
        "down": "worse",
        "perhaps down": "no difference shown",
    }
    assert found["up"].reason == ""
    assert found["level"].reason == "within the margin of 0.35"
    assert found["perhaps up"].reason == "worse by less than 0.35, or better"
    wide = with_margin(judge(ROWS), 0.6).comparisons
    for row, word in (("slightly up", "better"), ("slightly down", "worse")):
        assert (wide[row].word, wide[row].reason) == (word, "within the margin of 0.6")
    assert {wide[row].word for row in ("perhaps up", "perhaps down")} == {"as good"}


def test_of_a_loss_the_margin_is_above() -> None:
    found = with_margin(judge(ROWS, higher_is_better=False), 0.35, higher_is_better=False)
    words = {row: one.word for row, one in found.comparisons.items()}
    assert (words["up"], words["level"]) == ("worse", "as good")
    assert words["perhaps down"] == "not worse"
    assert words["perhaps up"] == "no difference shown"


def test_one_row_is_as_good_just_where_two_one_sided_tests_say_so() -> None:
    rng = np.random.default_rng(3)
    seen = {True: 0, False: 0}
    for _ in range(60):
        ours, theirs = rng.normal(60, 0.15, (2, 4))
        family = with_margin(judge({"base": theirs.tolist(), "row": ours.tolist()}), 0.35)
        if family.method != "pooled":
            continue
        shown = stats.ttest_ind(ours, theirs)[1] < 0.05  # type: ignore[operator]
        as_good = ttost_ind(ours, theirs, -0.35, 0.35)[0] < 0.025
        one = family.comparisons["row"]
        assert (one.word == "as good") == (as_good and not shown)
        seen[as_good] += 1
    assert min(seen.values()) > 5


def test_what_was_not_tested_stays_as_it_is() -> None:
    rows = ROWS | {"lone": [60.0], "flat": [60.0, 60.0, 60.0]}
    found = with_margin(judge(rows), 5).comparisons
    assert found["lone"].word == "too few seeds"
    still = {"base": [60.0] * 3, "row": [60.1] * 3}
    assert with_margin(judge(still), 5).comparisons["row"].word == "no difference shown"
    for margin in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="more than 0"):
            with_margin(judge(ROWS), margin)
    assert "within 0.35 of the baseline" in " ".join(with_margin(judge(ROWS), 0.35).sentences)
    assert "as good" not in " ".join(judge(ROWS).sentences).lower()


@pytest.mark.parametrize("seeds", [2, 4])
def test_words_are_rarely_wrong_of_any_row(seeds: int) -> None:
    rng, studies = np.random.default_rng(seeds), 150
    true = {"same": 0.0, "half up": 0.5, "half down": -0.5, "same too": 0.0, "down": -0.5}
    false = {0.0: {"better", "worse"}, 0.5: {"as good", "worse"}, -0.5: {"as good", "not worse"}}
    false[-0.5].add("better")
    wrong = 0
    for _ in range(studies):
        values = {row: rng.normal(60 + gap, 0.2, seeds) for row, gap in true.items()}
        family = judge(
            {"base": rng.normal(60, 0.2, seeds).tolist()}
            | {r: v.tolist() for r, v in values.items()}
        )
        found = with_margin(family, 0.5).comparisons
        wrong += any(found[row].word in false[gap] for row, gap in true.items())
    assert wrong / studies <= 0.05 + 2 * (0.05 * 0.95 / studies) ** 0.5
