"""Rows that start from weights: what identifies them, what is loaded, what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from blocklab.data.image_data import open_data
from blocklab.data.normalisation import normalised_by
from blocklab.data.spec import DataSpec
from blocklab.errors import InputError
from blocklab.execution.plan import make_plan
from blocklab.execution.verify import verify_run
from blocklab.models.expected_images import normalisation_of
from blocklab.models.factory import create_model
from blocklab.models.model_file import save_model
from blocklab.models.pretrained import Pretrained
from blocklab.running import run_study
from blocklab.study.study import Study
from blocklab.training.run import execute_run

MODEL = {"base": "resnet18", "stem": "cifar", "widths": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}


def _model(classes: int, seed: int = 0, **slots: Any) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = create_model(MODEL, classes, **slots)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.add_(0.01 * torch.rand_like(value))
    return model


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "start.safetensors"
    save_file(dict(_model(5).state_dict()), path)
    return path


def _study(folder: Path, **rows: Any) -> dict[str, Any]:
    recipe = {"epochs": 1, "batch_size": 64, "lr": 0.01, "freeze": ["backbone"]}
    recipe |= {"memory_format": "contiguous", "precision": "fp32"}
    return {
        "title": "start",
        "data": {"source": "digits", "train_images": 128},
        "recipe": recipe,
        "varies": ["pretrained", "recipe.freeze"],
        "rows": rows,
    }


def test_what_the_file_holds_identifies_a_run_not_where_it_lies(weights: Path) -> None:
    moved = weights.with_name("moved.safetensors")
    shutil.copy(weights, moved)
    hashes = {}
    for name, start in {
        "here": str(weights),
        "moved": str(moved),
        "scratch": None,
        "fresh": {"weights": str(weights), "head": "fresh"},
        "partial": {"weights": str(weights), "strict": False},
    }.items():
        study = Study.parse(_study(weights.parent, row={"model": MODEL, "pretrained": start}), "s")
        hashes[name] = study.rows[0].definition(0).hash
    assert hashes["here"] == hashes["moved"] and len(set(hashes.values())) == 4
    plain = Study.parse(_study(weights.parent, row={"model": MODEL}), "s").rows[0].definition(0)
    assert plain.hash == hashes["scratch"] and "pretrained" not in plain.to_dict()


def test_a_study_has_weights_for_all_rows_and_a_row_may_start_from_none(weights: Path) -> None:
    file = _study(weights.parent, scratch={"model": MODEL, "pretrained": None}, probe=MODEL)
    study = Study.parse(file | {"pretrained": str(weights)}, "s")
    scratch, probe = study.rows
    assert scratch.pretrained is None and probe.pretrained == Pretrained.parse(str(weights))
    with pytest.raises(InputError, match=r"differs from 'scratch' in pretrained\.sha256"):
        Study.parse(file | {"pretrained": str(weights), "varies": ["model", "recipe"]}, "s")


def test_paths_are_seen_from_the_study_file(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"a": {"model": MODEL, "pretrained": weights.name}}
    (weights.parent / "study.yaml").write_text(json.dumps(_study(weights.parent, **rows)))
    monkeypatch.chdir("/")
    assert Study.load(weights.parent / "study.yaml").rows[0].pretrained == Pretrained.parse(
        {"weights": str(weights)}
    )


def test_a_run_starts_from_its_weights_and_says_tensor_by_tensor(
    weights: Path, tmp_path: Path
) -> None:
    study = Study.parse(_study(tmp_path, probe={"model": MODEL, "pretrained": str(weights)}), "s")
    run = execute_run(study.rows[0].definition(0), tmp_path / "runs")
    told = json.loads((run / "run.json").read_text())["pretrained"]
    given, trained = load_file(weights), load_file(run / "model.safetensors")
    assert told["weights"] == str(weights)
    assert set(told["loaded"]) == {name for name in given if not name.startswith("fc.")}
    assert set(told["fresh"]) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(given[name], trained[name]) for name in told["loaded"])
    assert verify_run(run).same


@pytest.mark.parametrize(
    ("normalize", "std", "remedy"),
    [
        ("imagenet", IMAGENET_DEFAULT_STD, None),
        ("dataset", IMAGENET_DEFAULT_STD, "set normalize: imagenet"),
        ("imagenet", (0.5, 0.5, 0.5), "no `normalize` of a recipe does that"),
        ("half", None, "set normalize: dataset"),
        ("dataset", None, None),
    ],
)
def test_images_that_weights_were_not_trained_with_are_noted(
    normalize: str, std: Any, remedy: str | None, tmp_path: Path
) -> None:
    data = open_data(DataSpec.parse("digits"))
    mean, std = (data.mean, data.std) if std is None else (IMAGENET_DEFAULT_MEAN, std)
    model: Any = _model(5)
    save_model(model, tmp_path / "said.safetensors", mean=mean, std=std)
    row = {"model": MODEL, "pretrained": str(tmp_path / "said.safetensors")}
    row["recipe"] = {"normalize": normalize}
    study = Study.parse(_study(tmp_path, row=row) | {"varies": ["recipe"]}, "s")
    notes: list[str] = []
    run = execute_run(study.rows[0].definition(0), tmp_path / "runs", on_note=notes.append)
    (start,) = [note for note in notes if note.startswith("starts from")]
    notes.remove(start)
    if remedy is None:
        assert notes == []
    else:
        (note,) = notes
        assert note.startswith("the weights were trained on images normalised by mean ")
        assert note.endswith(f"; {remedy}")
    # A run's folder says it of its own weights.
    mine = normalisation_of(run / "model.safetensors")
    assert mine == normalised_by(normalize, tuple(data.mean), tuple(data.std))


def test_a_head_of_as_many_classes_is_taken(tmp_path: Path) -> None:
    model = _model(10)
    save_file(dict(model.state_dict()), tmp_path / "ten.safetensors")
    start = Pretrained.parse(str(tmp_path / "ten.safetensors"))
    fresh = _model(10, seed=1)
    assert start.load(fresh).fresh == ()
    assert torch.equal(fresh.get_classifier().weight, model.get_classifier().weight)
    kept = _model(10, seed=1).get_classifier().weight
    other = _model(10, seed=1)
    Pretrained.parse({"weights": start.weights, "head": "fresh"}).load(other)
    assert torch.equal(other.get_classifier().weight, kept)


def test_a_plain_networks_weights_start_one_with_blocks(weights: Path) -> None:
    model = _model(5, seed=1, attention="se")
    with pytest.raises(InputError, match=r"missing.*strict=False"):
        Pretrained.parse(str(weights)).load(model)
    report = Pretrained.parse({"weights": str(weights), "strict": False}).load(model)
    assert set(report.loaded) == set(load_file(weights)) and report.missing


def test_a_file_of_timm_starts_the_network_of_its_design(tmp_path: Path) -> None:
    theirs = timm.create_model("resnet18", num_classes=5)
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "timm.pth")
    ours = create_model("resnet18", 7)
    report = Pretrained.parse(str(tmp_path / "timm.pth")).load(ours)
    assert report.fresh == ("fc.weight", "fc.bias")
    images = torch.randn(2, 3, 40, 48)
    expected = theirs.eval().forward_features(images)
    torch.testing.assert_close(ours.eval().forward_features(images), expected)


def test_a_study_of_three_starts_is_trained_and_told_on_its_page(
    weights: Path, tmp_path: Path
) -> None:
    file = _study(
        tmp_path,
        scratch={"model": MODEL, "recipe": {"freeze": []}},
        probe={"model": MODEL, "pretrained": str(weights)},
        all={"model": MODEL, "pretrained": str(weights), "recipe": {"freeze": []}},
    )
    results = run_study(Study.parse(file, "starts"), out=tmp_path / "runs")
    assert [len(row.finished) for row in results.rows] == [1, 1, 1]
    page = (tmp_path / "runs" / "starts" / "report.html").read_text()
    assert "probe starts from" in page and weights.name in page


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("nowhere.pth", "no file .*nowhere.pth"),
        ({"weigths": "a.pth"}, "no 'weigths'.*did you mean 'weights'"),
        ({"head": "fresh"}, "needs weights"),
        ({"weights": "a", "sha256": "abc"}, "sha256"),
        ({"weights": "a", "head": "new"}, "head"),
        (7, "pretrained"),
    ],
)
def test_what_is_no_start_is_one_line(start: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words) as refused:
        Study.parse(_study(tmp_path, row={"model": MODEL, "pretrained": start}), "s")
    assert "\n" not in str(refused.value)


def test_weights_of_another_design_are_refused_before_anything_trains(
    weights: Path, tmp_path: Path
) -> None:
    rows = {"plain": {"model": MODEL}, "other": {"model": "resnet20", "pretrained": str(weights)}}
    study = Study.parse(_study(tmp_path, **rows) | {"varies": ["model", "pretrained"]}, "s")
    with pytest.raises(InputError, match=r"row 'other': .*start\.safetensors: .*of another shape"):
        make_plan([study], tmp_path / "runs")


def test_parts_to_freeze_are_checked_before_anything_trains(tmp_path: Path) -> None:
    file = _study(tmp_path, plain={"model": MODEL, "recipe": {"freeze": ["layer9"]}})
    with pytest.raises(InputError, match="row 'plain': it has no part 'layer9'"):
        make_plan([Study.parse(file, "s")], tmp_path / "runs")


def test_a_file_that_changed_is_another_start(weights: Path, tmp_path: Path) -> None:
    study = Study.parse(_study(tmp_path, row={"model": MODEL, "pretrained": str(weights)}), "s")
    save_file(dict(_model(5, seed=2).state_dict()), weights)
    with pytest.raises(InputError, match="is not the file that the run is to start from"):
        make_plan([study], tmp_path / "runs")
