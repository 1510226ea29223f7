"""The sentence at the top of the page, for every kind of outcome."""

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from blocklab.report.answer import answer, in_words, listed, verdict_counts
from blocklab.results.study_results import StudyResults

MakeResults = Callable[..., StudyResults]
PLAIN = [76.0, 76.2, 76.1]
UP, DOWN, SAME = [78.0, 78.1, 78.3], [72.0, 72.2, 72.4], [76.1, 76.0, 76.3]


def said(results: StudyResults) -> str:
    return answer(results).partition(" The highest")[0]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            {"plain": PLAIN, "a": UP, "b": DOWN, "c": SAME, "d": SAME},
            "Of four models, one is better than plain (a), one is worse (b), and two cannot be "
            "told apart from it with 3 seeds.",
        ),
        (
            {"plain": PLAIN, "b": DOWN, "c": SAME},
            "Of two models, one is worse than plain (b) and one cannot be told apart from it "
            "with 3 seeds.",
        ),
        ({"plain": PLAIN, "a": UP, "b": UP}, "Both models are better than plain (a and b)."),
        (
            {"plain": PLAIN, "c": SAME, "d": SAME, "e": SAME},
            "None of three models can be told apart from plain with 3 seeds.",
        ),
        (
            {"plain": PLAIN, "c": [*SAME[:2], "missing"]},
            "c cannot be told apart from plain with 2 seeds: -0.05 [-0.32, +0.22] points.",
        ),
        (
            {"plain": PLAIN, "c": SAME, "one": [76.4, "missing", "missing"]},
            "Of two models, one cannot be told apart from plain with 3 seeds and one has too few "
            "seeds to tell.",
        ),
        (
            {"plain": [76.0], "a": [78.0], "b": [72.0]},
            "None of two models can be called better or worse than plain: there is one seed a "
            "row, and one shows no spread.",
        ),
        (
            {"plain": [18.0, 19.0], "a": [30.0, 39.0], "b": [48.6, 48.61]},
            "None of two models can be called better or worse than plain: the rows' spreads "
            "differ, and two seeds say too little of each; three or more do.",
        ),
        ({"plain": ["missing"], "a": ["missing"]}, "No run has finished yet."),
    ],
)
def test_each_outcome_has_its_sentence(
    make_results: MakeResults, rows: dict[str, list[float | str | None]], expected: str
) -> None:
    assert said(make_results(rows)).replace("\u2212", "-") == expected


def test_the_highest_mean_is_named_whatever_the_verdicts(make_results: MakeResults) -> None:
    results = make_results({"plain": [76.0, 77.0], "b": [72.0, 72.2]}, baseline=None)
    assert answer(results) == "The highest mean top-1 is 76.50 \u00b1 0.71 %, of plain."


@pytest.mark.parametrize(
    ("rows", "last"),
    [
        ({"a": SAME, "b": DOWN}, "76.13 \u00b1 0.15 %, of a, not shown to be better than plain."),
        (
            {"a": SAME, "b": SAME[::-1]},
            "76.13 \u00b1 0.15 %, of a and b, not shown to be better than plain.",
        ),
        (
            {"a": SAME, "b": [76.0, 76.0, 76.4]},
            "76.13 %, of a and b, not shown to be better than plain.",
        ),
        (dict.fromkeys("abcde", UP), "78.13 \u00b1 0.15 %, of a, b, c, and 2 more."),
        ({"a": PLAIN[::-1], "b": DOWN}, "76.10 \u00b1 0.10 %, of plain and a."),
        ({"a": DOWN}, "76.10 \u00b1 0.10 %, of plain."),
    ],
)
def test_all_that_share_the_highest_mean_are_named_and_none_as_a_winner_that_is_none(
    make_results: MakeResults, rows: dict[str, list[float]], last: str
) -> None:
    text = answer(make_results({"plain": PLAIN, **rows}))
    assert text.partition(" The highest mean top-1 is ")[2] == last


def test_what_never_learned_and_what_was_stopped_are_said(make_results: MakeResults) -> None:
    results = make_results({"plain": PLAIN, "a": UP, "b": [1.0, 1.0, 1.0]})
    for run in results.rows[2].runs:
        run.result["at_chance"] = True
    for run in results.rows[1].runs:
        for line in run.log:
            line["train_loss"] = 4.0 - 0.1 * line["epoch"]
    again = make_results({"plain": PLAIN})  # results judge their rows as they are made
    results = StudyResults(**{**vars_of(again), "rows": results.rows})
    text = answer(results)
    assert text.startswith("Of two models, one is better than plain (a) and one never learned (b).")
    assert text.endswith(
        "a and b are undertrained: their figures say how fast they learn, not how good they can be."
    )


def vars_of(results: StudyResults) -> dict[str, object]:
    names = ("title", "description", "data", "recipe", "recipe_name", "seeds", "varies", "baseline")
    return {name: getattr(results, name) for name in names}


def test_a_baseline_that_never_learned_is_said_first(make_results: MakeResults) -> None:
    made = make_results({"plain": [1.0, 1.0], "a": [50.0, 51.0]})
    for run in made.rows[0].runs:
        run.result["at_chance"] = True
    results = StudyResults(**{**vars_of(made), "rows": made.rows})
    assert said(results) == (
        "plain, the baseline, never learned, so there is nothing to compare with."
    )


def test_a_row_without_a_finished_run_is_not_one_with_too_few_seeds(
    make_results: MakeResults,
) -> None:
    given = {"plain": PLAIN, "up": UP, "broken": [None] * 3}
    failed = {"broken": ("seed 0: epoch 2: ValueError: no",)}
    results = make_results(given, failed=failed)
    assert said(results).startswith(
        "Of two models, one is better than plain (up) and one has no finished run (broken)."
    )
    assert results.advice == ("broken: see why runs failed, before more seeds",)
    other = make_results({"plain": PLAIN, "one": [76.0], "none": [None] * 3})
    assert said(other).startswith("None of two models can be called better or worse than plain")
    assert verdict_counts(other) == "too few seeds for a verdict"


def test_a_row_that_never_learned_is_not_counted_as_one_that_does_not_differ(
    make_results: MakeResults,
) -> None:
    few = {"few": [76.0], "none": [None] * 3}
    made = make_results({"plain": PLAIN, "up": UP, "same": PLAIN, "dead": [1.0] * 3, **few})
    for run in made.rows[3].runs:
        run.result["at_chance"] = True
    counted = verdict_counts(StudyResults(**{**vars_of(made), "rows": made.rows}))
    assert counted == (
        "1 better, 1 not shown to differ, 1 at chance, 1 with too few seeds, 1 without a result"
    )


def test_counts_and_lists_in_words() -> None:
    assert [in_words(n) for n in (1, 12, 13, 1234)] == ["one", "twelve", "13", "1,234"]
    assert listed(["a"]) == "a"
    assert (listed(["a", "b"]), listed(["a", "b", "c"])) == ("a and b", "a, b, and c")


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("word", ["as good", "not worse", "futile", "better", "too few seeds"])
def test_every_word_that_can_be_said_has_its_sentence(
    make_results: MakeResults, word: str, count: int
) -> None:
    results = make_results({"plain": PLAIN, "a": SAME, "b": SAME, "c": DOWN}, margin=5.0)
    a = results.comparisons["a"]
    assert a.word == "as good"
    for others in (1, 0):  # alone, and beside another verdict
        kept = dict(zip("ab"[:count], [replace(a, word=word)] * count, strict=True))
        kept |= {"c": results.comparisons["c"]} if others else {}
        object.__setattr__(results, "family", replace(results.family, comparisons=kept))
        assert said(results).endswith(".")
        assert "plain" in said(results)


@pytest.mark.parametrize(
    ("runs", "why"),
    [
        ({"a": []}, "a cannot be called better or worse than plain: it has no finished run."),
        (
            {"a": [], "b": []},
            "None of two models can be called better or worse than plain: they have no finished "
            "run.",
        ),
        (
            {"a": [60.0], "b": [], "c": []},
            "None of three models can be called better or worse than plain: two have no finished "
            "run, the others too few.",
        ),
    ],
)
def test_a_study_that_has_begun_says_which_rows_have_not(
    make_results: MakeResults, runs: dict[str, list[float]], why: str
) -> None:
    assert answer(make_results({"plain": [60.0], **runs})).startswith(why)


def test_paired_rows_want_the_seeds_that_all_of_them_share(make_results: MakeResults) -> None:
    """The row that wants most speaks for all: seeds that others lack are in no pair."""
    seeds = [50.2, 49.9, 50.4, 49.6, 50.1]
    gaps = {
        "calm": (0.1, -0.1, 0.2, 0.0, -0.2),
        "wild": (4.0, -6.0, 1.0, -2.0, 3.0),
        "wilder": (-9.0, 4.0, 13.0, 1.0, -7.0),
    }
    rows = {
        name: [one + gap for one, gap in zip(seeds, row, strict=True)] for name, row in gaps.items()
    }
    results = make_results({"plain": seeds, **rows}, paired=True)
    assert results.family.method == "own"
    (line,) = results.advice
    assert re.match(r"[\d,]{3,} more seeds of calm, wild, wilder, and of the baseline, would", line)
    rng, base = np.random.default_rng(0), [50.1, 49.9, 50.2]
    even = {name: [one + rng.normal(0, 0.3) for one in base] for name in "abcdefghij"}
    results = make_results({"plain": base, **even, "wild": [90.0, 10.0, 50.0]}, paired=True)
    assert results.family.apart == ("wild",)
    assert results.advice[0] == ("wild: judged by its own spread once all rows share five seeds")
