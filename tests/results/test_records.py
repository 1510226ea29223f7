"""Records of a study: its page without the weights, and what they still say of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blocklab.errors import InputError, RunError
from blocklab.files import write_checked_json
from blocklab.results.collection_file import CollectionJson
from blocklab.results.named_run import find_run
from blocklab.results.records import keep_collection, keep_records
from blocklab.results.study_folder import read_study_folder
from blocklab.training.run_reader import RunReader


@pytest.fixture
def studied(make_run: Callable[..., Path], tmp_path: Path) -> Path:
    """A study's folder of one row and three seeds, of which one has not ended."""
    folders = [
        make_run(tmp_path / "runs", "plain", seed, 40.0 + seed, images=100) for seed in (0, 1)
    ]
    runs = {str(seed): folder.name for seed, folder in enumerate(folders)} | {"2": "0" * 16}
    row = {"name": "plain", "model": {"name": "plain"}, "runs": runs}
    row |= {"cost": {"macs": 10**9, "params": 10**6, "input_size": 32}}
    content: dict[str, Any] = {"title": "Kept", "description": "", "data": {"source": "cifar100"}}
    content |= {"recipe": {"epochs": 5}, "recipe_name": "quick", "seeds": [0, 1, 2]}
    content |= {"varies": ["model"], "baseline": "plain", "notes": [], "claims": []}
    content |= {"command": None, "threads": 1, "rows": [row]}
    write_checked_json(tmp_path / "runs" / "study" / "study.json", content)
    return tmp_path / "runs" / "study"


def test_records_are_the_study_without_its_weights(studied: Path, tmp_path: Path) -> None:
    kept = keep_records(studied, tmp_path / "kept")
    assert (kept.runs, kept.missing) == (2, 1)
    assert not list(tmp_path.glob("kept/**/model.safetensors"))
    assert kept.bytes == sum(
        path.stat().st_size for path in tmp_path.glob("kept/runs/*/*") if path.name != "record.json"
    )
    ours, theirs = read_study_folder(tmp_path / "kept"), read_study_folder(studied)
    assert ours.summary_lines == theirs.summary_lines
    assert ours.rows[0].troubles == theirs.rows[0].troubles
    run = RunReader(find_run(tmp_path / "kept" / "plain:0"))
    assert run.folder.parent == tmp_path / "kept" / "runs"
    assert run.arrays()["labels"].size == 100
    with pytest.raises(RunError, match=f"the run {run.folder.name} has no logits: it was kept w"):
        run.logits()


def test_a_study_grows_and_records_are_kept_of_records(studied: Path, tmp_path: Path) -> None:
    keep_records(studied, tmp_path / "kept")
    assert keep_records(tmp_path / "kept", tmp_path / "again").runs == 2
    assert keep_records(studied, tmp_path / "kept").runs == 2
    assert len(list((tmp_path / "again" / "runs").iterdir())) == 2


def test_a_folder_is_one_studys(studied: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is the study's own folder; name another"):
        keep_records(studied, studied)
    keep_records(studied, tmp_path / "kept")
    content = json.loads((studied / "study.json").read_text()) | {"title": "Another"}
    del content["sha256"]
    write_checked_json(studied / "study.json", content)
    before = (tmp_path / "kept" / "study.json").read_bytes()
    with pytest.raises(InputError, match="another study: its title is 'Kept'; name another"):
        keep_records(studied, tmp_path / "kept")
    assert (tmp_path / "kept" / "study.json").read_bytes() == before


def test_records_do_not_shrink(studied: Path, tmp_path: Path) -> None:
    """Of one title, and with fewer seeds or other runs: its page would be of these alone."""
    keep_records(studied, tmp_path / "kept")
    whole = json.loads((studied / "study.json").read_text())
    del whole["sha256"]
    (row,) = whole["rows"]
    runs = row["runs"]
    fewer = {seed: run for seed, run in runs.items() if seed != "1"}
    for rows, paired, why in (
        ([row | {"runs": fewer}], False, "its row 'plain' has seed 1, which this one's has not"),
        ([row | {"runs": runs | {"1": "1" * 16}}], False, "its row 'plain' has other runs"),
        ([row | {"name": "se"}], False, "it has a row 'plain', which this one has not"),
        ([row], True, "its paired is 'False'"),
    ):
        write_checked_json(studied / "study.json", whole | {"rows": rows, "paired": paired})
        with pytest.raises(InputError, match=f"another study: {why}; name another folder"):
            keep_records(studied, tmp_path / "kept")
    more = [row | {"runs": runs | {"3": "3" * 16}}, row | {"name": "se", "runs": {"0": "4" * 16}}]
    write_checked_json(studied / "study.json", whole | {"rows": more})
    assert keep_records(studied, tmp_path / "kept").missing == 3


def test_records_are_not_strewn_among_other_files(studied: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    with pytest.raises(InputError, match="mine holds other files; name a new folder"):
        keep_records(studied, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    with pytest.raises(InputError, match=r"notes\.txt is a file; name a folder"):
        keep_records(studied, tmp_path / "mine" / "notes.txt")


def test_records_are_not_kept_beside_the_studys_own_runs(studied: Path, tmp_path: Path) -> None:
    """They would mark them as kept without weights, which are no longer missed."""
    with pytest.raises(InputError, match="has the study's own runs in it; name another folder"):
        keep_records(studied, tmp_path)  # whose runs/ they are
    assert not list(tmp_path.rglob("record.json"))
    content = CollectionJson(studies=["study"])
    with pytest.raises(InputError, match="has the studies' own runs in it; name another folder"):
        keep_collection(content, tmp_path / "runs", tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    with pytest.raises(InputError, match="mine holds other files; name a new folder"):
        keep_collection(content, tmp_path / "runs", tmp_path / "mine")


def test_records_go_on_where_keeping_them_was_stopped(studied: Path, tmp_path: Path) -> None:
    keep_records(studied, tmp_path / "kept")
    (tmp_path / "kept" / "study.json").unlink()  # it is written last
    (tmp_path / "kept" / "design.json").write_text("")
    assert keep_records(studied, tmp_path / "kept").runs == 2


def test_a_damaged_diagnosis_is_not_kept(studied: Path, tmp_path: Path) -> None:
    run = find_run(studied / "plain:0")
    (run / "diagnosis.json").write_text("{")
    with pytest.raises(
        RunError, match=r"diagnosis\.json is damaged .*; run its study again, .* count again"
    ):
        keep_records(studied, tmp_path / "kept")


def test_only_weights_may_be_left_out(studied: Path, tmp_path: Path) -> None:
    keep_records(studied, tmp_path / "kept")
    run = find_run(tmp_path / "kept" / "plain:0")
    (run / "record.json").write_text(json.dumps({"left_out": ["predictions.npz"]}))
    (run / "predictions.npz").unlink()
    assert RunReader(run).fault == "predictions.npz is gone"
    (run / "record.json").write_text("[")
    assert RunReader(run).fault is not None
