"""The best row of a study: what is expected of it, in words and columns."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from blocklab.report.tables import main_table, tables
from blocklab.results.ended_run import EndedRun
from blocklab.results.row_result import RowResult
from blocklab.results.study_results import StudyResults
from blocklab.statistics.contrasts import pool_rows
from blocklab.statistics.shrinkage import expected_rows
from blocklab.study.metric import TOP1
from blocklab.training.predictions import PerImage

EVEN = {
    "base": [60.0, 60.3, 60.5],
    "up": [60.9, 61.1, 60.6],
    "level": [60.4, 60.1, 60.6],
    "down": [59.8, 60.2, 59.7],
}


def study(
    values: dict[str, list[float]],
    twin_of: dict[str, str] | None = None,
    baseline: str | None = "base",
) -> StudyResults:
    rows = []
    for name, seeds in values.items():
        runs = []
        for seed, value in enumerate(seeds):
            result = {"status": "finished", "epochs": 1, "test_top1_percent": value}
            run = EndedRun(f"{name}{seed}", seed, Path("runs") / f"{name}{seed}", {}, [], result)
            like = (twin_of or {}).get(name, name)
            run.__dict__["per_image"] = PerImage(np.arange(20) > seed, ((like, seed, 0),), 1)
            runs.append(run)
        rows.append(RowResult(name, {}, 10**9, 10**6, 32, tuple(runs), (0, 1, 2)))
    return StudyResults("t", "", {}, {}, "r", (0, 1, 2), (), baseline, tuple(rows))


def test_the_best_row_says_what_is_expected_of_it() -> None:
    results = study(EVEN)
    pool = pool_rows({name: dict(enumerate(seeds)) for name, seeds in EVEN.items()})
    expected = expected_rows(pool, "base")
    assert results.expected == expected
    best = results.best
    assert best is not None and best.row.name == "up" and best.of == 4
    gain, probability = expected["up"].gain, expected["up"].probability_best
    assert gain is not None and 0.2 < gain < 0.55
    assert best.sentence == (
        f"+0.60 points on base, +{gain:.2f} expected when it is trained again; the best of 4 rows "
        f"with a probability of {probability:.2f}"
    )
    none = study(EVEN, baseline=None).best
    assert none is not None and none.sentence.startswith("the best of 4 rows with a probability of")
    surely = study({"base": [60.0, 60.1], "up": [70.0, 70.1], "down": [50.0, 50.1]}).best
    assert surely is not None and surely.sentence.endswith("with a probability of more than 0.99")


def test_where_nothing_can_be_said_nothing_is() -> None:
    assert study({"base": [], "up": []}).best is None
    one_seed = study({"base": [60.0], "up": [61.0]}).best
    assert one_seed is not None
    assert (one_seed.row.name, one_seed.expected, one_seed.sentence) == ("up", None, "")
    alone = study({"base": [60.0, 61.0]}).best
    assert alone is not None and alone.sentence == ""


def test_rows_of_one_function_share_what_is_expected() -> None:
    results = study(EVEN | {"twin": EVEN["up"]}, twin_of={"twin": "up"})
    assert results.expected["twin"] == results.expected["up"] == study(EVEN).expected["up"]


def test_the_columns() -> None:
    results = study(EVEN)
    verdicts = tables(results)[1]
    place = verdicts.headings.index("expected when trained again (points)")
    gain = results.expected["up"].gain
    assert gain is not None
    assert verdicts.texts[0][place : place + 2] == [
        f"{gain:+.2f}",
        f"{results.expected['up'].probability_best:.2f}",
    ]
    fine = replace(results, metric=replace(TOP1, decimals=5))
    assert tables(fine)[1].texts[0][place] == f"{gain:+.5f}"
    up = results.summary_lines[1]
    assert up["expected_gain_top1_points"] == gain
    assert up["expected_top1_percent"] == results.expected["up"].mean
    assert up["probability_best"] == results.expected["up"].probability_best
    assert up["test_top1_percent_median"] == 60.9
    assert up["test_top1_percent_worst_seed"] == 60.6
    assert results.summary_lines[0]["expected_gain_top1_points"] is None
    assert "top-1, worst seed" not in [column.heading for column in main_table(results).columns]


def test_where_seeds_scatter_the_median_and_the_worst_seed_are_shown() -> None:
    results = study(EVEN | {"wild": [70.0, 10.0, 64.0]})
    assert results.scatters and not study(EVEN).scatters
    table = main_table(results)
    headings = [column.heading for column in table.columns]
    wild = dict(zip(headings, table.texts[-1], strict=True))
    assert (wild["top-1, median"], wild["top-1, worst seed"]) == ("64.00", "10.00")
    best = results.best
    assert best is not None and best.expected is not None
    assert best.row.name == "up" and best.expected.probability_best == pytest.approx(0.4, abs=0.3)
