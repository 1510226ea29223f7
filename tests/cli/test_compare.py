"""`blocklab compare`, as a user types it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blocklab.files import write_checked_json

Blocklab = Any


LINES = """\
model,seed,top1,macs_g
plain,0,76.1,4.1
plain,1,76.4,4.1
plain,2,76.2,4.1
se,0,77.1,4.2
se,1,77.3,4.2
se,2,77.5,4.2
"""


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "results.csv"
    path.write_text(LINES)
    return path


def test_a_table_becomes_a_page_with_verdicts_claims_and_costs(
    blocklab: Blocklab, results: Path, tmp_path: Path
) -> None:
    asked = ("--row", "model", "--seed", "seed", "--metric", "top1", "--costs", "macs_g")
    said = blocklab("compare", results, *asked, "--claim", "se > plain by 0.5", "--title", "Mine")
    assert said.status == 0, said.err
    assert "better" in said.out and "supported" in said.out and "4.200" in said.out
    assert "of top1 more is better (--lower-is-better turns it round)" in said.out
    folder = Path("runs") / "compare_results"
    assert f"page: {folder / 'report.html'}" in said.out
    page = (folder / "report.html").read_text()
    assert "<h1>Mine</h1>" in page and "trained elsewhere: results.csv" in page
    assert "recipe" not in page.partition("<main>")[0]
    assert (folder / "table.csv").read_text().startswith("row,macs,")
    # The same folder again, and never another's.
    assert blocklab("compare", results, *asked).status == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "table.csv").write_text("precious")
    said = blocklab("compare", results, *asked, "--out", tmp_path / "mine")
    assert said.status == 2 and "has a table.csv that is not of a comparison" in said.err
    assert (tmp_path / "mine" / "table.csv").read_text() == "precious"


def test_a_figure_too_small_to_show_is_judged_and_said(blocklab: Blocklab, tmp_path: Path) -> None:
    rows = {"plain": (1.0, 1.1, 1.05), "se": (5.0, 5.1, 5.05)}
    lines = [f"{row},{i},{one}e-10" for row, of in rows.items() for i, one in enumerate(of)]
    path = tmp_path / "rates.csv"
    path.write_text("\n".join(["model,seed,ber", *lines]))
    said = blocklab(
        "compare", path, "--metric", "ber", "--lower-is-better", "--out", tmp_path / "o"
    )
    assert said.status == 0 and "worse" in said.out
    assert "of ber less is better (--higher-is-better turns it round)" in said.out
    assert "ber is too small for the 6 decimals that are shown" in said.out


def test_a_figure_whose_square_no_number_holds_is_refused(
    blocklab: Blocklab, tmp_path: Path
) -> None:
    path = tmp_path / "huge.csv"
    path.write_text("model,seed,score\na,0,1e308\na,1,1.5e308\nb,0,-1e308\nb,1,1e308\n")
    said = blocklab("compare", path, "--metric", "score", "--out", tmp_path / "o")
    assert said.status == 2 and "score of a is 1e+308, whose squares no number holds" in said.err


def test_a_run_that_diverged_to_minus_infinity_is_no_fraction(
    blocklab: Blocklab, tmp_path: Path
) -> None:
    path = tmp_path / "ends.csv"
    path.write_text("model,seed,top1\na,0,inf\na,1,70\nb,0,-inf\nb,1,71\n")
    said = blocklab("compare", path, "--metric", "top1", "--out", tmp_path / "o")
    assert said.status == 0 and "1 of 2, 1 diverged" in said.out, said.err


def test_costs_have_a_table_of_their_own(blocklab: Blocklab, results: Path, tmp_path: Path) -> None:
    costs = tmp_path / "costs.csv"
    costs.write_text("model,params_m,latency\nse,25.6,3.5\nother,1,1\n")
    said = blocklab("compare", results, "--metric", "top1", "--costs", costs, "--json")
    assert said.status == 0, said.err
    plain, se = json.loads(said.out)["rows"]
    assert (se["params"], se["latency"], se["verdict"]) == (25_600_000, 3.5, "better")
    assert plain["params"] is None
    costs.write_text("model,params_m\nsee,25.6\n")
    said = blocklab("compare", results, "--metric", "top1", "--costs", costs)
    assert said.status == 2 and "has the cost of no row" in said.err
    said = blocklab("compare", results, "--metric", "top1", "--costs", "macs")
    assert said.status == 2 and "has no 'macs' for --costs; did you mean 'macs_g'" in said.err


@pytest.mark.parametrize("cell", ["inf", "-3"])
def test_a_cost_that_is_none_is_refused_and_nan_is_an_empty_cell(
    blocklab: Blocklab, results: Path, tmp_path: Path, cell: str
) -> None:
    costs = tmp_path / "costs.csv"
    costs.write_text(f"model,ms\nplain,2\nse,{cell}\n")
    asked = ("compare", results, "--metric", "top1", "--costs")
    said = blocklab(*asked, costs)
    assert said.status == 2
    assert f"costs.csv, line 3: ms is {cell}, which is no cost; mend or empty it" in said.err
    results.write_text(LINES.replace("77.3,4.2", f"77.3,{cell}"))
    said = blocklab(*asked, "macs_g")
    assert said.status == 2 and f"line 6: macs_g is {cell}, which is no cost" in said.err
    said = blocklab("compare", results, "--metric", "top1", "--json")  # which nobody named
    assert said.status == 2 and f"line 6: macs_g is {cell}, which is no cost" in said.err
    results.write_text(LINES)
    costs.write_text("model,ms\nplain,2\nse,nan\n")
    said = blocklab(*asked, costs, "--json")
    assert [row["ms"] for row in json.loads(said.out)["rows"]] == [2.0, None]


def test_columns_of_counts_are_costs_without_being_named(
    blocklab: Blocklab, results: Path, tmp_path: Path
) -> None:
    """Unless they hold something else, or costs are named."""

    def rows(text: str, *arguments: str) -> list[dict[str, Any]]:
        results.write_text(text)
        said = blocklab("compare", results, "--metric", "top1", *arguments, "--json")
        assert said.status == 0, said.err
        return json.loads(said.out)["rows"]

    assert [row["macs"] for row in rows(LINES)] == [4_100_000_000, 4_200_000_000]
    assert rows(LINES.replace("macs_g", "metrics.macs_g"))[1]["macs"] == 4_200_000_000
    for other in (LINES.replace("macs_g", "macs"), LINES.replace("4.1\n", "few\n")):
        assert rows(other)[1].get("macs") is None  # 4.2 are no plain counts, and words no numbers
    timed = LINES.replace("macs_g\n", "macs_g,ms\n").replace("4.1\n", "4.1,3\n")
    (_, se) = rows(timed.replace("4.2\n", "4.2,5\n"), "--costs", "ms")
    assert (se.get("macs"), se["ms"]) == (None, 5.0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("results.csv", "--metric", "top2"), "has no column 'top2'; did you mean 'top1'"),
        (("results.csv", "--metric", "top1", "--baseline", "x"), "no row 'x' to be the baseline"),
        (("results.csv", "--metric", "top1", "--gain", "0"), "--gain is a number above 0"),
        (("results.csv", "--metric", "top1", "--best-epoch"), "no epoch to choose"),
        (("results.csv", "--metric", "top1", "--out", "results.csv"), "is a file; name a folder"),
        (("results.csv", "--metric", "top1", "--claim", "se"), "'se' is no claim"),
        (("nothing.csv", "--metric", "top1"), "there is no nothing.csv; name a table"),
        (("result.csv", "--metric", "top1"), "there is no result.csv; did you mean 'results.csv'?"),
        (
            ("results.csv", "--metric", "top1", "--lower-is-better", "--higher-is-better"),
            "--lower-is-better and --higher-is-better say opposite things",
        ),
        ((".",), "holds no runs"),
    ],
)
def test_what_is_typed_wrong_is_said_in_one_line(
    blocklab: Blocklab, results: Path, arguments: tuple[str, ...], said: str
) -> None:
    found = blocklab("compare", *arguments)
    assert found.status == 2
    assert found.err.count("\n") == 1 and said in found.err
    assert not Path("runs").exists()


def made_up_study(make_run: Callable[..., Path], out: Path, name: str, epochs: int) -> Path:
    """Write the folder of a study of two rows and two seeds, with the runs beside it."""
    rows = []
    for number, row in enumerate(("plain", "se")):
        runs = {
            str(seed): make_run(out, row, seed, 40.0 + 5 * number + seed / 10, epochs=epochs).name
            for seed in (0, 1)
        }
        cost = {"macs": 10**9, "params": 10**6, "input_size": 32}
        rows.append({"name": row, "model": {"name": row}, "runs": runs, "cost": cost})
    content = {"title": name, "description": "", "data": {"source": "cifar100"}, "rows": rows}
    content |= {"recipe": {"epochs": epochs}, "recipe_name": "quick", "seeds": [0, 1], "notes": []}
    content |= {"varies": ["model"], "baseline": "plain", "command": None}
    write_checked_json(out / name / "study.json", content)
    return out / name


def test_folders_of_studies_are_shown_side_by_side(
    blocklab: Blocklab, results: Path, make_run: Callable[..., Path]
) -> None:
    one, other = (made_up_study(make_run, Path("runs"), f"of_{n}", n) for n in (4, 7))
    said = blocklab("compare", one, other)
    assert said.status == 0, said.err
    assert "The one row that is compared with a baseline in every study has the same" in said.out
    page = Path("runs") / "compare_of_4_of_7" / "report.html"
    assert f"page: {page}" in said.out and "recipe.epochs" in page.read_text()
    told = json.loads(blocklab("compare", one, other, "--json", "--out", "both").out)
    assert [line["row"] for line in told["rows"]] == ["plain", "se"] * 2
    for arguments, wrong in (
        ((one,), f"name a study to compare {one} with"),
        ((one, other, "--metric", "top1"), "take no options but"),
        ((one, results), "results.csv is no study's folder"),
        ((one, one), "one study is named twice"),
        ((one, "runs/of7"), "there is no runs/of7; did you mean 'runs/of_7'?"),
        ((one, "runs/nothing"), "there is no runs/nothing; check the path"),
        ((one, other, "--lower-is-better"), "take no options but"),
    ):
        said = blocklab("compare", *arguments)
        assert said.status == 2 and wrong in said.err and said.err.count("\n") == 1
    said = blocklab("report", "runs/of7")
    assert said.status == 2 and "no" in said.err and "did you mean 'runs/of_7'? Else" in said.err
