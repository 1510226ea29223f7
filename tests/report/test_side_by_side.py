"""Studies side by side: one table, where their verdicts agree, and what differs between them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blocklab.errors import InputError
from blocklab.report.side_by_side import (
    agreement,
    lines_side_by_side,
    named_studies,
    notes_of,
    side_by_side,
    what_differs,
    what_is_shared,
    write_side_by_side,
)
from blocklab.results.row_result import RowResult
from blocklab.results.study_results import StudyResults
from blocklab.study.metric import Metric

MakeResults = Any

PLAIN = [76.1, 76.3, 76.2, 76.4]


@pytest.fixture
def studies(make_results: MakeResults) -> dict[str, StudyResults]:
    quick = {"plain": PLAIN, "se": [77.1, 77.4, 77.3, 77.2], "eca": [76.2, 76.3, 76.1, 76.4]}
    strong = {"plain": PLAIN, "se": [76.2, 76.1, 76.4, 76.3], "cbam": [75.1, 75.2, 75.0, 75.3]}
    one, other = make_results(quick), make_results(strong, epochs=9)
    rows = tuple(replace(row, model=one.rows[0].model) for row in other.rows)
    return {"quick": one, "strong": replace(other, rows=rows)}


def test_each_study_has_its_columns_and_each_row_its_line(studies: dict[str, StudyResults]) -> None:
    table = side_by_side(studies)
    assert table.headings[1:4] == [
        *("quick: top-1 (%)", "quick: top-1 minus plain (points)", "quick: verdict")
    ]
    assert [name for name, _ in table.groups] == ["", "quick", "strong"]
    by_row = {line[0]: line[1:] for line in table.texts}
    assert list(by_row) == ["plain", "se", "eca", "cbam"]
    assert by_row["se"][0] == "77.25 \u00b1 0.13" and by_row["se"][2] == "better"
    assert by_row["se"][3] == "76.25 \u00b1 0.13" and by_row["se"][5] == "no difference shown"
    assert by_row["eca"][3:] == ["\u2013"] * 3 and by_row["cbam"][:3] == ["\u2013"] * 3
    assert by_row["cbam"][5] == "worse"


def test_where_verdicts_agree_is_said_in_words(
    studies: dict[str, StudyResults], make_results: MakeResults
) -> None:
    said = (
        "The one row that is compared with a baseline in every study has not the same verdict in "
        "all"
    )
    assert agreement(studies) == f"{said}; it differs for se (better, no difference shown)."
    same = {"one": studies["quick"], "two": studies["quick"]}
    assert agreement(same) == (
        "Of 2 rows that are compared with a baseline in every study, all have the same verdict in "
        "each."
    )
    words = {"plain": PLAIN, "se": [77.1, 77.4, 77.3, 77.2], "eca": [75.2, 75.3, 75.1, 75.4]}
    less = {"plain": PLAIN, "se": PLAIN, "eca": PLAIN}
    apart = {"one": make_results(words), "two": make_results(less)}
    assert ", none has the same verdict in each; it differs for se (" in agreement(apart)


def test_a_row_without_a_verdict_in_some_study_has_not_the_same_in_all(
    make_results: MakeResults,
) -> None:
    none = {"plain": PLAIN, "se": ["missing"] * 4, "eca": [75.2, 75.3, 75.1, 75.4]}
    one = {"plain": PLAIN, "se": [76.2], "eca": [75.2, 75.3, 75.1, 75.4]}
    assert agreement({"none": make_results(none), "one": make_results(one)}) == (
        "The one row that is compared with a baseline in every study has the same verdict in all. "
        "se has too few seeds in some of them."
    )
    del none["eca"], one["eca"]
    assert agreement({"none": make_results(none), "one": make_results(one)}) == (
        "No row is compared with a baseline in every one of these studies. se has too few seeds in "
        "some of them."
    )


def test_runs_of_one_hash_that_gave_other_results_are_not_one_thing(
    studies: dict[str, StudyResults],
) -> None:
    one = studies["quick"]
    again = []
    for row in one.rows:
        first, *rest = row.runs
        other = {**first.result, "test_top1_percent": first.result["test_top1_percent"] + 1}
        again.append(replace(row, runs=(replace(first, result=other), *rest)))
    said = what_is_shared({"here": one, "there": replace(one, rows=tuple(again))})
    assert said == (
        "9 of 12 runs are in more than one of these studies, which so far say one thing twice. "
        "3 of 12 runs were trained more than once, by the same recipe and from the same seed, with "
        "other results: see under which conditions."
    )


def test_seeds_and_shared_runs_are_told(
    studies: dict[str, StudyResults], make_results: MakeResults
) -> None:
    one = studies["quick"]
    rows = tuple(replace(row, runs=row.runs[:2]) for row in one.rows)
    fewer = {"all": one, "two": replace(one, rows=rows, seeds=(0, 1))}
    assert what_is_shared(fewer) == (
        "Seeds: 4 against 2. 6 of 12 runs are in more than one of these studies, which so far "
        "say one thing twice."
    )
    assert what_differs(fewer) == [("seeds", "4 (0 to 3)", "2 (0, 1)")]


def test_what_differs_and_what_to_know_is_listed(studies: dict[str, StudyResults]) -> None:
    assert what_differs(studies) == [("recipe.epochs", "5", "9")]
    judged = {**studies, "strong": replace(studies["strong"], paired=True, margin=0.5)}
    assert what_differs(judged)[1:] == [
        ("seeds as blocks", "not paired", "paired"),
        ("margin", "none", "0.5"),
    ]
    assert notes_of(studies) == []
    other = replace(
        studies["strong"],
        baseline="se",
        rows=tuple(
            replace(row, model={"backbone": "van"}, planned_seeds=(0, 1, 2, 3, 4))
            for row in studies["strong"].rows
        ),
    )
    notes = notes_of({"quick": studies["quick"], "other": other})
    assert notes == [
        "the baseline is not the same: plain in quick and se in other",
        "the model under one name is not the same in all studies: plain and se",
        "other: 12 of 15 runs finished",
        *(f"other, {row}: no result from seed 4" for row in ("plain", "se", "cbam")),
    ]


def test_what_a_study_misses_is_said(studies: dict[str, StudyResults]) -> None:
    """Its figure is of fewer runs than were planned, and a reader of both must know."""
    first, *others = studies["strong"].rows
    damaged = replace(first, runs=first.runs[1:], failed=("seed 0: log.jsonl is damaged",))
    notes = notes_of({**studies, "strong": replace(studies["strong"], rows=(damaged, *others))})
    assert notes == [
        "strong: 11 of 12 runs finished",
        "strong, plain: seed 0: log.jsonl is damaged",
        "strong, plain: no result from seed 0",
    ]


def test_the_page_and_its_tables_are_written(
    studies: dict[str, StudyResults], tmp_path: Path
) -> None:
    page = write_side_by_side(studies, tmp_path / "both", command="blocklab compare a b")
    text = page.read_text()
    assert "<h1>quick and strong</h1>" in text and "recipe.epochs" in text
    assert "says nothing" not in text and "say nothing of a difference between two studies" in text
    assert text.count("<tr data-row=") == 4 + 2 * 4  # of both, and of each for a narrow screen
    head, *lines = (tmp_path / "both" / "table.csv").read_text().splitlines()
    assert head.startswith("study,row,") and len(lines) == 6
    assert (tmp_path / "both" / "side_by_side.tex").exists()
    assert len(lines_side_by_side(studies)) == 6


def test_studies_that_cannot_be_compared_are_refused(studies: dict[str, StudyResults]) -> None:
    one = studies["quick"]
    other = replace(one, metric=Metric("loss", "test_loss", "loss"))
    with pytest.raises(InputError, match="other is measured by loss, the first study by top-1"):
        side_by_side({"one": one, "other": other})
    lone = RowResult("lone", {}, 1, 1, 32, (), (0,))
    with pytest.raises(InputError, match="one and other have no row in common"):
        side_by_side({"one": one, "other": replace(one, rows=(lone,), baseline="lone")})


def test_names_are_as_long_as_they_must_be(tmp_path: Path, make_results: MakeResults) -> None:
    one = make_results({"plain": PLAIN})
    places = [tmp_path / "a" / "study", tmp_path / "b" / "study"]
    assert list(named_studies(places, [one, one])) == ["a/study", "b/study"]
    with pytest.raises(InputError, match="one study is named twice"):
        named_studies([places[0], places[0]], [one, one])
