"""More epochs than a finished run has: going on from it, with the bits of one never shorter."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blocklab.data.spec import DataSpec
from blocklab.execution.train_studies import train_studies
from blocklab.execution.verify import compare_runs
from blocklab.models.spec import model_spec
from blocklab.study.study import Study
from blocklab.training.checkpoints import KEEP_VARIABLE
from blocklab.training.recipe import Recipe
from blocklab.training.run import execute_run
from blocklab.training.run_definition import RunDefinition
from blocklab.training.run_folder import write_result
from blocklab.training.run_reader import RunReader

TINY = "resnet20:widths=[4,4,8],depths=[1,1,1]"


@pytest.fixture(autouse=True)
def _checkpoints_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEEP_VARIABLE, "1")


def definition(epochs: int, **changes: Any) -> RunDefinition:
    fields = {"epochs": epochs, "batch_size": 16, "lr": 0.05, "schedule": "constant", **changes}
    data = DataSpec.parse({"source": "digits", "train_images": 48, "test_images": 40})
    return RunDefinition(model_spec(TINY), data, Recipe.parse(fields), 3)


def trained(out: Path, epochs: int, **changes: Any) -> tuple[Path, list[int], list[str]]:
    """Train a run; return its folder, the epochs that were trained now, and what was noted."""
    now: list[int] = []
    notes: list[str] = []
    folder = execute_run(
        definition(epochs, **changes),
        out,
        threads=1,
        on_epoch=lambda record: now.append(record["epoch"]),
        on_note=notes.append,
    )
    return folder, now, notes


@pytest.mark.parametrize(
    "changes",
    [
        {"warmup_epochs": 1.5, "flip": True, "ema_decay": 0.9},
        {"schedule": "step", "step_epochs": 2, "mixup": 0.2, "drop_last": True},
    ],
)
def test_the_bits_are_those_of_a_run_that_was_never_shorter(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    first, *_ = trained(tmp_path / "one", 2, **changes)
    trained(tmp_path / "one", 3, **changes)
    longest, now, notes = trained(tmp_path / "one", 5, **changes)
    assert now == [4, 5]  # from the longest there was
    assert len(notes) == 1 + ("ema_decay" in changes)
    assert notes[-1].endswith("which has its epochs up to 3")
    assert RunReader(longest).require_run()["went_on_from"] in notes[-1]
    whole, now, _ = trained(tmp_path / "other", 5, **changes)
    assert now == [1, 2, 3, 4, 5]
    assert compare_runs(RunReader(whole), RunReader(longest))[0] is None
    assert RunReader(first).finished  # and is left as it was


@pytest.mark.parametrize("schedule", ["cosine", "onecycle"])
def test_a_schedule_that_looks_ahead_begins_anew_and_says_why(
    tmp_path: Path, blocklab: Any, schedule: str
) -> None:
    trained(tmp_path, 1, schedule=schedule)
    settings = {"epochs": 2, "batch_size": 16, "lr": 0.05, "schedule": schedule}
    settings |= {"data.train_images": 48, "data.test_images": 40}
    path = tmp_path / "recipe.yaml"
    path.write_text("{}\n")
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command = ("train", TINY, "--data", "digits", "--recipe", path, "--seed", 3, "--out", tmp_path)
    said = blocklab(*command, *options, "--json")
    assert said.status == 0
    assert json.loads(said.out)["run"] == str(tmp_path / definition(2, schedule=schedule).hash)
    words = " ".join(said.err.split())
    assert (
        "note it trains from its first epoch, though a run of 1 is finished, as the "
        f"{schedule} schedule of 2 is another one from the first step on" in words
    )
    assert "epoch 1/2" in words
    again = blocklab(*command, *options, "--json")
    assert again.err == ""


def test_what_cannot_be_gone_on_from_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, *_ = trained(tmp_path, 1)
    for number, harm in enumerate(("checkpoint", "images", "seed", "diverged")):
        out = tmp_path / harm
        shutil.copytree(folder, out / folder.name)
        changes: dict[str, Any] = {}
        if harm == "checkpoint":
            (out / folder.name / "last.ckpt").write_bytes(b"damaged")
        elif harm == "images":
            monkeypatch.setattr(
                "blocklab.training.run.open_data", _with_another_fingerprint(number)
            )
        elif harm == "diverged":
            result = dict(RunReader(folder).require_result()) | {"status": "diverged"}
            write_result(out / folder.name, result)
        else:
            changes["lr"] = 0.06
        assert trained(out, 2, **changes)[1] == [1, 2], harm
        monkeypatch.undo()


def test_without_a_kept_checkpoint_it_begins_anew_and_says_what_to_set(
    tmp_path: Path, blocklab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEEP_VARIABLE)
    command = ("train", TINY, "--data", "digits", "--out", tmp_path)
    fields = ("batch_size=16", "schedule=constant", "data.train_images=48", "data.test_images=40")
    options = [part for field in fields for part in ("--set", field)]
    assert blocklab(*command, *options, "--set", "epochs=1").status == 0
    said = blocklab(*command, *options, "--set", "epochs=2")
    assert said.status == 0
    assert (
        "note it trains from its first epoch, though a run of 1 is finished, as it kept no "
        "checkpoint; runs trained with BLOCKLAB_KEEP_CHECKPOINT=1 do" in " ".join(said.err.split())
    )


def test_the_longest_that_kept_its_checkpoint_is_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(tmp_path, 1)
    monkeypatch.delenv(KEEP_VARIABLE)
    trained(tmp_path, 2)
    assert trained(tmp_path, 3)[1] == [2, 3]


def test_a_kill_does_not_cost_the_epochs_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once begun, a run goes on from its own checkpoint alone: there must be one at once."""
    trained(tmp_path, 2)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("blocklab.training.run.train", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, 4)
    monkeypatch.undo()
    assert trained(tmp_path, 4)[1] == [3, 4]


def _with_another_fingerprint(number: int) -> Any:
    from blocklab.data.image_data import open_data

    return lambda spec, seed=0: replace(open_data(spec, seed=seed), fingerprint=f"{number}")


def test_a_study_of_more_epochs_goes_on(tmp_path: Path) -> None:
    recipe = {"base": "quick", "epochs": 1, "batch_size": 16, "schedule": "constant"}
    content = {
        "title": "t",
        "data": {"source": "digits", "train_images": 48, "test_images": 40},
        "recipe": {**recipe, "warmup_epochs": 0},
        "varies": [],
        "rows": {"plain": TINY},
    }
    train_studies((Study.parse(content, "s"),), tmp_path, 1)
    longer = Study.parse(content, "s", settings={"epochs": 2})
    (results,) = train_studies((longer,), tmp_path, 1)
    (run,) = results.rows[0].runs
    assert run.run["went_on_from"] == next(Study.parse(content, "s").plan()).definition.hash
