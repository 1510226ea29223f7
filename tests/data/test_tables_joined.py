"""Parquet files whose labels, shards or columns differ from file to file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_files import make, png, write_parquet, write_shards, write_table

from blocklab.data import tables as module
from blocklab.data.image_data import ImageData, open_data
from blocklab.data.spec import DataSpec
from blocklab.errors import InputError

COLOURS = {"rot0": 10, "rot180": 80, "rot270": 150, "rot90": 220}


def solid(name: str, number: int = 0) -> bytes:
    pixels = np.full((8, 8, 3), COLOURS[name], np.uint8)
    pixels[0, 0] = number
    return png(pixels)


def write(path: Path, words: list[str], names: list[str] | None, **columns: str) -> None:
    """Solid colours; labels are the words' numbers among the names, or the words."""
    images = [solid(word, row) for row, word in enumerate(words)]
    labels: list[Any] = [names.index(word) for word in words] if names else words
    write_table(path, images, labels, names, **columns)


def opened(folder: Path, **fields: object) -> ImageData:
    source = {"source": f"parquet:{folder}", "validation_fraction": 0, **fields}
    return open_data(DataSpec.parse(source))


def refused(folder: Path, message: str, **fields: object) -> None:
    with pytest.raises(InputError, match=message) as caught:
        opened(folder, **fields)
    assert str(caught.value).isprintable()


def truly(data: ImageData) -> None:
    """Each image has the class of its colour."""
    for split in (data.train, data.test, data.validation):
        for image, label in zip(split.pixels(slice(None)), split.targets, strict=True):
            assert COLOURS[data.class_names[label]] == image[7, 7, 0]


ALL = sorted(COLOURS)


@pytest.mark.parametrize(
    ("test_names", "test_words"),
    [
        (["rot0", "rot270", "rot90"], ["rot0", "rot270", "rot90"] * 2),
        (ALL[::-1], ALL * 2),
        (None, ALL * 2),  # as text
    ],
)
def test_labels_are_joined_by_name(
    test_names: list[str] | None, test_words: list[str], data: Path
) -> None:
    write(data / "set" / "train.parquet", ALL * 4, ALL)
    write(data / "set" / "test.parquet", test_words, test_names)
    found = opened(data / "set")
    assert found.class_names == tuple(ALL)
    assert (len(found.train), len(found.test)) == (16, len(test_words))
    truly(found)


def test_shards_whose_names_differ(data: Path) -> None:
    write(data / "set" / "train-00000-of-00002.parquet", ["rot90", "rot0"] * 4, ["rot90", "rot0"])
    write(data / "set" / "train-00001-of-00002.parquet", ALL * 4, ALL)
    write(data / "set" / "test.parquet", ALL, ALL)
    found = opened(data / "set")
    assert found.class_names == ("rot90", "rot0", "rot180", "rot270")
    truly(found)


def test_a_cache_of_labels_not_joined_is_not_taken(data: Path, cache: Path) -> None:
    """As an earlier version left it: under the identity of the files alone."""
    write(data / "set" / "train.parquet", ALL * 4, ALL)
    write(data / "set" / "test.parquet", ["rot0", "rot270"] * 2, ["rot0", "rot270"])
    source = module.parquet_source(data / "set")
    assert source.identity[-1] == "labels joined by name"
    write(data / "same" / "train.parquet", ALL * 4, ALL)
    write(data / "same" / "test.parquet", ALL, ALL)
    assert len(module.parquet_source(data / "same").identity) == 2


def test_numbers_and_text_in_one_split_are_one_line(data: Path) -> None:
    write(data / "set" / "train-00000-of-00002.parquet", ALL * 4, None)
    write_table(data / "set" / "train-00001-of-00002.parquet", [solid("rot0")] * 4, [0, 1, 2, 3])
    write(data / "set" / "test.parquet", ALL, None)
    refused(data / "set", "of-00002.parquet holds numbers without names, and that of other files")
    # With names, the numbers say what they mean.
    write(data / "set" / "train-00001-of-00002.parquet", ALL * 4, ALL[::-1])
    truly(opened(data / "set"))


def test_a_number_beyond_the_names(data: Path) -> None:
    write(data / "set" / "train.parquet", ALL * 4, ALL)
    write_table(data / "set" / "test.parquet", [solid("rot0")] * 2, [0, 3], ["rot0", "rot90"])
    refused(data / "set", r"test.parquet, row 1: label 3 has no name among its 2; remove the row")


def shards(folder: Path, *names: str) -> None:
    for name in names:
        write(folder / f"{name}.parquet", ALL * 2, ALL)
    write(folder / "test.parquet", ALL, ALL)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("train-00000-of-00003-1359597a978bc4fa", "train-00002-of-00003-9c4e6b2ad5f0b7f1"),
            "has 2 of the 3 train parquet files; add the missing ones",
        ),
        (
            ("train-00000-of-00002-aaaa", "train-00000-of-00002-bbbb", "train-00001-of-00002-a"),
            "holds train-00000-of-00002-aaaa.parquet, .*bbbb.parquet, which are not of one set",
        ),
        (("train-00000-of-00002", "train-00001-of-00003"), "which are not of one set"),
        (("train-00000-of-00002", "train-00002-of-00002"), "has 2 of the 2 train parquet files"),
        (("train-00000-of-99999999999999",), "has 1 of the 99999999999999 train"),
        (("train", "train_2"), "holds both train.parquet and train_2.parquet"),
    ],
)
def test_missing_and_doubled_shards(names: tuple[str, ...], message: str, data: Path) -> None:
    shards(data / "set", *names)
    refused(data / "set", message)


@pytest.mark.parametrize(
    "names",
    [
        ("train-00000-of-00002-1359597a", "train-00001-of-00002-9c4e6b2a"),
        ("train-00001-of-00002", "train-00002-of-00002"),
        ("train_0", "train_1"),
        ("Training-00000-of-00002", "Training-00001-of-00002"),
    ],
)
def test_whole_sets_of_shards(names: tuple[str, ...], data: Path) -> None:
    shards(data / "set", *names)
    write(data / "set" / "train_masks-00000-of-00001.parquet", ALL, ALL)  # other data
    assert len(opened(data / "set").train) == 16


@pytest.mark.parametrize("validated", [True, False])
def test_a_test_split_whose_labels_are_hidden_is_none(
    validated: bool, data: Path, caplog: pytest.LogCaptureFixture, rng: np.random.Generator
) -> None:
    """As competitions publish theirs: the validation images are what there is to test on."""
    made = make(rng, 4, train=10, test=2, size=8)
    folder = data / "set"
    write_table(folder / "train.parquet", map(png, made.train), made.train_labels, made.names)
    hidden = [-1] * len(made.test)
    for number in (0, 1):
        path = folder / f"test-{number:05}-of-00002.parquet"
        write_table(path, map(png, made.test), hidden, made.names)
    if validated:
        path = folder / "validation.parquet"
        write_table(path, map(png, made.test), made.test_labels, made.names)
    found = opened(folder)
    assert "hides the labels of its test images (-1), so " in caplog.text
    assert len(found.test) == 8 and len(found.train) == (40 if validated else 32)
    assert np.bincount(found.test.targets).tolist() == [2] * 4
    write_table(path, map(png, made.test), [-1] * 7 + [0], made.names)  # some alone are wrong
    if not validated:
        with pytest.raises(InputError, match="label -1 is none of the 4 classes"):
            opened(folder)


def test_a_validation_split_is_used_as_such(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    for split, rows in (("train", 4), ("validation", 2), ("test", 1)):
        write(data / "set" / f"{split}.parquet", ALL * rows, ALL)
    found = opened(data / "set", validation_fraction=0.1)
    assert [len(s) for s in (found.train, found.validation, found.test)] == [16, 8, 4]
    truly(found)
    assert "8 validation images of its own" in caplog.text


def test_train_alone_has_a_fixed_test_split(data: Path, rng: np.random.Generator) -> None:
    made = make(rng, 4, train=10, test=1, size=8)
    write_shards(made, data / "set", shards=3)
    for path in (data / "set").glob("test*"):
        path.unlink()
    found = opened(data / "set")
    assert np.bincount(found.test.targets).tolist() == [2] * 4
    assert np.bincount(found.train.targets).tolist() == [8] * 4
    given = {
        image.tobytes(): label for image, label in zip(made.train, made.train_labels, strict=True)
    }
    both = [
        (image.tobytes(), label)
        for split in (found.train, found.test)
        for image, label in zip(split.pixels(slice(None)), split.targets, strict=True)
    ]
    assert len(both) == 40 and dict(both) == given
    whole = open_data(
        DataSpec.parse({"source": f"parquet:{data / 'set'}", "image_size": 8}), measure=True
    )
    assert (len(whole.train), len(whole.test)) == (0, 40)


def test_columns_can_be_chosen(data: Path) -> None:
    for split in ("train", "test"):
        write(
            data / "set" / f"{split}.parquet", ALL * 2, ALL,
            image_column="photo", label_column="angle",
        )  # fmt: skip
    columns = {"image_column": "photo", "label_column": "angle"}
    found = opened(data / "set", **columns)
    truly(found)
    refused(data / "set", r"has no label column: .*; found: photo, angle \(data.label_column names")
    misspelt = columns | {"image_column": "foto"}
    refused(data / "set", "has no column 'foto'; did you mean 'photo'", **misspelt)
    spec = DataSpec.parse({"source": f"parquet:{data / 'set'}", **columns})
    assert spec.definition().items() >= columns.items()


def test_another_column_is_another_cache(data: Path) -> None:
    for split in ("train", "test"):
        path = data / "set" / f"{split}.parquet"
        write(path, ALL * 2, ALL)
        table = pq.read_table(path)
        other = pa.array(list(reversed(table["label"].to_pylist())))
        pq.write_table(table.append_column("other", other), path)
    usual, chosen = opened(data / "set"), opened(data / "set", label_column="other")
    assert list(chosen.train.targets) == list(reversed(list(usual.train.targets)))


def test_all_faulty_rows_are_counted(data: Path) -> None:
    write(data / "set" / "test.parquet", ALL, ALL)
    path = data / "set" / "train.parquet"
    good = solid("rot0")
    write_table(path, [good] * 4, [0, None, None, None], ALL)
    refused(data / "set", "row 1 has no label, nor have 2 more rows; remove the rows")
    write_table(path, [good, None, b"x", None], [0, 1, 2, 3], ALL)
    refused(data / "set", "^3 images cannot be used: .*row 1 has no image.*row 2 .*row 3 has no i")
    write_table(path, [good] * 4, [0, 7, 8, 9], ALL)
    refused(data / "set", r"row 1: label 7 is none of the 4 classes .*\(and of 2 more rows\)")


def test_files_that_unpack_to_more_than_they_could_hold(data: Path) -> None:
    write(data / "set" / "test.parquet", ALL, ALL)
    path = data / "set" / "train.parquet"
    image = pa.DictionaryArray.from_arrays(np.zeros(2_000_000, np.int32), [solid("rot0")])
    pq.write_table(pa.table({"img": image, "label": np.zeros(2_000_000, np.int8)}), path)
    assert path.stat().st_size < 1_000_000
    refused(data / "set", "it says that it has 2,000,000 rows, more than its bytes could hold")
    large = pa.array([bytes(300 << 20), b""], pa.binary())
    table = pa.table({"img": large, "label": [0, 1]})
    pq.write_table(table, path, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < 1_000_000
    refused(data / "set", "img unpacks to 0.3 GB")


def test_one_text_of_many_rows_is_there_once(data: Path) -> None:
    """A hundred thousand rows of a class name of a megabyte are not 100 GB."""
    labels = pa.DictionaryArray.from_arrays(
        np.arange(100_000, dtype=np.int32) % 2, ["a" * 1_000_000, "b"]
    )
    path = data / "train.parquet"
    pq.write_table(pa.table({"label": labels}), path)
    found = module._labels(path, "label")
    assert len(found) == 100_000 and len({id(text) for text in found}) == 2


def test_names_in_metadata_of_odd_shapes(data: Path) -> None:
    for note in (
        b"[" * 100_000,
        json.dumps({"info": {"features": {"label": []}}}).encode(),
        b"\xff",
    ):
        write_parquet(make(np.random.default_rng(0), 2, 4, 2, size=8), data / "set")
        path = data / "set" / "train.parquet"
        table = pq.read_table(path).replace_schema_metadata({"huggingface": note})
        pq.write_table(table, path)
        assert len(opened(data / "set").class_names) == 2
