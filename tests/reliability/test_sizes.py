"""Sizes have bounds, said when they are refused; nothing is built or unpacked to find out."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blocklab.backbones.config import MOST_BLOCKS
from blocklab.cli import app
from blocklab.errors import InputError
from blocklab.execution.dry_run import plan_lines
from blocklab.execution.train_studies import train_studies
from blocklab.measure.speed import bench
from blocklab.models.factory import create_model
from blocklab.models.spec import model_spec
from blocklab.models.weights import load_weights
from blocklab.study.study import Study
from blocklab.training.predictions import pack, unpack
from blocklab.training.recipe import Recipe
from blocklab.training.run_folder import RunFolder
from blocklab.yaml_files import parse_yaml, read_yaml

TINY = {"backbone": "resnet20", "widths": [4, 8, 8], "depths": [1, 1, 1]}


@pytest.mark.parametrize(
    ("changes", "bound"),
    [
        ({"widths": [100_000, 8, 8]}, "65,536"),
        ({"depths": [2_000, 1, 1]}, f"{MOST_BLOCKS:,}"),
        ({"depths": [10**400, 1, 1]}, "65,536"),
        ({"attention": ["se"] * 65}, "64"),
        ({"attention": {"type": "mean", "of": ["se"] * 65}}, "64"),
        ({"attention": {"type": "mean", "of": ["se"] * 64}, "depths": [300, 1, 1]}, "10,000"),
        ({"attention": {"type": "se", "reduction": 2**70}}, "65,536"),
        ({"attention": {"type": "triplet", "kernel": 2_001}}, "1023"),
        ({"mixer": {"type": "hierarchical_split", "scale": 300}}, "256"),
        ({"stem": {"type": "deep", "widths": [10**9, 4]}}, "65,536"),
        ({"widths": [4, 8]}, "3 stages"),
    ],
)
def test_sizes_of_models_have_bounds(changes: dict[str, Any], bound: str) -> None:
    with pytest.raises(InputError) as refused:
        model_spec({**TINY, **changes})
    assert bound in str(refused.value) and len(str(refused.value)) < 400


def test_the_deepest_published_resnet_is_no_fault() -> None:
    assert model_spec({"backbone": "resnet20", "depths": [200, 200, 200]})  # ResNet-1202


@pytest.mark.parametrize("classes", [-1, 10**6 + 1, 10**400, True, 1.5])
def test_classes_have_bounds(classes: Any) -> None:
    with pytest.raises(InputError, match="num_classes must be a whole number from 0 to 1,000,000"):
        create_model(TINY, num_classes=classes)


@pytest.mark.parametrize(
    "arguments",
    [
        ["describe", "resnet20", "--input-size", "1" + "0" * 400],
        ["describe", "resnet20", "--num-classes", "1" + "0" * 30],
        ["describe", "resnet20", "--num-classes", "9" * 5000],
        ["models", "resnet20", "--cost", "--input-size", str(2**63)],
        ["bench", "resnet20", "--batch-size", str(2**64)],
        ["bench", "resnet20", "--input-size", str(2**64)],
        ["train", "resnet20", "--data", "digits", "--seed", str(2**64)],
        ["train", "resnet20", "--data", "digits", "--threads", str(2**64)],
        ["train", "resnet20", "--data", "digits", "--devices", str(2**64)],
        ["train", "resnet20", "--data", "digits", "--nodes", str(2**64)],
        ["train", "resnet20", "--data", "digits", "--set", f"epochs={10**30}"],
        ["study", "quickstart", "--dry-run", "--seeds", str(2**64)],
        ["study", "quickstart", "--dry-run", "--workers", str(2**64)],
        ["study", "quickstart", "--dry-run", "--threads", str(2**64)],
        ["study", "quickstart", "--dry-run", "--workers", "9" * 5000],
        ["study", "quickstart", "--dry-run", "--rows", "res\rnet"],
    ],
)
def test_huge_numbers_on_the_command_line_are_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("error: ") and "fault of" not in said


def test_batches_to_diagnose_may_be_any_number(finished: Path) -> None:
    assert app.run(["diagnose", str(finished), "--first", "1", "--last", str(2**70)]) == 0
    assert app.run(["diagnose", str(finished), "--first", str(2**64), "--last", str(2**70)]) == 2


def test_numbers_in_yaml_can_be_counted() -> None:
    with pytest.raises(InputError, match="too large"):
        parse_yaml("seeds: 0x" + "f" * 100_000, "it")
    with pytest.raises(InputError, match="epochs is too large"):
        Recipe.parse({"epochs": 10**400})


def test_a_pipe_is_no_yaml_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "study.yaml")
    with pytest.raises(InputError, match="is no file"):
        read_yaml(tmp_path / "study.yaml")


def too_large() -> Study:
    return Study.parse(
        {
            "title": "t",
            "data": {"source": "digits", "train_images": 60, "test_images": 50},
            "recipe": {"base": "quick", "epochs": 1, "batch_size": 20},
            "varies": ["widths"],
            "rows": {"small": TINY, "large": {**TINY, "widths": [10_000, 20_000, 40_000]}},
        },
        "sizes",
    )


def test_what_the_memory_cannot_hold_is_listed_and_not_timed(tmp_path: Path) -> None:
    small, large = plan_lines((too_large(),), tmp_path, workers=1)
    assert small["seconds_left"] > 0 and large["seconds_left"] is None
    assert large["memory_bytes"] > 100 << 30


def test_what_the_memory_cannot_hold_is_not_begun(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'large' would take about .* MB and this machine has"):
        train_studies((too_large(),), tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="batches of 1,000,000 would take about"):
        bench(TINY, batch_size=1_000_000)


def test_a_checkpoint_that_unpacks_to_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.pth", tmp_path / "w.pth"
    torch.save({"fc.weight": torch.zeros(4_000_000)}, whole)
    with (
        zipfile.ZipFile(whole) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for one in source.infolist():
            target.writestr(one.filename, source.read(one))
    assert torch.load(path)["fc.weight"].shape == (4_000_000,)
    with pytest.raises(InputError, match="it unpacks to 16,0"):
        load_weights(create_model(TINY, num_classes=10), path)


def test_predictions_that_unpack_to_more_than_their_images_are_refused() -> None:
    content = pack({"labels": np.zeros(1_000_000, np.int64)})
    assert len(content) < 100_000
    with pytest.raises(ValueError, match="it unpacks to 8,000,"):
        unpack(content, 50)
    assert unpack(content, 1_000_000)["labels"].shape == (1_000_000,)


def test_a_device_is_no_checkpoint(finished: Path) -> None:
    (finished / "last.ckpt").unlink()
    (finished / "last.ckpt").symlink_to("/dev/zero")
    saved, notes = RunFolder(finished).load_checkpoint(finished.name)
    assert saved is None and "last.ckpt is damaged" in notes[0]


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_state_dict_that_holds_itself_is_refused(tmp_path: Path, wrapped: bool) -> None:
    held: dict[str, Any] = {"state_dict": {}}
    held["state_dict"]["model" if wrapped else "state_dict"] = held
    torch.save(held, tmp_path / "w.pth")
    with pytest.raises(InputError, match="holds itself"):
        load_weights(create_model(TINY), tmp_path / "w.pth")


def test_sparse_tensors_are_refused(tmp_path: Path) -> None:
    state = create_model(TINY, num_classes=10).state_dict()
    state["conv1.weight"] = state["conv1.weight"].to_sparse()
    with pytest.raises(InputError, match="is a sparse, packed or nested"):
        load_weights(create_model(TINY, num_classes=10), state)


def test_weights_that_are_no_numbers_are_said(tmp_path: Path) -> None:
    state = create_model(TINY, num_classes=10).state_dict()
    state["conv1.weight"][0] = float("nan")
    report = load_weights(create_model(TINY, num_classes=10), state)
    assert report.not_finite == ("conv1.weight",) and "not finite" in str(report)
