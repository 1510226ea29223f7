"""Rows that no choice needs, and what one costs of another."""

from pathlib import Path

import numpy as np
import pytest

from blocklab.results.dominance import cost_words
from blocklab.results.ended_run import EndedRun
from blocklab.results.row_result import RowResult
from blocklab.results.study_results import StudyResults
from blocklab.training.predictions import PerImage


def row(
    name: str, mean: float, macs_g: float, params_m: float = 10.0, bits: str = "", size: int = 32
) -> RowResult:
    runs = []
    for seed, noise in enumerate((-0.1, 0.0, 0.1)):
        result = {"status": "finished", "epochs": 1, "test_top1_percent": mean + noise}
        run = EndedRun(f"{name}{seed}", seed, Path("runs") / f"{name}{seed}", {}, [], result)
        images = PerImage(np.ones(20, dtype=bool), ((bits or name, seed, 0),), 1)
        run.__dict__["per_image"] = images
        runs.append(run)
    macs, params = round(macs_g * 1e9), round(params_m * 1e6)
    return RowResult(name, {}, macs, params, size, tuple(runs), (0, 1, 2))


def study(*rows: RowResult, margin: float | None = None) -> StudyResults:
    base = rows[0].name
    return StudyResults("t", "", {}, {}, "r", (0, 1, 2), (), base, rows, margin=margin)


def test_a_row_that_costs_no_less_and_is_shown_to_reach_less_is_dominated() -> None:
    results = study(
        row("base", 60, 2.0),
        row("worse", 58, 2.5),
        row("worse, cheaper", 58, 1.9),
        row("better", 62, 2.5),
        row("dear", 61, 5.0),
        row("best, dear", 64, 6.0, 20.0),
        row("best, at another size", 66, 1.0, size=64),
    )
    assert results.dominated == {
        "worse": "base is better at 0.8 of the MACs",
        "dear": "better is better at 0.5 of the MACs",
    }
    assert results.dominated == results.dominated


def test_of_a_study_without_a_baseline_the_first_row_is_one_as_any() -> None:
    rows = (row("dear", 50, 2.0), row("good", 60, 1.0))
    results = StudyResults("t", "", {}, {}, "r", (0, 1, 2), (), None, rows)
    assert results.dominated == {"dear": "good is better at 0.5 of the MACs"}


def test_the_baseline_may_be_dominated() -> None:
    assert study(row("base", 60, 2.0), row("up", 62, 2.0)).dominated == {
        "base": "up is better at the same cost"
    }
    level = (row("base", 60, 2.0), row("level", 60, 1.2))
    assert study(*level).dominated == {}
    with_margin = study(*level, margin=0.5)
    assert with_margin.dominated == {"base": "level is as good at 0.6 of the MACs"}
    assert with_margin.comparisons["level"].word == "as good"
    assert with_margin.verdicts == {"level": "as good at 0.6 of the MACs"}


def test_of_two_rows_that_are_as_good_the_dearer_is_dominated() -> None:
    rows = (row("base", 55, 1.0), row("a", 60, 2.0), row("b", 60, 2.0, 8.0), row("c", 60, 2.0, 12))
    assert study(*rows).dominated == {}
    found = study(*rows, margin=0.5)
    assert found.dominated == {
        "a": "b is as good at 0.8 of the parameters",
        "c": "a is as good at 0.83 of the parameters",
    }
    assert "as good" not in study(*rows, margin=0.2).dominated.values()


def test_the_same_function_at_less_dominates() -> None:
    rows = (row("base", 55, 1.0), row("dear", 60, 2.0, bits="x"), row("lean", 60, 1.5, bits="x"))
    assert study(*rows).dominated == {"dear": "lean computes the same at 0.75 of the MACs"}
    twins = (row("base", 55, 2.0, bits="x"), row("lean", 55, 1.0, bits="x"))
    assert study(*twins).dominated == {"base": "lean computes the same at 0.5 of the MACs"}


def test_rows_that_were_not_tested_dominate_nothing() -> None:
    lost = row("lost", 1, 3.0)
    for run in lost.runs:
        run.result["at_chance"] = True
    assert study(row("base", 60, 2.0), lost).dominated == {}
    assert study(row("base", 60, 2.0)).dominated == {}


@pytest.mark.parametrize(
    ("macs", "params", "said"),
    [
        (1.2, 10.0, "at 0.6 of the MACs"),
        (1.2, 9.0, "at 0.6 of the MACs"),
        (1.2, 12.0, "at 0.6 of the MACs and 1.2 of the parameters"),
        (2.001, 6.5, "at 0.65 of the parameters"),
        (2.0, 10.0, "at the same cost"),
        (25.0, 10.0, "at 12.5 of the MACs"),
        (0.01, 10.0, "at 0.005 of the MACs"),
    ],
)
def test_costs_in_words(macs: float, params: float, said: str) -> None:
    assert cost_words(row("row", 60, macs, params), row("base", 60, 2.0)) == said
    assert cost_words(row("row", 60, macs, params, size=64), row("base", 60, 2.0)) == ""


def test_tables_say_who_is_dominated_and_as_good_at_what_cost() -> None:
    from blocklab.report.tables import main_table, tables

    results = study(row("base", 60, 2.0), row("level", 60, 1.2), margin=0.5)
    shown = main_table(results)
    assert shown.headings[-1] == "dominated"
    assert [line[-2:] for line in shown.texts] == [
        ["\u2013", "level is as good at 0.6 of the MACs"],
        ["as good at 0.6 of the MACs", "\u2013"],
    ]
    assert tables(results)[1].texts[0][-2:] == [
        "as good at 0.6 of the MACs",
        "within the margin of 0.5",
    ]
    lines = results.summary_lines
    assert [line["dominated"] for line in lines] == ["level is as good at 0.6 of the MACs", None]
    assert [line["verdict"] for line in lines] == [None, "as good"]
    assert results.summary_frame()["dominated"][0] == "level is as good at 0.6 of the MACs"
    plain = main_table(study(row("base", 60, 2.0), row("level", 60, 1.2)))
    assert "dominated" not in plain.headings


def test_against_the_baseline_the_verdicts_decide() -> None:
    # 0.25 points are beyond Dunnett's critical value of four rows, and short of Tukey's of five
    others = [row(name, 60.0, 3.0, 10.0 + i) for i, name in enumerate("abc")]
    up = study(row("base", 60, 2.0), row("up", 60.25, 2.0), *others)
    assert up.comparisons["up"].word == "better"
    assert up.dominated == {"base": "up is better at the same cost"}
    down = study(row("base", 60, 2.0), row("down", 59.75, 2.0), *others)
    assert down.dominated == {"down": "base is better at the same cost"}
