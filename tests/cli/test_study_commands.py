"""``blocklab study`` and ``blocklab report``, from the YAML file to the page."""

import html
import json
from pathlib import Path
from typing import Any

import pytest

from blocklab.study.study import Study

Blocklab = Any


def test_a_study_from_file_to_page(blocklab: Blocklab, study_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    claims = "claims: [{claim: se > plain in params, text: SE costs.}]\n"
    study_file.write_text(study_file.read_text() + claims)
    planned = blocklab("study", study_file, "--out", out, "--dry-run", "--json")
    assert planned.status == 0, planned.err
    plan = json.loads(planned.out)
    assert [line["runs"] for line in plan["rows"]] == [2, 2]
    claim = {"study": "tiny", "claim": "se > plain in params", "text": "SE costs."}
    assert plan["claims"] == [claim]
    listed = blocklab("study", study_file, "--out", out, "--dry-run")
    assert "SE costs." in listed.out
    assert listed.out.splitlines()[-2].split() == ["tiny", "2", "1"]
    assert not out.exists()

    said = blocklab("study", study_file, "--out", out, "--json")
    assert said.status == 0, said.err
    (result,) = json.loads(said.out)
    page = Path(result["page"])
    assert page == out / "tiny" / "report.html"
    assert "Two tiny networks" in page.read_text()
    assert [row["row"] for row in result["rows"]] == ["plain", "se"]
    assert all(row["seeds_finished"] == 2 for row in result["rows"])
    assert [(one["claim"], one["word"]) for one in result["claims"]] == [
        ("se > plain in params", "supported")
    ]
    assert result["identical"] == []
    for name in ("table.md", "table.tex", "table.csv", "runs.csv", "study.json"):
        assert (page.parent / name).is_file()
    results = sorted(out.glob("*/result.json"))
    assert len(results) == 4
    times = [path.stat().st_mtime_ns for path in results]

    again = blocklab("study", study_file, "--out", out)
    assert again.status == 0
    assert str(page) in again.out and "plain" in again.out
    assert "supported" in again.out
    assert [path.stat().st_mtime_ns for path in results] == times

    narrower = blocklab("study", study_file, "--out", out, "--rows", "se", "--seeds", 1)
    assert "4 runs had finished before" not in narrower.out  # two of them are its own
    assert "2 runs had finished before this study was stated" in narrower.out

    page.unlink()
    reported = blocklab("report", page.parent)
    assert reported.status == 0 and page.is_file()
    assert "se" in reported.out
    as_json = json.loads(blocklab("report", page.parent, "--json").out)
    assert as_json == {name: value for name, value in result.items() if name != "study"}

    narrowed = blocklab("study", study_file, "--out", out, "--rows", "se", "--seeds", 1, "--json")
    assert [row["seeds_planned"] for row in json.loads(narrowed.out)[0]["rows"]] == [1, 1]
    assert [path.stat().st_mtime_ns for path in results] == times


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("se: resnet20_se", "se: resnet20_see"), "did you mean 'resnet20_se'"),
        (("varies: [attention]", "varies: [mixer]"), "varies"),
        (("varies: [attention]", "varies: [attention]\nvarys: []"), "did you mean 'varies'"),
        (("source: digits", "source: digist"), "did you mean 'digits'"),
        (("base: quick", "base: quik"), "did you mean 'quick'"),
        (("epochs: 2", "epochs: two"), "epochs"),
        (("se: resnet20_se", "se: {base: resnet20, atention: se}"), "did you mean 'attention'"),
        (("se: resnet20_se", "se: resnet20"), "same run"),
        (("seeds: 2", "seeds: 0"), "seed"),
        (("batch_size: 16", "batch_size: 64"), "batch_size"),
        (("title: Two", "title: [Two"), "line 2"),
        (("varies: [attention]", "baseline: sse\nvaries: [attention]"), "did you mean 'se'"),
    ],
)
def test_a_wrong_study_is_one_line(
    blocklab: Blocklab, study_file: Path, tmp_path: Path, change: tuple[str, str], says: str
) -> None:
    text = study_file.read_text()
    assert change[0] in text
    study_file.write_text(text.replace(*change))
    said = blocklab("study", study_file, "--out", tmp_path / "runs")
    assert said.status == 2, said.err
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    assert says in said.err
    assert not list(tmp_path.glob("runs/*/result.json"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "name a study"),
        (("tabel_1",), "did you mean 'table_1'"),
        (("no/such/file.yaml",), "cannot read"),
        (("quickstart", "--rows", "pain"), "did you mean 'plain'"),
        (("quickstart", "--rows", ""), "--rows takes names, A,B; one of '' is empty"),
        (("quickstart", "--rows", "plain,,se"), "one of 'plain,,se' is empty"),
        (("quickstart", "--workers", 0), "--workers"),
        (("quickstart", "--workers", "many"), "--workers"),
        (("quickstart", "--workers", 10_000), "--workers"),
        (("quickstart", "--threads", 10_000), "--threads"),
        (("quickstart", "--plugin", "no_such_block.py"), "no_such_block.py"),
        (("quickstart", "--set", "lr=0.1", "--set", "lr=0.2"), "twice"),
    ],
)
def test_wrong_options_are_one_line(
    blocklab: Blocklab, tmp_path: Path, arguments: tuple[object, ...], says: str
) -> None:
    said = blocklab("study", *arguments, "--out", tmp_path / "runs")
    assert said.status == 2, said.err
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    assert says in said.err


@pytest.mark.parametrize(
    ("seed", "says"),
    [
        ("99999999999999999999", "is too large"),
        ("4294967296", "a seed is from 0 to 4294967295"),
        ("-1", "a seed is from 0 to 4294967295"),
        ("9" * 5000, "--seed"),
        ("007", "--seed"),
        ("1.0", ""),
        ("true", ""),
        ("0x", ""),
        ("", ""),
    ],
)
def test_seeds_are_read_alike_in_train_and_study(
    blocklab: Blocklab, study_file: Path, tmp_path: Path, seed: str, says: str
) -> None:
    train = ("train", "resnet20", "--data", "digits", "--out", tmp_path / "runs", "--seed")
    for said in (
        blocklab(*train, seed),
        blocklab("study", study_file, "--dry-run", "--seeds", f"0,{seed}" if seed else ""),
    ):
        assert (said.status, said.err.count("\n")) == (2, 1), said
        assert says in said.err and "seed" in said.err
        assert len(said.err) < 500
    listed = blocklab("study", study_file, "--dry-run", "--json", "--seeds", "5,4294967295")
    assert [line["runs"] for line in json.loads(listed.out)["rows"]] == [2, 2]


def test_a_run_that_cannot_even_say_that_it_failed_is_exit_status_1(
    blocklab: Blocklab, study_file: Path, tmp_path: Path
) -> None:
    """Where a file has its folder's name, nothing can be written of the run, but it did fail."""
    study = Study.load(study_file)
    blocked = list(study.plan())[3].definition.hash
    out = tmp_path / "runs"
    out.mkdir()
    (out / blocked).write_text("")
    said = blocklab("study", study_file, "--out", out, "--json")
    assert said.status == 1, said.err
    (result,) = json.loads(said.out)
    assert [row["seeds_finished"] for row in result["rows"]] == [2, 1]
    first, second = result["troubles"]
    assert first["row"] == "se"
    assert first["trouble"].startswith(f"seed 1: cannot write to {out / blocked}")
    assert second["trouble"] == "no result from seed 1"
    assert first["trouble"] in html.unescape(Path(result["page"]).read_text())
    again = blocklab("study", study_file, "--out", out)
    assert again.status == 1
    assert f"se: {first['trouble']}\n" in again.out


def test_swapped_folders_are_named_and_trained_anew(
    blocklab: Blocklab, study_file: Path, trained: Path
) -> None:
    out = trained
    whole = json.loads(blocklab("study", study_file, "--out", out, "--json").out)[0]
    one, other = (run.definition.hash for run in list(Study.load(study_file).plan())[:2])
    (out / one).rename(out / "spare")
    (out / other).rename(out / one)
    (out / "spare").rename(out / other)
    said = blocklab("report", out / "tiny")
    assert said.status == 0
    assert f"seed 0: its folder {one} holds another run, {other}; run the study again" in said.out
    assert [row["seeds_finished"] for row in rows(blocklab, out)] == [1, 1]
    mended = blocklab("study", study_file, "--out", out, "--json")
    assert mended.status == 0 and "holds another run" in mended.err
    (result,) = json.loads(mended.out)
    assert result["troubles"] == []
    names = [name for name in whole["rows"][0] if "percent" in name]
    for before, after in zip(whole["rows"], result["rows"], strict=True):
        assert [before[name] for name in names] == [after[name] for name in names]


def rows(blocklab: Blocklab, out: Path) -> list[dict[str, Any]]:
    return json.loads(blocklab("report", out / "tiny", "--json").out)["rows"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_result_in_another_encoding_is_mended(
    blocklab: Blocklab, study_file: Path, trained: Path, encoding: str
) -> None:
    out = trained
    assert blocklab("study", study_file, "--out", out, "--rows", "plain").status == 0
    path = out / next(Study.load(study_file).plan()).definition.hash / "result.json"
    whole = path.read_bytes()
    path.write_bytes(whole.decode().encode(encoding))
    said = blocklab("report", out / "tiny+rows=plain")
    assert said.status == 0 and "seed 0: result.json is damaged" in said.out
    assert blocklab("study", study_file, "--out", out, "--rows", "plain").status == 0
    mended, before = json.loads(path.read_bytes())["files"], json.loads(whole)["files"]
    for name in ("model.safetensors", "predictions.npz"):  # the log has other times
        assert mended[name] == before[name]


def test_commands_on_another_runs_folder_are_refused_in_one_line(
    blocklab: Blocklab, study_file: Path, trained: Path
) -> None:
    out = trained
    folder = out / next(Study.load(study_file).plan()).definition.hash
    folder.rename(out / "0123456789abcdef")
    for command in (("evaluate",), ("diagnose",), ("study", "--verify")):
        said = blocklab(*command, out / "0123456789abcdef")
        assert said.status == 1
        assert f"its folder 0123456789abcdef holds another run, {folder.name}" in said.err
        assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--seeds", "2", "--rows", "plain"), "--seeds and --rows"),
        (("--set", "epochs=1"), "--set"),
        (("--threads", "2"), "--threads"),
        (("--dry-run",), "--dry-run"),
        (("--live",), "--live"),
    ],
)
def test_options_that_verify_would_not_heed_are_refused(
    blocklab: Blocklab, tmp_path: Path, options: tuple[str, ...], named: str
) -> None:
    said = blocklab("study", "--verify", tmp_path / "run", *options)
    assert (said.status, said.out) == (2, "")
    assert said.err == f"error: --verify trains the run as it was trained; leave {named} out\n"


def test_a_run_that_is_planned_and_has_not_run_is_said_to_be_so(
    blocklab: Blocklab, study_file: Path, trained: Path
) -> None:
    assert blocklab("study", study_file, "--out", trained).status == 0
    first = trained / next(Study.load(study_file).plan()).definition.hash
    first.rename(trained / "elsewhere")
    for command in (("evaluate",), ("study", "--verify")):
        said = blocklab(*command, trained / "tiny" / "plain:0")
        assert (said.status, said.err) == (
            2,
            f"error: there is no run's folder {first}: it has not run here, or is gone; name "
            "another, or run its study\n",
        )


def test_a_name_that_no_file_can_have_is_one_line(blocklab: Blocklab, study_file: Path) -> None:
    said = blocklab("study", "--verify", f"{study_file.parent}/{'x' * 5000}:0")
    assert said.status == 2 and said.err.count("\n") == 1 and "name a run's folder" in said.err
    other = blocklab("report", "o" * 300)
    assert other.status == 2 and other.err.count("\n") == 1
    assert other.err.startswith("error: a name is too long: 'ooo")


def test_a_name_with_a_comma_is_told_from_two(
    blocklab: Blocklab, study_file: Path, trained: Path
) -> None:
    """It is quoted where names are listed, and a run is named so too."""
    text = study_file.read_text().replace("  se: resnet20_se", "  se, gentle: resnet20_se")
    study_file.write_text(text)
    said = blocklab("study", study_file, "--out", trained, "--seeds", "1")
    assert said.status == 0, said.err
    folder = next(trained.glob("tiny*/study.json")).parent
    wrong = blocklab("evaluate", f"{folder}/see:0")
    assert wrong.err.endswith('Rows: plain, "se, gentle"\n')
    quoted = blocklab("evaluate", f'{folder}/"se, gentle":0', "--json")
    plain = blocklab("evaluate", f"{folder}/se, gentle:0", "--json")
    assert (quoted.status, quoted.err) == (0, "")
    top1 = [json.loads(said.out)["test_top1_percent"] for said in (quoted, plain)]
    assert top1[0] == top1[1]


def test_a_part_of_a_study_says_what_is_not_in_it(
    blocklab: Blocklab, study_file: Path, trained: Path
) -> None:
    more = "  eca: {base: resnet20, attention: eca}\nclaims: [se > plain, eca > se, eca > plain]\n"
    study_file.write_text(study_file.read_text() + more)
    said = blocklab("study", study_file, "--out", trained, "--rows", "plain,se")
    assert said.status == 0, said.err
    study = json.loads((trained / "tiny+rows=plain,se" / "study.json").read_text())
    note = "a part of its file's study, without the row eca and the 2 claims that name it"
    assert study["notes"] == [note] and study["claims"] == ["se > plain"]
    assert (
        html.escape(note).replace("&#x27;", "&#39;")
        in (trained / "tiny+rows=plain,se" / "report.html").read_text()
    )


def test_a_figure_says_which_runs_are_not_in_it(
    blocklab: Blocklab, study_file: Path, trained: Path, tmp_path: Path
) -> None:
    assert blocklab("study", study_file, "--out", trained).status == 0
    first = trained / next(Study.load(study_file).plan()).definition.hash
    (first / "log.jsonl").write_text("{")
    drawn = blocklab("figure", "accuracy", trained / "tiny", "--to", tmp_path / "drawn")
    assert drawn.status == 0 and "accuracy_over_epochs.svg" in drawn.out
    assert drawn.err.startswith("plain: seed 0: log.jsonl is damaged")
    assert drawn.err.endswith("plain: no result from seed 0\n")
    taken = blocklab("figure", "accuracy", trained / "tiny", "--to", study_file)
    assert taken.status == 2 and f"{study_file} is a file; name a folder" in taken.err
