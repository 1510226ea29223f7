"""Properties of the splits and limits, for any labels."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from blocklab.data.image_data import open_data
from blocklab.data.spec import DataSpec
from blocklab.data.split import (
    LIMIT_SEED,
    VALIDATION_SEED,
    Split,
    stratified_limit,
    stratified_split,
)
from blocklab.errors import InputError

LABELS = st.lists(st.integers(0, 12), min_size=1, max_size=200).map(
    lambda numbers: np.array(numbers, np.int64)
)
FRACTIONS = st.floats(0, 0.999)
SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=150, deadline=None)
@given(LABELS, FRACTIONS, SEEDS)
def test_a_split_shares_out_every_row_once_in_proportion(
    labels: np.ndarray, fraction: float, seed: int
) -> None:
    kept, held = stratified_split(labels, fraction, seed)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert (np.diff(kept) > 0).all() and (np.diff(held) > 0).all()
    counts = np.bincount(labels)
    lost = np.bincount(labels[held], minlength=len(counts))
    assert (lost <= np.maximum(counts - 1, 0)).all(), "a class lost its last row"
    wanted = round(fraction * len(labels))
    assert len(held) == min(wanted, int(np.maximum(counts - 1, 0).sum()))
    if (counts[counts > 0] * (1 - fraction) >= 1).all():  # no class is too small for its share
        assert (np.abs(lost - counts * wanted / len(labels)) < 1 + 1e-6).all()
    again = stratified_split(labels, fraction, seed)
    assert (again[0] == kept).all() and (again[1] == held).all()


@settings(max_examples=150, deadline=None)
@given(LABELS, st.data(), SEEDS)
def test_a_limit_keeps_each_class_and_takes_exactly_so_many(
    labels: np.ndarray, data: st.DataObject, seed: int
) -> None:
    classes = len(np.unique(labels))
    count = data.draw(st.integers(classes, len(labels)))
    rows = stratified_limit(labels, count, seed, "train_images")
    assert len(rows) == count and (np.diff(rows) > 0).all()
    assert len(np.unique(labels[rows])) == classes
    counts, taken = np.bincount(labels), np.bincount(labels[rows])
    if (counts[counts > 0] * count / len(labels) >= 1).all():
        assert (np.abs(taken - counts * count / len(labels)) < 1 + 1e-6).all()
    assert (stratified_limit(labels, count, seed, "train_images") == rows).all()


@settings(max_examples=50, deadline=None)
@given(LABELS, st.integers(-5, 300))
def test_a_limit_that_cannot_be_is_one_line(labels: np.ndarray, count: int) -> None:
    if len(np.unique(labels)) <= count <= len(labels):
        return
    with pytest.raises(InputError, match=f"^train_images={count}[^\n]+$"):
        stratified_limit(labels, count, 0, "train_images")


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2.0, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match="at least 0 and under 1"):
        stratified_split(np.zeros(4, np.int64), fraction, 0)


def test_the_splits_of_known_labels_never_change() -> None:
    """Pinned: another choice here would make runs of different versions train on other images."""
    labels = np.arange(20) % 2
    assert stratified_split(labels, 0.2, VALIDATION_SEED)[1].tolist() == [9, 16, 17, 18]
    assert stratified_limit(labels, 4, LIMIT_SEED, "n").tolist() == [1, 10, 13, 18]


def test_the_validation_images_are_the_same_whatever_else_is_asked_for() -> None:
    every = open_data(DataSpec.parse("digits"))
    few = open_data(DataSpec(source="digits", train_images=100, test_images=50, image_size=16))
    assert (every.validation.indices == few.validation.indices).all()
    assert len(every.validation) == 130 and len(few.train) == 100 and len(few.test) == 50
    assert set(few.train.indices) <= set(every.train.indices)
    assert not set(every.train.indices) & set(every.validation.indices)


def test_a_split_that_varies_is_another_from_each_seed_and_tests_on_the_same_images() -> None:
    fields = {"source": "digits", "train_images": 200}
    plain = DataSpec.parse(fields)
    varied = DataSpec.parse({**fields, "vary_split": True})
    assert "vary_split" not in plain.definition() and varied.definition()["vary_split"] is True
    first, second, again = (open_data(varied, seed=seed) for seed in (0, 1, 0))
    fixed, other_seed = open_data(plain), open_data(plain, seed=1)
    assert (other_seed.validation.indices == fixed.validation.indices).all()
    for split in ("train", "validation"):
        indices = getattr(first, split).indices
        assert (indices == getattr(again, split).indices).all()
        for other in (second, fixed):
            of_other = getattr(other, split).indices
            assert len(of_other) == len(indices) and (of_other != indices).any()
            assert (np.bincount(getattr(other, split).targets) > 0).all()
    limit = DataSpec.parse({**fields, "vary_split": True, "validation_fraction": 0})
    assert (open_data(limit, seed=1).train.indices != open_data(limit).train.indices).any()
    assert not set(second.train.indices) & set(second.validation.indices)
    assert (first.test.indices == second.test.indices).all()


def test_a_split_that_has_nothing_to_vary_is_refused(data: Path, rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match=r"set validation_fraction=0\.1, or train_images"):
        DataSpec.parse({"source": "digits", "vary_split": True, "validation_fraction": 0})
    for split in ("train", "valid", "test"):
        for name in ("a", "b"):
            path = data / split / name / "0.png"
            path.parent.mkdir(parents=True)
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    own = {"source": f"folder:{data}", "vary_split": True}
    with pytest.raises(InputError, match="validation images of its own, so vary_split has nothing"):
        open_data(DataSpec.parse(own))
    assert len(open_data(DataSpec.parse({**own, "train_images": 2})).train) == 2


def test_no_validation_and_too_little_of_it() -> None:
    assert len(open_data(DataSpec(source="digits", validation_fraction=0)).validation) == 0
    with pytest.raises(InputError, match="validation_fraction=1e-05 of 1297 images is none"):
        open_data(DataSpec(source="digits", validation_fraction=1e-5))


def test_limits_beyond_the_data_say_how_many_there_are() -> None:
    with pytest.raises(InputError, match=r"there are 1167 images \(130 more are set aside"):
        open_data(DataSpec(source="digits", train_images=1168))
    with pytest.raises(InputError, match="test_images=501, but there are 500 images"):
        open_data(DataSpec(source="digits", test_images=501))
    with pytest.raises(InputError, match="train_images=9 is fewer than the 10 classes"):
        open_data(DataSpec(source="digits", train_images=9))


def test_parts_of_parts_copy_no_pixels() -> None:
    images = np.arange(4 * 2 * 3 * 3, dtype=np.uint8).reshape(4, 2, 3, 3)
    split = Split.whole(images, np.array([3, 1, 2, 0]))
    part = split.part(np.array([3, 1])).part(np.array([1]))
    assert part.images is images and part.indices.tolist() == [1] and part.targets.tolist() == [1]
    assert (part.pixels(slice(None)) == images[[1]]).all()
