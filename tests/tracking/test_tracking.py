"""What trackers are told: each line once, by whichever call; their failures touch no run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from blocklab.cli.app import run
from blocklab.errors import InputError
from blocklab.tracking import tracker, tracking
from blocklab.tracking.tracker import Subject, Values, check_trackers
from blocklab.tracking.tracking import Tracking

TINY = """\
title: Two tiny networks
data: {source: digits, train_images: 48, test_images: 60}
recipe: {base: quick, epochs: 2, batch_size: 16}
seeds: 1
varies: [attention]
model: {widths: [4, 4, 8], depths: [1, 1, 1]}
rows: {plain: resnet20, se: resnet20_se}
"""


@dataclass
class Recorder:
    """A tracker that remembers what it is told."""

    subjects: dict[str, Subject] = field(default_factory=dict)
    opened: list[tuple[str, str | None]] = field(default_factory=list)
    lines: list[tuple[str, int, Values]] = field(default_factory=list)
    ended: list[tuple[str, Values, list[str], str]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    fails_at: int = 0  # a step

    def open(self, subject: Subject, known: str | None) -> "_Track":
        name = known or f"id of {subject.name}"
        self.subjects[name] = subject
        self.opened.append((name, known))
        return _Track(name, self)

    def steps(self, name: str) -> list[int]:
        return [step for told, step, _ in self.lines if told == name]


@dataclass
class _Track:
    id: str
    recorder: Recorder

    def log(self, values: Values, step: int) -> None:
        if step == self.recorder.fails_at:
            raise ConnectionError("the server\nhas gone")
        self.recorder.lines.append((self.id, step, values))

    def end(self, values: Values, files: Sequence[Path], status: str) -> None:
        self.recorder.ended.append((self.id, values, [file.name for file in files], status))

    def leave(self) -> None:
        self.recorder.left.append(self.id)


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> dict[str, Recorder]:
    """Two trackers, `one` and `two`, that are installed."""
    made = {"one": Recorder(), "two": Recorder()}
    for name in made:
        monkeypatch.setitem(tracker.MODULES, name, "json")
    monkeypatch.setattr(tracking, "_make_tracker", lambda name, out: made[name])
    return made


def told(growing: Any, names: Sequence[str] = ("one",)) -> list[str]:
    """Let one call's trackers look at a run twice; return their warnings."""
    warnings: list[str] = []
    with Tracking(names, growing.folder.parent, warnings.append) as call:
        for _ in range(2):
            call.follow(growing.folder, "plain seed 3", "study")
    return warnings


def test_each_epoch_is_told_once_whoever_goes_on(growing: Any, recorders: Any) -> None:
    recorder, name = recorders["one"], "id of plain seed 3"
    told(growing)
    assert not recorder.opened  # no epoch, nothing to show
    growing.grow(2)
    told(growing)
    assert recorder.steps(name) == [1, 2] and recorder.left == [name] and not recorder.ended
    growing.end()
    told(growing)
    told(growing)
    assert recorder.steps(name) == [1, 2, 3, 4, 5]
    assert [known for _, known in recorder.opened] == [None, name]
    ((_, final, files, status),) = recorder.ended
    assert final["final/test_top1_percent"] == 70.0 and (files, status) == ([], "finished")
    assert [values["train_loss"] for _, _, values in recorder.lines] == growing.losses()
    assert "epoch" not in recorder.lines[0][2]
    subject = recorder.subjects[name]
    assert (subject.key, subject.group) == (growing.folder.name, "study")
    assert subject.config["recipe.epochs"] == 5 and subject.config["seed"] == 3
    assert subject.config["machine.cores"] == 2


def test_a_tracker_that_fails_is_said_once_and_told_the_rest_later(
    growing: Any, recorders: Any
) -> None:
    one, two = recorders["one"], recorders["two"]
    one.fails_at = 3
    growing.end()
    (warning,) = told(growing, ("one", "two"))
    assert "the tracker one failed (ConnectionError: the server has gone)" in warning
    assert "\n" not in warning
    name = "id of plain seed 3"
    assert one.steps(name) == [1, 2] and two.steps(name) == [1, 2, 3, 4, 5]
    one.fails_at = 0
    assert told(growing, ("one", "two")) == []
    assert one.steps(name) == [1, 2, 3, 4, 5] == two.steps(name)
    assert len(one.ended) == len(two.ended) == 1


def test_a_tracker_that_cannot_begin_is_said_and_left(
    growing: Any, recorders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str, out: Path) -> Any:
        raise ImportError("half of it is missing")

    monkeypatch.setattr(tracking, "_make_tracker", broken)
    growing.end()
    (warning,) = told(growing)
    assert "half of it is missing" in warning


@pytest.mark.parametrize("content", ["", "[]", '{"one": 3}', '{"one": {"id": 5}}', "\x00"])
def test_what_was_told_may_be_damaged(growing: Any, recorders: Any, content: str) -> None:
    (growing.folder / "tracking.json").write_text(content)
    growing.end()
    assert told(growing) == []
    assert recorders["one"].steps("id of plain seed 3") == [1, 2, 3, 4, 5]


def test_a_page_is_handed_over_again_to_where_it_was(recorders: Any, tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    page = tmp_path / "study" / "report.html"
    page.write_text("<p>")
    for _ in range(2):
        with Tracking(["one"], tmp_path, pytest.fail) as call:
            call.page(page.parent, "group", "mine", [page, page.parent / "gone.md"])
    recorder = recorders["one"]
    assert [files for _, _, files, _ in recorder.ended] == [["report.html"]] * 2
    assert [known for _, known in recorder.opened] == [None, "id of mine (page)"]


def test_a_study_tells_of_runs_that_its_workers_train(
    recorders: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], undrawn: None
) -> None:
    """A first call trains untold; a second one, of more seeds, tells of all; a third of nothing."""
    study, out = tmp_path / "tiny.yaml", tmp_path / "runs"
    study.write_text(TINY)
    command = ["study", str(study), "--out", str(out), "--rows", "plain", "--json"]
    assert run(command) == 0
    before = {folder.name for folder in out.iterdir()}
    command[command.index("--rows") : command.index("--json")] = []
    assert run([*command, "--track", "one"]) == 0
    recorder = recorders["one"]
    names = {f"id of {row} seed 0": [1, 2] for row in ("plain", "se")}
    assert {name: recorder.steps(name) for name in names} == names
    assert recorder.ended[-1][2] == ["report.html", "table.md"]
    assert {subject.group for subject in recorder.subjects.values()} == {"tiny"}
    assert before < {folder.name for folder in out.iterdir()}  # a run is the same run, told or not
    capsys.readouterr()
    assert run([*command, "--track", "one"]) == 0
    assert len(recorder.lines) == 4 and len(recorder.ended) == 2 + 2  # runs, and the page twice
    json.loads(capsys.readouterr().out)  # and nothing else


def test_one_run_is_told_while_it_trains(recorders: Any, tmp_path: Path) -> None:
    arguments = ["train", "resnet20:widths=[4,4,8],depths=[1,1,1]", "--data", "digits"]
    for setting in ("data.train_images=48", "data.test_images=60", "epochs=2", "batch_size=16"):
        arguments += ["--set", setting]
    assert run([*arguments, "--out", str(tmp_path / "runs"), "--track", "one"]) == 0
    (subject,) = recorders["one"].subjects.values()
    assert subject.group == "blocklab" and subject.config["recipe.epochs"] == 2
    assert [step for _, step, _ in recorders["one"].lines] == [1, 2]
    assert len(recorders["one"].ended) == 1


@pytest.mark.parametrize("command", ["study quickstart", "train resnet20 --data digits"])
def test_a_tracker_that_is_not_there_is_said_before_anything_trains(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(tracker.MODULES, "wandb", "no_such_module")
    out = tmp_path / "runs"
    assert run([*command.split(), "--out", str(out), "--track", "wandb"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "pip install 'blocklab[wandb]'" in said
    assert not out.exists()


def test_an_unknown_tracker_names_the_closest() -> None:
    with pytest.raises(InputError, match="did you mean 'mlflow'"):
        check_trackers(["mlfow"])
    assert check_trackers([]) == ()
