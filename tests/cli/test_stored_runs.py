"""``blocklab runs``: what lies in the folder of run folders, and what of it is deleted."""

import io
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from blocklab.files import write_checked_json
from blocklab.models.spec import model_spec
from blocklab.training.run_folder import note_failure

Blocklab = Callable[..., Any]
Stored = Mapping[str, Path]


def write_study(out: Path, name: str, rows: Mapping[str, Mapping[int, Path]]) -> None:
    """Write the study.json of a study with these runs."""
    cost = {"macs": 10**9, "params": 10**6, "input_size": 32}
    listed = [
        {"name": row, "model": {}, "cost": cost, "runs": {str(s): f.name for s, f in runs.items()}}
        for row, runs in rows.items()
    ]
    content = {"title": name, "description": "", "data": {}, "recipe": {}, "recipe_name": "quick"}
    content |= {"seeds": [0, 1], "varies": [], "baseline": "plain", "notes": [], "command": None}
    write_checked_json(out / name / "study.json", {**content, "rows": listed})


@pytest.fixture
def stored(make_run: Callable[..., Path], tmp_path: Path) -> Stored:
    """Six runs: two of a study, one of that and another, one of none; one damaged, one failed."""
    out = tmp_path / "runs"
    model = model_spec("resnet20_se").to_dict()
    runs = {
        "plain0": make_run(out, "plain", 0, 70.0, images=50),
        "se0": make_run(out, "se", 0, None, model=model),
        "shared": make_run(out, "plain", 1, 71.5),
        "alone": make_run(out, "resnet20", 5, 60.0),
        "damaged": make_run(out, "broken", 0, 60.0),
        "failed": make_run(out, "bad", 0, 60.0),
    }
    (runs["damaged"] / "log.jsonl").write_text("{")
    (runs["failed"] / "result.json").unlink()
    note_failure(runs["failed"], "out of memory")
    write_study(
        out, "mine", {"plain": {0: runs["plain0"], 1: runs["shared"]}, "se": {0: runs["se0"]}}
    )
    write_study(out, "other", {"base": {1: runs["shared"]}})
    (out / "no_run").mkdir()
    (out / ("a" * 16)).mkdir()  # named as a run's, and none
    return runs


def listed(blocklab: Blocklab, stored: Stored, *arguments: object) -> set[str]:
    """Return the runs that are listed, by the names that the fixture gives them."""
    out = stored["alone"].parent
    said = blocklab("runs", "--out", out, "--json", *arguments)
    assert said.status == 0, said.err
    names = {str(folder): name for name, folder in stored.items()}
    return {names[run["folder"]] for run in json.loads(said.out)["runs"]}


def test_runs_are_listed_with_their_studies_and_the_disk_they_take(
    blocklab: Blocklab, stored: Stored
) -> None:
    out = stored["alone"].parent
    shown = json.loads(blocklab("runs", "--out", out, "--json").out)
    runs = {Path(run["folder"]).name: run for run in shown["runs"]}
    assert len(runs) == 6
    plain = runs[stored["plain0"].name]
    assert (plain["label"], plain["seed"], plain["top1"]) == ("plain", 0, 70.0)
    assert (plain["status"], plain["epochs"], plain["epochs_asked"]) == ("finished", 5, 5)
    assert plain["studies"] == ["mine/plain"]
    files = sum(path.stat().st_size for path in stored["plain0"].iterdir())
    assert plain["bytes"] == files > 1000
    assert shown["bytes"] == sum(run["bytes"] for run in runs.values())
    assert runs[stored["shared"].name]["studies"] == ["mine/plain", "other/base"]
    statuses = {name: runs[folder.name]["status"] for name, folder in stored.items()}
    assert statuses["se0"] == "diverged" and statuses["alone"] == "finished"
    assert (statuses["damaged"], statuses["failed"]) == ("damaged", "failed")
    table = blocklab("runs", "--out", out).out
    assert stored["alone"].name in table and "6 runs, 0." in table and "mine/plain" in table


def test_a_study_that_cannot_be_read_may_have_any_run(blocklab: Blocklab, stored: Stored) -> None:
    """Cut short by a full disk, or of a later version: its runs are not of no study."""
    out = stored["alone"].parent
    text = (out / "mine" / "study.json").read_text()
    (out / "mine" / "study.json").write_text(text[: len(text) // 2])
    assert listed(blocklab, stored, "--no-study") == set()
    assert listed(blocklab, stored, "--study", "other") == {"shared"}
    said = blocklab("runs", "--out", out, "--no-study", "--delete", "--yes")
    assert said.status == 0 and "deleted 0 runs" in said.out
    assert "mine: its study.json or design.json cannot be read, so any run may be" in said.err
    assert all(folder.is_dir() for folder in stored.values())


def test_runs_are_chosen(blocklab: Blocklab, stored: Stored) -> None:
    def found(*arguments: object) -> set[str]:
        return listed(blocklab, stored, *arguments)

    assert found("--study", "mine") == {"plain0", "se0", "shared"}
    assert found("--study", "o*") == {"shared"}
    assert found("--study", "nothing") == set()
    assert found("--no-study") == {"alone", "damaged", "failed"}
    assert found("--model", "resnet20_s*") == {"se0"}  # by what it is, not what its row is called
    assert found("--model", "plain") == {"plain0", "shared"}
    assert found("--status", "failed", "--status", "damaged") == {"failed", "damaged"}
    assert found("--study", "mine", "--status", "finished") == {"plain0", "shared"}
    assert found("--older-than", "1h") == set()
    two_days_ago = time.time() - 2 * 86_400
    for file in stored["alone"].iterdir():
        os.utime(file, (two_days_ago, two_days_ago))
    assert found("--older-than", "1d") == {"alone"} == found("--older-than", "47h")
    assert found("--older-than", "3d") == set()
    with FileLock(stored["alone"] / "lock"):
        assert found("--status", "training") == {"alone"}


def test_deleting_a_study_keeps_what_others_have_and_what_is_trained(
    blocklab: Blocklab, stored: Stored
) -> None:
    out = stored["alone"].parent
    with FileLock(stored["se0"] / "lock"):
        said = blocklab("runs", "--out", out, "--study", "mine", "--delete", "--yes")
    assert said.status == 0, said.err
    gone = {name for name, folder in stored.items() if not folder.exists()}
    assert gone == {"plain0"}
    assert f"{stored['shared']}, which mine/plain, other/base have" in said.out
    assert f"{stored['se0']}, which is being trained" in said.out
    assert "deleted 1 run, " in said.out
    assert (out / "mine" / "study.json").exists()
    both = blocklab("runs", "--out", out, "--study", "*", "--delete", "--yes", "--json")
    deleted = {Path(folder).name for folder in json.loads(both.out)["deleted"]}
    assert deleted == {stored["shared"].name, stored["se0"].name}
    assert stored["alone"].exists() and stored["damaged"].exists()


class Terminal(io.StringIO):
    """Somebody who answers."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "left"), [("n\n", 6), ("y\n", 5)])
def test_deleting_asks_first(
    blocklab: Blocklab, stored: Stored, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    out = stored["alone"].parent
    said = blocklab("runs", "--out", out, "--model", "resnet20", "--delete")
    assert said.status == 0
    assert "delete 1 run, " in said.out
    assert sum(folder.exists() for folder in stored.values()) == left


def test_a_linked_folder_is_no_run(blocklab: Blocklab, stored: Stored, tmp_path: Path) -> None:
    """Somebody's other data must not go with a name."""
    out = stored["alone"].parent
    moved = tmp_path / "elsewhere"
    stored["alone"].rename(moved)
    stored["alone"].symlink_to(moved)
    blocklab("runs", "--out", out, "--model", "*", "--delete", "--yes")
    assert (moved / "run.json").exists() and not stored["plain0"].exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--delete", "--yes"), "say which"),
        (("--study", "mine", "--delete"), "add --yes"),
        (("--study", "mine", "--delete", "--json"), "add --yes"),
        (("--older-than", "soon"), "an age is such as 30m"),
        (("--status", "lost"), "'--status'"),
    ],
)
def test_what_is_asked_wrongly_deletes_nothing(
    blocklab: Blocklab, stored: Stored, arguments: tuple[str, ...], message: str
) -> None:
    said = blocklab("runs", "--out", stored["alone"].parent, *arguments)
    assert said.status == 2 and message in said.err and said.err.count("\n") == 1
    assert all(folder.exists() for folder in stored.values())


def test_a_folder_that_is_not_there_is_named(blocklab: Blocklab, tmp_path: Path) -> None:
    said = blocklab("runs", "--out", tmp_path / "nowhere")
    assert said.status == 2 and "nowhere" in said.err


def test_runs_of_records_are_their_studys(
    blocklab: Blocklab, stored: Stored, tmp_path: Path
) -> None:
    """They lie within the study's folder, or that of its collection, not beside it."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (tmp_path / "runs").rename(kept / "runs")
    write_study(tmp_path, "kept", {"plain": {0: stored["plain0"], 5: stored["alone"]}})
    lone = blocklab("runs", "--out", kept / "runs", "--no-study", "--json")
    names = {Path(run["folder"]).name for run in json.loads(lone.out)["runs"]}
    assert stored["damaged"].name in names and not names & {
        stored["plain0"].name,
        stored["alone"].name,
    }
