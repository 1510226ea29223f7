"""The answers that a run keeps: read again, left out, deleted, damaged, and of older runs."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blocklab.data.spec import DataSpec
from blocklab.errors import InputError, RunError
from blocklab.models.spec import model_spec
from blocklab.results.ended_run import read_ended_run
from blocklab.results.kept_answers import ensemble_of, read_answers
from blocklab.training.finished import FinishedRun
from blocklab.training.logits import kept_form
from blocklab.training.recipe import Recipe
from blocklab.training.run import execute_run
from blocklab.training.run_definition import RunDefinition
from blocklab.training.run_reader import RunReader, is_finished

IMAGES = 40


def trained(out: Path, seed: int = 0, on_note: Any = None) -> Path:
    definition = RunDefinition(
        model_spec({"backbone": "resnet20", "widths": [4, 4, 8], "depths": [1, 1, 1]}),
        DataSpec.parse({"source": "digits", "train_images": 48, "test_images": IMAGES}),
        Recipe.parse({"epochs": 1, "batch_size": 16, "lr": 0.05}),
        seed,
    )
    return execute_run(definition, out, threads=1, on_note=on_note)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    out = tmp_path_factory.mktemp("runs")
    return trained(out), trained(out, 1)


@pytest.fixture
def run(runs: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy, to be spoilt."""
    return Path(shutil.copytree(runs[0], tmp_path / runs[0].name))


def test_kept_logits_are_those_of_the_network(run: Path) -> None:
    answers = read_answers(run)
    record, again = FinishedRun.open(run).evaluate_images()
    assert answers.logits is not None and again.logits is not None and answers.missing is None
    assert answers.logits.shape == (IMAGES, 10) and answers.logits.dtype == np.float16
    assert np.array_equal(answers.logits, again.logits)
    assert np.array_equal(answers.logits.argmax(1), answers.predicted)
    assert (answers.logits.max(1) == 0).all()
    chosen = torch.tensor(answers.logits).float().log_softmax(1)[range(IMAGES), answers.labels]
    np.testing.assert_allclose(-chosen, answers.loss, rtol=5e-3, atol=5e-3)  # of fp16
    assert answers.top1_percent == pytest.approx(record["test_top1_percent"])


def test_halves_hold_the_largest_logits_and_ties_near_the_top() -> None:
    logits = torch.tensor([[1e6, 1e6 - 0.25, -1e6], [30.0, 29.999, float("-inf")]])
    kept = kept_form(logits)
    assert kept.isfinite().all() and (kept[:, 0] == 0).all()
    assert kept[0, 1] == -0.25 and kept[1, 1] < 0


def test_switched_off_nothing_else_changes(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLOCKLAB_LOGITS_MB", "0")
    said: list[str] = []
    without = trained(tmp_path / "off", on_note=said.append)
    assert said == [] and without.name == run.name
    assert not (without / "logits.npz").exists()
    for name in ("model.safetensors", "predictions.npz"):
        assert (without / name).read_bytes() == (run / name).read_bytes()
    answers = read_answers(without)
    assert answers.calibration is None and "BLOCKLAB_LOGITS_MB was 0" in (answers.missing or "")
    assert answers.per_class == read_answers(run).per_class
    assert answers.confusions() == read_answers(run).confusions()


def test_too_many_are_said_before_training(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("BLOCKLAB_LOGITS_MB", "0.0001")
    said: list[str] = []
    folder = trained(tmp_path, on_note=said.append)
    assert said[0].startswith("no logits are kept: 40 test images of 10 classes are")
    assert not (folder / "logits.npz").exists() and is_finished(folder)
    monkeypatch.setenv("BLOCKLAB_LOGITS_MB", "many")
    with pytest.raises(InputError, match="is megabytes, 0 to keep no logits, not 'many'"):
        trained(tmp_path, 1)


def test_a_record_without_them_reads(run: Path) -> None:
    (run / "logits.npz").unlink()
    assert is_finished(run) and RunReader(run).fault is None
    answers = read_answers(run)
    assert answers.logits is None and "they were deleted" in (answers.missing or "")
    assert len(answers.per_class) == 10


def test_an_older_result_knows_of_none(run: Path) -> None:
    """A file of them that the result does not list is nobody's."""
    from blocklab.files import write_checked_json

    result = json.loads((run / "result.json").read_text())
    del result["sha256"], result["files"]["logits.npz"]
    write_checked_json(run / "result.json", result)
    assert is_finished(run)
    assert "an older version" in (read_answers(run).missing or "")


@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "folder"])
def test_damage_is_said_and_the_run_still_counts(run: Path, how: str) -> None:
    path = run / "logits.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if how == "folder":
        path.mkdir()
    else:
        path.write_bytes({"flipped": bytes(content), "cut": content[:50], "empty": b""}[how])
    assert is_finished(run)
    said = read_answers(run).missing or ""
    assert "logits.npz is damaged" in said and "`blocklab evaluate` has them anew" in said


def test_seeds_make_an_ensemble(runs: tuple[Path, Path]) -> None:
    ended = [read_ended_run(RunReader(folder)) for folder in runs]
    found = ensemble_of([run for run in ended if run])
    assert found.members == 2 and 0 <= found.top1_percent <= 100
    assert [*found.members_top1_percent] == [
        pytest.approx(run.figure("test_top1_percent")) for run in ended if run
    ]


def test_classes_that_are_not_there_are_refused(make_run: Any, tmp_path: Path) -> None:
    fewer = {"class_names": ["a", "b"]}
    folder = make_run(tmp_path, images=40, run=fewer)
    with pytest.raises(RunError, match="name classes that it has not"):
        read_answers(folder)
