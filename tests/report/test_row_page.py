"""The page of one row: what it shows, what it is called, and what it leaves out."""

import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from blocklab.models.spec import model_spec
from blocklab.report.row_page import row_html, row_pages, write_row_pages
from blocklab.results.ended_run import read_ended_run
from blocklab.results.study_results import StudyResults
from blocklab.training.run_reader import RunReader

MakeResults = Callable[..., StudyResults]


@pytest.fixture
def results(make_results: MakeResults) -> StudyResults:
    return make_results(
        {"plain": [76.0, 76.5], "a": [78.0, 78.5]},
        images=300,
        rows_with={"a": {"model": model_spec("resnet20").to_dict()}},
    )


def test_a_row_says_all_that_is_known_of_it(results: StudyResults, tmp_path: Path) -> None:
    run = results.rows[1].runs[0]
    run.result["files"]["model.safetensors"] = {}
    page = row_html(results, results.rows[1], tmp_path / "runs" / "my study")
    for said in (
        "over 2 seeds; +2.",
        "Curves of each seed",
        "Classes, the worst known first",
        "over 2 runs",
        "no calibration: ",
        "The network, part by part",
        ">stage 3</th>",
        "64 \u00d7 8 \u00d7 8",
        "blocklab predict &#39;runs/my study/a:0&#39; IMAGE.jpg",
        "seed 1: no calibration: ",
        "family",
    ):
        assert said in page, said
    assert "Dead neurons" not in page


def test_commands_name_the_plugin_where_a_row_is_of_one(
    results: StudyResults, tmp_path: Path
) -> None:
    for row in results.rows:
        row.runs[0].result["files"]["model.safetensors"] = {}
    own = {"attention": [{"type": "my_gate@b20b3a8353d4", "scale": 1.0}]}
    row = replace(results.rows[1], model=own)
    for given in ("--plugin 'my gate.py'", "'--plugin=my gate.py'"):
        study = replace(results, command=f"blocklab study worth_it.yaml {given} --seeds 4")
        page = unescape(row_html(study, row, tmp_path / "runs" / "worth_it"))
        for command in ("predict", "evaluate", "diagnose", "figure", "export"):
            assert re.search(f"<code>blocklab {command} .* --plugin 'my gate.py'</code>", page)
        assert "<code>blocklab.load_plugin('my gate.py'); model = " in page
        assert "--plugin" not in row_html(study, results.rows[0], tmp_path)
    for command in (None, "blocklab study 'unclosed"):
        assert "--plugin" not in row_html(replace(results, command=command), row, tmp_path)


@pytest.mark.parametrize(
    ("folder", "named"),
    [("y_one", "y_one/a:0"), (".", "a:0"), ("../y_one", "../y_one/a:0"), ("/y_one", "/y_one/a:0")],
)
def test_commands_name_a_study_from_where_its_page_is_made(
    results: StudyResults, folder: str, named: str
) -> None:
    run = replace(results.rows[1].runs[0], folder=Path("a_run"))
    run.result["files"]["model.safetensors"] = {}
    page = row_html(results, replace(results.rows[1], runs=(run,)), Path(folder))
    assert f"<code>blocklab evaluate {named}</code>" in page
    assert "<td>a_run</td>" in page


def test_records_offer_nothing_that_takes_weights(results: StudyResults, tmp_path: Path) -> None:
    runs = []
    for run in results.rows[1].runs:
        (run.folder / "record.json").write_text('{"left_out": ["model.safetensors"]}')
        record = read_ended_run(RunReader(run.folder))
        assert record is not None
        record.result["files"]["model.safetensors"] = {}
        runs.append(record)
    row = replace(results.rows[1], runs=tuple(runs))
    page = row_html(results, row, tmp_path)
    for takes_weights in ("predict", "evaluate", "diagnose", "figure", "export"):
        assert f"blocklab {takes_weights}" not in page
    assert "load_run" not in page
    assert "kept without weights" in page
    assert "<code>blocklab study attention --seeds 3 --out runs_anew</code>" in page
    unknown = row_html(replace(results, command=None), row, tmp_path)
    assert "kept without weights" in unknown and "Train it again" not in unknown
    one_is_whole = replace(row, runs=(runs[0], replace(runs[1], left_out=())))
    page = row_html(results, one_is_whole, tmp_path)
    assert "a:1</code>" in page and "kept without weights" not in page


def test_dead_neurons_are_those_of_a_diagnosis(results: StudyResults, tmp_path: Path) -> None:
    layer = {"layer": "stages.0.act", "kind": "activation", "zero_percent": 12.345}
    layer |= {"channels": 16, "channels_dead": 3}
    row = results.rows[1]
    looked_at = replace(row.runs[0], diagnosis={"layers": [layer]})
    page = row_html(results, replace(row, runs=(looked_at,)), tmp_path)
    assert "<td>12.35</td><td>16</td><td>3</td>" in page.replace("12.34<", "12.35<")
    odd = replace(row.runs[0], diagnosis={"layers": [{"layer": "<x>"}]})
    assert "Dead neurons" not in row_html(results, replace(row, runs=(odd,)), tmp_path)


def test_pictures_that_were_drawn_stand_on_the_page(results: StudyResults, tmp_path: Path) -> None:
    row, png = results.rows[1], b"\x89PNG\r\n\x1a\n..."
    assert "Pictures" not in row_html(results, row, tmp_path)
    of_run, of_study = row.runs[1].folder / "pictures", tmp_path / "pictures"
    of_run.mkdir()
    of_study.mkdir()
    (of_run / "receptive_fields.png").write_bytes(png)
    (of_study / "a-0-kernels-conv1.png").write_bytes(png)
    (of_study / "a-0-grad_cam.png").write_bytes(b"<svg onload=alert(1)>")
    page = row_html(results, row, tmp_path)
    assert 'alt="Effective receptive fields, seed 1"' in page
    assert 'alt="Its kernels, seed 0"' in page and "Where it looks" not in page


def test_what_cannot_be_built_or_was_not_run_is_left_out(
    make_results: MakeResults, tmp_path: Path
) -> None:
    results = make_results({"plain": ["missing"], "b": [50.0]})  # of models that are no models
    page = row_html(results, results.rows[0], tmp_path)
    assert "No run of this row has finished yet." in page
    for absent in ("part by part", "Curves of each seed", "Classes, the", "Use its weights"):
        assert absent not in page
    assert "part by part" not in row_html(results, results.rows[1], tmp_path)


def test_files_are_named_after_rows_and_never_twice(
    make_results: MakeResults, tmp_path: Path
) -> None:
    names = ["a", "A", "a/b", "<i>", "x" * 90, "y" * 300, "#1 %"]
    results = make_results({name: ["missing"] for name in names})
    files = [page.file for page in row_pages(results)]
    assert files[0] == "a.html" and files[6] == "#1 %.html"
    assert len({name.casefold() for name in files}) == len(names)
    assert all(name.endswith(".html") and "/" not in name for name in files)
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "gone.html").write_text("of a row that is no more")
    links = write_row_pages(results, tmp_path)
    assert sorted(path.name for path in (tmp_path / "rows").iterdir()) == sorted(files)
    assert links["#1 %"] == "rows/%231%20%25.html"
    assert "&lt;i&gt;" in (tmp_path / "rows" / files[3]).read_text()


def test_a_link_in_the_place_of_rows_is_not_followed(results: StudyResults, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "rows").symlink_to(tmp_path / "elsewhere")
    write_row_pages(results, tmp_path / "study")
    assert list((tmp_path / "elsewhere").iterdir()) == []
