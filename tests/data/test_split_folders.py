"""Folders that are splits are never taken for classes, and what is in doubt is refused."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from image_files import Made, encoded, make, png, write_class_folders, write_classes

from blocklab.data.image_data import ImageData, open_data
from blocklab.data.sources import portable_address
from blocklab.data.spec import DataSpec
from blocklab.data.split_names import role
from blocklab.errors import InputError

Write = Callable[[Made, Path], object]


def opened(folder: Path, **fields: object) -> ImageData:
    return open_data(
        DataSpec.parse({"source": f"folder:{folder}", "validation_fraction": 0, **fields})
    )


def refused(folder: Path, message: str, **fields: object) -> None:
    with pytest.raises(InputError, match=message) as caught:
        opened(folder, **fields)
    assert str(caught.value).isprintable()


def images(split: object) -> list[bytes]:
    pixels = split.pixels(slice(None))  # type: ignore[attr-defined]
    return sorted(image.tobytes() for image in pixels)


def two(train: str, test: str, within: str = "") -> Write:
    """Class folders below two folders of these names."""

    def write(made: Made, root: Path) -> None:
        write_class_folders(made, root / within)
        (root / within / "train").rename(root / within / "a")
        (root / within / "test").rename(root / within / "b")
        for old, new in (("a", train), ("b", test)):
            (root / within / new).parent.mkdir(parents=True, exist_ok=True)
            (root / within / old).rename(root / within / new)

    return write


@pytest.mark.parametrize(
    "write",
    [
        two("Train", "Test"),
        two("TRAIN", "test"),
        two("training", "testing"),
        two("training_set", "test_set"),
        two("train_images", "val_images"),
        two("TrainImages", "TestImages"),
        two("train", "valid"),
        two("train", "dev"),
        two("train2017", "val2017"),
        two("asl_alphabet_train", "asl_alphabet_test"),
        two("seg_train/seg_train", "seg_test/seg_test"),
        two("train", "test", "archive"),
        two("Training Data", "Validation-Data", "archive/data set"),
    ],
)
def test_common_spellings_of_splits(write: Write, data: Path, rng: np.random.Generator) -> None:
    made = make(rng, 2, train=6, test=3, size=8)
    write(made, data / "set")
    (data / "set" / "__MACOSX").mkdir()
    found = opened(data / "set")
    assert found.class_names == tuple(made.names)
    assert images(found.train) == sorted(image.tobytes() for image in made.train)
    assert images(found.test) == sorted(image.tobytes() for image in made.test)
    assert not len(found.validation)


def test_classes_without_a_validation_image_are_named(
    data: Path, caplog: pytest.LogCaptureFixture, rng: np.random.Generator
) -> None:
    made = make(rng, 4, train=4, test=2, size=8)
    write_class_folders(made, data / "set")
    shutil.copytree(data / "set" / "test", data / "set" / "val")
    open_data(DataSpec.parse({"source": f"folder:{data / 'set'}"}))
    assert "no validation image" not in caplog.text
    shutil.rmtree(data / "set" / "val" / made.names[1])
    found = open_data(DataSpec.parse({"source": f"folder:{data / 'set'}"}))
    assert np.bincount(found.validation.targets, minlength=4).tolist() == [2, 0, 2, 2]
    assert f"no validation image is of class {made.names[1]}" in caplog.text


@pytest.mark.parametrize("name", ["valid", "val", "Validation", "dev"])
def test_a_users_own_validation_split(
    name: str, data: Path, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    made, own = make(rng, 2, 6, 3, size=8), make(rng, 2, 4, 4, size=8)
    write_class_folders(made, data / "set")
    write_class_folders(own, data / "own")
    without = opened(data / "set")
    (data / "own" / "train").rename(data / "set" / name)
    for _ in range(2):  # decoded, then out of the cache
        found = opened(data / "set", validation_fraction=0.25)
        assert images(found.validation) == sorted(image.tobytes() for image in own.train)
        assert images(found.train) == sorted(image.tobytes() for image in made.train)
        assert images(found.test) == sorted(image.tobytes() for image in made.test)
        np.testing.assert_array_equal(np.bincount(found.validation.targets), [4, 4])
        assert found.fingerprint != without.fingerprint
        assert (found.mean, found.std) == (without.mean, without.std)
    (note,) = found.notes
    assert "8 validation images of its own" in note and "validation_fraction=0.25 does no" in note
    assert [record.getMessage() for record in caplog.records] == [note]  # once


def test_classes_that_are_called_like_splits(data: Path, rng: np.random.Generator) -> None:
    write_classes(data / "set", {"bus": 5, "car": 5, "train": 5}, rng)
    assert opened(data / "set").class_names == ("bus", "car", "train")
    write_classes(data / "set" / "train", {"steam": 5, "diesel": 5}, rng)
    refused(data / "set", r"has train/ but neither.*also holds bus/, car/; .*set data.splits=none")
    found = opened(data / "set", splits="none")
    assert found.class_names == ("bus", "car", "train")
    assert np.bincount(found.train.targets).tolist() == [4, 4, 12]
    # Two such classes need the word, and with it they are what they are called.
    write_classes(data / "odd", {"bus": 5, "test": 5, "train": 5}, rng)
    refused(data / "odd", "holds splits|has no class folders; .*set data.splits=none")
    assert opened(data / "odd", splits="none").class_names == ("bus", "test", "train")
    write_classes(data / "track", {"bullet_train": 5, "crash_test": 5, "train_station": 5}, rng)
    assert len(opened(data / "track").class_names) == 3


def test_the_word_is_part_of_a_run_and_others_stay_as_they_were(
    data: Path, rng: np.random.Generator
) -> None:
    write_classes(data / "set", {"bus": 5, "train": 5}, rng)
    plain = DataSpec(source=f"folder:{data / 'set'}")
    fields = {"source", "image_size", "train_images", "test_images", "validation_fraction"}
    assert set(plain.definition()) == fields  # as ever: it is hashed
    assert set(DataSpec.parse("digits").definition()) == fields
    told = plain.model_copy(update={"splits": "none"})
    assert told.definition() == {**plain.definition(), "splits": "none"}


def made_in(*folders: str) -> Write:
    def write(made: Made, root: Path) -> None:
        for number, folder in enumerate(folders):
            place = root / folder
            place.mkdir(parents=True, exist_ok=True)
            for image in range(5):
                (place / f"{number}{image}.png").write_bytes(png(made.train[5 * number + image]))

    return write


DOUBTFUL: dict[str, tuple[Sequence[str], str]] = {
    "splits without classes": (("Train", "Test"), "Test has no class folders.* holds Test/, Train"),
    "class, then split": (
        ("cat/train", "cat/test", "dog/train", "dog/test"),
        r"class 'cat' .* holds splits \(test, train\); turn the folders round, as train/cat",
    ),
    "splits beside classes": (
        ("Train/cat", "Train/dog", "Test/cat", "Test/dog", "bird"),
        r"holds splits \(Test/, Train/\) beside other folders \(bird/\); move the others away",
    ),
    "a split among its classes": (
        ("cat", "dog", "test/cat", "test/dog"), "has test/ but no train/.* also holds cat/, dog/",
    ),
    "no training": (("test/cat", "test/dog"), "has test/ but no train/; add it"),
    "no training, twice": (
        ("Test/cat", "Test/dog", "Val/cat", "Val/dog"), "has Test/, Val/ but no train/",
    ),
    "two of one": (
        ("train1/cat", "train1/dog", "train2/cat", "train2/dog", "test/cat", "test/dog"),
        "holds train1/, train2/, of which only one can be meant",
    ),
    "a split for each class": (
        ("cats_train", "cats_test", "dogs_train", "dogs_test"), "whose names are those of splits",
    ),
    "one class": (("cat",), r"has one class alone \(cat\), which leaves nothing to tell apart"),
    "one class in splits": (("train/cat", "test/cat"), "has one class alone"),
    "other classes": (
        ("Train/cat", "Train/dog", "Test/cat", "Test/cow"), "class 'dog' is in .*Train but not in",
    ),
    "validation of other classes": (
        ("train/cat", "train/dog", "test/cat", "test/dog", "val/cow"),
        "class 'cow' is in .*val but not in .*train",
    ),
    "validation without classes": (
        ("train/cat", "train/dog", "test/cat", "test/dog", "val"), "val has no class folders",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DOUBTFUL)
def test_what_is_in_doubt_is_refused(case: str, data: Path, rng: np.random.Generator) -> None:
    folders, message = DOUBTFUL[case]
    made_in(*folders)(make(rng, 2, train=30, test=1, size=8), data / "set")
    refused(data / "set", message)


def test_a_wrapping_folder_is_looked_through(data: Path, rng: np.random.Generator) -> None:
    write_classes(data / "flat", {"cat": 10, "dog": 10}, rng)
    plain = opened(data / "flat")
    for wrapping in ("archive", "a/b", "archive/train"):  # training images alone: a fifth tests
        place = data / wrapping.replace("/", "_") / wrapping
        shutil.copytree(data / "flat", place)
        found = opened(data / wrapping.replace("/", "_"))
        assert found.class_names == ("cat", "dog")
        assert images(found.test) == images(plain.test)


def test_a_new_class_in_a_wrapped_split_changes_the_address(
    data: Path, rng: np.random.Generator
) -> None:
    two("Train", "Test", "archive")(make(rng, 2, 4, 2, size=8), data / "set")
    first = portable_address(f"folder:{data / 'set'}")
    for split in ("Train", "Test"):
        write_classes(data / "set" / "archive" / split, {"new": 2}, rng)
    assert portable_address(f"folder:{data / 'set'}") != first


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Train", ("train", ())),
        ("valid", ("validation", ())),
        ("test-set (2)", ("test", ())),
        ("TestImages", ("test", ())),
        ("train_station", ("train", ("station",))),
        ("trains", None),
        ("latest", None),
        ("train_test", None),
        ("device", None),
        ("contest", None),
    ],
)
def test_what_a_name_says(name: str, expected: tuple[str, tuple[str, ...]] | None) -> None:
    assert role(name) == expected


def test_options_that_mean_nothing_for_a_source_are_refused(data: Path) -> None:
    for source, name, value in (
        ("digits", "splits", "none"),
        ("cifar100", "exif", True),
        (f"folder:{data}", "label_column", "x"),
        (f"parquet:{data}", "splits", "none"),
    ):
        with pytest.raises(InputError, match=f"data.{name} has no meaning for '"):
            DataSpec.parse({"source": source, name: value})


def test_measuring_takes_what_there_is(data: Path, rng: np.random.Generator) -> None:
    made = make(rng, 2, train=6, test=3, size=8)
    write_classes(data / "flat", {"cat": 10, "dog": 10, "cow": 1}, rng)
    spec = DataSpec.parse({"source": f"folder:{data / 'flat'}", "image_size": 8})
    whole = open_data(spec, measure=True)
    assert (len(whole.train), len(whole.validation), len(whole.test)) == (0, 0, 21)
    assert len(open_data(spec).test) == 4  # and for training it stays a fifth
    assert len(open_data(spec, measure=True).test) == 21
    numbered = whole.of_classes(("x", "cow", "dog", "cat"))
    assert np.bincount(numbered.test.targets).tolist() == [0, 1, 10, 10]
    with pytest.raises(InputError, match=r"flat has other classes \(cow\)"):
        whole.of_classes(("cat", "dog"))
    write_class_folders(made, data / "set")
    shutil.rmtree(data / "set" / "train")
    spec = DataSpec.parse({"source": f"folder:{data / 'set'}", "image_size": 8})
    assert images(open_data(spec, measure=True).test) == sorted(i.tobytes() for i in made.test)


def test_files_left_out_are_counted(
    data: Path, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    write_classes(data / "set", {"a": 6, "b": 6}, rng)
    for name in ("a/x.heic", "a/y.svg", "b/img_001", "b/Thumbs.db", "loose.png", "notes.txt"):
        (data / "set" / name).write_bytes(b"x")
    found = opened(data / "set")
    assert len(found.train) + len(found.test) == 12
    (note,) = [record.getMessage() for record in caplog.records]
    assert note.startswith("4 files are left out, ") and note.endswith("a/x.heic)")


@pytest.mark.parametrize(
    ("ending", "kind"),
    [("jfif", "JPEG"), ("jpe", "JPEG"), ("gif", "GIF"), ("avif", "AVIF"), ("jp2", "JPEG2000")],
)
def test_further_kinds_are_read(
    ending: str, kind: str, data: Path, rng: np.random.Generator
) -> None:
    write_classes(data / "set", {"a": 6, "b": 6}, rng)
    ramp = np.repeat(np.arange(8, dtype=np.uint8)[:, None, None] * 30, 8, 1).repeat(3, 2)
    try:
        content = encoded(ramp, kind)
    except (KeyError, OSError):
        pytest.skip(f"Pillow was built without {kind}")
    (data / "set" / "a" / f"x.{ending.upper()}").write_bytes(content)
    found = opened(data / "set")
    assert len(found.train) + len(found.test) == 13
    pixels = np.concatenate([found.train.pixels(slice(None)), found.test.pixels(slice(None))])
    errors = np.abs(pixels.astype(int) - ramp).reshape(13, -1).max(1)
    assert np.sort(errors)[0] <= 20 < np.sort(errors)[1]


def test_faults_are_listed_together(data: Path, rng: np.random.Generator) -> None:
    for split in ("train", "test"):
        write_classes(data / "set" / split, {"a": 9, "b": 9}, rng)
        for number in range(7):
            (data / "set" / split / "a" / f"{number}.png").write_bytes(b"damaged")
    refused(
        data / "set",
        r"^14 images cannot be used: cannot read the image .*/train/a/0.png \(not an image\); "
        r"replace or remove it; (.*test/a/.*){3}; and 4 more$",
    )
    for name in ("c", "d", "e"):
        (data / "set" / "train" / name).mkdir()
    (data / "set" / "train" / "a" / "link.png").symlink_to("gone")
    refused(data / "set", r"^4 files or folders cannot be used: cannot read .*link.png.*class 'e'")
