"""Studies' folders as somebody sends them: one bad run is a line, and study.json is checked."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blocklab.errors import BlocklabError, RunError
from blocklab.files import write_checked_json
from blocklab.report.page import html, write_report
from blocklab.report.table_files import csv
from blocklab.results.study_folder import read_study_folder
from blocklab.results.study_results import StudyResults

MakeRun = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def received(make_run: MakeRun, tmp_path: Path) -> Path:
    """The folder of a study of two rows and two seeds, with the runs beside it."""
    rows = []
    for number, name in enumerate(("plain", "se")):
        folders = [
            make_run(tmp_path, name, seed, 40.0 + number + 2 * seed, images=100) for seed in (0, 1)
        ]
        rows.append(
            {
                "name": name,
                "model": {"name": name},
                "runs": {str(seed): folder.name for seed, folder in enumerate(folders)},
                "cost": {"macs": 10**9, "params": 10**6, "input_size": 32},
                "reported": {"macs_g": 1.0, "params_m": 1.0, "top1": 50.0, "top5": None}
                | {"note": None, "errata": []},
                "reported_cost": {"macs": 10**9, "params": 10**6, "input_size": 32},
                "tuned": {"lr": 0.1},
                "note": None,
            }
        )
    content = {"title": "Received", "description": "", "data": {"source": "cifar100"}}
    content |= {"recipe": {"epochs": 5}, "recipe_name": "quick", "seeds": [0, 1]}
    content |= {"varies": ["model"], "baseline": "plain", "notes": [], "claims": ["se > plain"]}
    content |= {"command": None, "threads": 1, "rows": rows}
    folder = tmp_path / "study"
    write_checked_json(folder / "study.json", content)
    return folder


def run_of(folder: Path, row: int, seed: int) -> Path:
    content = json.loads((folder / "study.json").read_text())
    return folder.parent / content["rows"][row]["runs"][str(seed)]


def change(folder: Path, path: str, value: Any) -> None:
    content = json.loads((folder / "study.json").read_text())
    del content["sha256"]
    *way, last = path.split(".")
    inner: Any = content
    for part in way:
        inner = inner[int(part) if part.isdecimal() and isinstance(inner, list) else part]
    inner[last] = value
    write_checked_json(folder / "study.json", content)


def finished(results: StudyResults) -> list[list[int]]:
    return [[run.seed for run in row.finished] for row in results.rows]


def test_a_received_study_is_read(received: Path) -> None:
    results = read_study_folder(received)
    assert finished(results) == [[0, 1], [0, 1]]
    assert results.troubles == () and results.remarks == ()


def test_swapped_runs_do_not_count_and_are_named_on_the_page(received: Path) -> None:
    first, second = run_of(received, 0, 0), run_of(received, 1, 0)
    first.rename(received.parent / "spare")
    second.rename(first)
    (received.parent / "spare").rename(second)
    results = read_study_folder(received)
    assert finished(results) == [[1], [1]]
    line = f"seed 0: its folder {first.name} holds another run, {second.name}; run the study again"
    assert [what for _, what in results.troubles] == [
        f"{line} to mend it",
        "no result from seed 0",
        f"seed 0: its folder {second.name} holds another run, {first.name}; run the study again "
        "to mend it",
        "no result from seed 0",
    ]
    assert line in write_report(results, received).read_text()


def test_a_copied_seed_is_not_counted_twice(received: Path) -> None:
    second = run_of(received, 0, 1)
    shutil.rmtree(second)
    shutil.copytree(run_of(received, 0, 0), second)
    results = read_study_folder(received)
    assert finished(results) == [[0], [0, 1]]
    assert "holds another run" in results.rows[0].failed[0]


@pytest.mark.parametrize("name", ["run.json", "log.jsonl", "predictions.npz", "result.json"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe{}", b"[" * 5000, b"null", b"1e999"])
def test_one_bad_run_is_a_line(received: Path, name: str, content: bytes) -> None:
    (run_of(received, 1, 1) / name).write_bytes(content)
    results = read_study_folder(received)
    assert finished(results) == [[0, 1], [0]]
    (line,) = results.rows[1].failed
    assert line.startswith("seed 1: ") and name in line and "\n" not in line
    if not content:
        assert name in html(results, drawn=())


def test_a_failure_of_this_moment_needs_no_file(received: Path) -> None:
    folder = run_of(received, 1, 1)
    shutil.rmtree(folder)
    assert read_study_folder(received).rows[1].failed == ()
    results = read_study_folder(received, {folder.name: "the disk is full"})
    assert results.rows[1].failed == ("seed 1: the disk is full",)


def test_a_run_of_another_model_or_seed_than_the_row_is_not_counted(received: Path) -> None:
    one, other = run_of(received, 0, 0).name, run_of(received, 1, 0).name
    change(received, "rows.0.runs", {"0": other})
    change(received, "rows.1.runs", {"1": one})
    results = read_study_folder(received)
    assert finished(results) == [[], []]
    for row in results.rows:
        assert "has another model or seed than study.json says; run the study" in row.failed[0]


def test_what_study_json_says_of_its_runs_is_compared_with_theirs(received: Path) -> None:
    change(received, "recipe.epochs", 300)
    change(received, "data.source", "cifar10")
    assert set(read_study_folder(received).remarks) == {
        'all rows: trained with data.source "cifar100", where study.json says "cifar10"',
        "all rows: trained with recipe.epochs 5, where study.json says 300",
    }
    change(received, "varies", ["model", "recipe.epochs", "data"])
    assert read_study_folder(received).remarks == ()


def test_what_one_seed_was_trained_with_is_compared_too(
    received: Path, make_run: Callable[..., Path]
) -> None:
    model, recipe = {"name": "se"}, {"epochs": 5, "lr": 0.5}
    definition = {"model": model, "data": {"source": "cifar100"}, "recipe": recipe, "seed": 1}
    other = make_run(received.parent, "se", 1, 43.0, images=100, definition=definition)
    change(received, "rows.1.runs", {"0": run_of(received, 1, 0).name, "1": other.name})
    results = read_study_folder(received)
    assert finished(results) == [[0, 1], [0, 1]]
    assert results.remarks == ("se: trained with recipe.lr 0.5, where study.json says none",)


def test_costs_are_compared_with_the_runs_own(
    received: Path, make_run: MakeRun, tmp_path: Path
) -> None:
    shutil.rmtree(run_of(received, 1, 0))
    cost = {"macs": 2 * 10**9, "params": 10**6, "input_size": 32}
    make_run(tmp_path, "se", 0, 41.0, images=100, run={"cost": cost})
    assert read_study_folder(received).remarks == (
        "se: counted as 2,000,000,000 macs, where study.json says 1,000,000,000",
    )


ODD: tuple[Any, ...] = (10**400, -1, True, "../../x", None, [], [[0]], "\ud800")
FIELDS = (
    *("title", "description", "data", "recipe", "recipe_name", "seeds", "varies", "baseline"),
    *(
        "notes",
        "claims",
        "command",
        "threads",
        "rows",
        "rows.0.name",
        "rows.0.model",
        "rows.0.runs",
    ),
    *("rows.0.cost", "rows.0.cost.macs", "rows.0.cost.input_size", "rows.0.reported"),
    *("rows.0.reported.macs_g", "rows.0.reported.errata", "rows.0.reported_cost"),
    *("rows.0.reported_cost.params", "rows.0.tuned", "rows.0.tuned.lr", "rows.0.note"),
    *("rows.0.runs.0", "recipe.epochs", "data.source"),
)


@pytest.mark.parametrize("field", FIELDS)
def test_a_study_file_of_wrong_types_is_one_line_or_a_page(received: Path, field: str) -> None:
    whole = (received / "study.json").read_text()
    for row in (0, 1):  # of one seed, whose statistics take no time
        shutil.rmtree(run_of(received, row, 1))
    for value in ODD:
        (received / "study.json").write_text(whole)
        change(received, field, value)
        try:
            results = read_study_folder(received)
        except RunError as error:
            assert "study.json is damaged (" in str(error) and "\n" not in str(error)
        else:
            csv(results), html(results, drawn=())


def test_the_page_stays_in_its_folder(received: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    kept = outside / "differences.svg", outside / "learning_rate.png", outside / "notes.txt"
    for file in kept:
        file.write_text("mine")
    (received / "figures").symlink_to(outside)
    (received / "report.html").symlink_to(outside / "notes.txt")
    (received / "verdicts.tex").symlink_to(outside / "notes.txt")
    page = write_report(read_study_folder(received), received)
    assert all(file.read_text() == "mine" for file in kept) and len(list(outside.iterdir())) == 3
    assert not (received / "figures").is_symlink() and (received / "figures").is_dir()
    assert page.read_text().startswith("<!DOCTYPE html>") and not page.is_symlink()


@pytest.mark.parametrize("name", ["report.html", "reported.tex", "figures/learning_rate.png"])
def test_a_folder_where_a_file_belongs_is_one_line(received: Path, name: str) -> None:
    (received / name / "inner").mkdir(parents=True)
    with pytest.raises(BlocklabError) as caught:
        write_report(read_study_folder(received), received)
    assert name.split("/")[-1] in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_study_file_that_is_none_is_not_read(received: Path) -> None:
    (received / "study.json").unlink()
    os.mkfifo(received / "study.json")
    with pytest.raises(RunError, match="it is no regular file"):
        read_study_folder(received)


def test_a_margin_is_read_and_an_older_file_has_none(received: Path) -> None:
    assert read_study_folder(received).margin is None
    change(received, "margin", 3.5)
    results = read_study_folder(received)
    assert (results.margin, results.family.margin) == (3.5, 3.5)
    change(received, "margin", 0)
    with pytest.raises(RunError, match=r"study.json is damaged \(it: margin"):
        read_study_folder(received)
