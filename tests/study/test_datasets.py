"""A study over several data sets: what its file says, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from blocklab.errors import InputError
from blocklab.study.collection import StudyCollection
from blocklab.study.dataset_claims import parse_dataset_claim
from blocklab.study.datasets import read_datasets
from blocklab.study.study import Study
from blocklab.yaml_files import parse_yaml

PLAIN = """\
title: Two
recipe: quick
varies: [attention]
rows: {plain: resnet20, se: resnet20_se, eca: {base: resnet20, attention: eca}}
"""


def _load(tmp_path: Path, more: str, **changes: Any) -> StudyCollection:
    path = tmp_path / "two.yaml"
    path.write_text(PLAIN + more)
    return StudyCollection.load(path, **changes)


def test_each_data_set_has_a_study_that_is_the_plain_one(tmp_path: Path) -> None:
    more = "claims: [se > plain, se > plain on all]\n"
    both = _load(tmp_path, f"datasets: [digits, {{source: cifar100, image_size: 16}}]\n{more}")
    assert both.datasets == ("digits", "cifar100") and both.claims == ("se > plain on all",)
    assert [study.name for study in both.studies] == ["two-digits", "two-cifar100"]
    assert [study.title for study in both.studies] == ["Two: digits", "Two: cifar100"]
    assert all(study.claims == ("se > plain",) for study in both.studies)
    plain = Study.parse(parse_yaml(f"{PLAIN}data: digits", "it"), "plain")
    hashes = [run.definition.hash for run in plain.plan()]
    assert [run.definition.hash for run in both.studies[0].plan()] == hashes
    assert both.studies[1].data.image_size == 16
    assert both.folder_name == "two" and both.title == "Two"


def test_names_paths_and_changes(tmp_path: Path) -> None:
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / "photos" / place).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / place / "0.png")
    named = _load(
        tmp_path,
        "datasets: {small: {source: digits, train_images: 50}, mine: 'folder:photos/'}\n"
        "claims: [se > plain on average, eca > plain on at least 1]\n",
        settings={"epochs": 1},
        rows=["se"],
    )
    assert named.datasets == ("small", "mine")
    assert named.studies[1].data.source == f"folder:{tmp_path / 'photos'}"
    assert named.claims == ("se > plain on average",), "those of rows that are left"
    assert named.notes == (
        "a part of its file's study, without the claim over data sets that names rows that are "
        "not in it",
    )
    assert all(study.recipe.epochs == 1 for study in named.studies)
    assert named.folder_name == "two+rows=plain,se+epochs=1"
    listed = {"datasets": ["digits", "folder:~/photos/", {"source": "hf:user/pets"}]}
    assert list(read_datasets(listed, "n")) == ["digits", "photos", "pets"]
    alone = _load(
        tmp_path, "datasets: [digits, cifar10]\nclaims: [se > plain on all]\n", data="cifar100"
    )
    (study,) = alone.studies
    assert study.data.source == "cifar100" and not alone.datasets and not alone.claims
    assert study.notes == ("on one data set; its file's claim over several is not judged",)
    plain = _load(tmp_path, "datasets: [digits, cifar10]\nclaims: [se > plain]\n", data="digits")
    assert plain.studies[0].notes == ()
    ablated = (
        "title: T\nrecipe: quick\nvaries: [activation, attention]\ndatasets: [digits, cifar10]\n"
        "ablate: {base: resnet20, full: {celu: {activation: celu}, se: {attention: se}}}\n"
        "claims: [full > base on all, without-se > base on all]\n"
    )
    (tmp_path / "a.yaml").write_text(ablated)
    kept = StudyCollection.load(tmp_path / "a.yaml", rows=["full"])
    assert kept.claims == ("full > base on all",)
    whole = StudyCollection.load(tmp_path / "a.yaml")
    assert len(whole.claims) == 2 and whole.notes == ()


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("datasets: [digits]", "two or more.*of one, write data"),
        ("datasets: digits", "two or more"),
        ("datasets: [digits, cifar10]\ndata: digits", "has data and datasets; keep one"),
        ("datasets: [digits, digits]", "two data sets are called 'digits'; give them names"),
        ("datasets: [digits, 3]", "is no data set; write its address"),
        ("datasets: {a: digits, b: [cifar10]}", "'b' with .* is no data set"),
        ("datasets: [digits, digitz]", "did you mean 'digits'"),
        ("datasets: [digits, cifar10]\nclaims: [sé > plain on all]", "names no row 'sé'"),
        ("datasets: [digits, cifar10]\nclaims: [se > plain on at least 3]", "at least 1 to 2"),
        ("datasets: [digits, cifar10]\nclaims: [se > plain on at least one]", "not 'one'"),
        ("datasets: [digits, cifar10]\nclaims: [se best of all on all]", "two rows, or of gains"),
        ("datasets: [digits, cifar10]\nclaims: [se > plain in macs on all]", "macs are counted"),
        (
            "datasets: [digits, cifar10]\nclaims: [{claim: se > plain on all, errata: [7]}]",
            "the claim 'se > plain on all' is over data sets and takes no 'errata'",
        ),
        (
            "datasets: [digits, cifar10]\nclaims: [se > plain on all, se > plain on all]",
            "the claim 'se > plain on all' twice",
        ),
    ],
)
def test_what_is_refused_is_one_line(more: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=why) as caught:
        _load(tmp_path, more)
    assert "\n" not in str(caught.value)


def test_a_row_with_data_of_its_own_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "title: T\nrecipe: quick\nvaries: [attention, data]\ndatasets: [digits, cifar10]\n"
        "rows: {plain: resnet20, se: {model: resnet20_se, data: cifar10}}\n"
    )
    with pytest.raises(InputError, match="row 'se': it has data of its own"):
        StudyCollection.load(tmp_path / "own.yaml")


def test_one_study_is_not_several(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(f"{PLAIN}datasets: [digits, cifar10]\n")
    with pytest.raises(InputError, match=r"StudyCollection\.load"):
        Study.load(path)


def test_claims_over_data_sets() -> None:
    rows = ("a", "b", "a on all")
    read = parse_dataset_claim("a > b by 0.5 in top5  on at  least 2", rows, "b", 3)
    assert (read.least, read.claim.metric, read.claim.margin) == (2, "top5", 0.5)
    assert parse_dataset_claim("a == b on all", rows, "b", 3).least == 3
    assert (
        parse_dataset_claim("gain(a) > 0.5 * gain('a on all') on average", rows, "b", 3).least
        is None
    )
