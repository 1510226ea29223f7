"""Copies of images between splits: against a slow loop, planted ones, and through the command."""

import json
from pathlib import Path

import numpy as np
import pytest
from image_files import Made, make, write_parquet
from PIL import Image

from blocklab.cli.app import run
from blocklab.data import near_copies
from blocklab.data.image_data import open_data
from blocklab.data.near_copies import find_copies
from blocklab.data.spec import DataSpec
from blocklab.data.split import Split
from blocklab.errors import InputError


def _split(images: np.ndarray, labels: list[int] | None = None) -> Split:
    return Split.whole(images, np.array(labels or [0] * len(images), np.int64))


def _seen(image: np.ndarray, side: int) -> np.ndarray:
    """As the equation has it: reduced, each channel's mean taken away."""
    size = min(len(image), side)
    edges = [np.flatnonzero(np.arange(len(image)) * size // len(image) == i) for i in range(size)]
    # A block's mean counts by the square root of its pixels, so that it projects.
    cells = np.array(
        [
            [image[np.ix_(a, b)].mean((0, 1)) * np.sqrt(len(a) * len(b)) for b in edges]
            for a in edges
        ]
    )
    cells = cells - cells.mean((0, 1))
    return cells.ravel()


def _table(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return how alike each of some images is to each of others, mirrored or not."""
    seen = [_seen(other, 32) for other in others]
    ways = [(_seen(one, 32), _seen(one[:, ::-1], 32)) for one in ones]
    return np.array(
        [
            [max(a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a in way) for b in seen]
            for way in ways
        ]
    )


@pytest.mark.parametrize("size", [8, 13, 32, 45])
def test_the_copies_are_those_of_a_slow_loop(
    size: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_copies, "IMAGES_AT_ONCE", 4)  # several blocks of each
    monkeypatch.setattr(near_copies, "ROWS_AT_ONCE", 3)
    monkeypatch.setattr(near_copies, "MOST_HELD", 7)
    train = rng.integers(0, 256, (10, size, size, 3), np.uint8)
    share = np.linspace(0.3, 0.9, 12)[:, None, None, None]
    noise = rng.integers(0, 256, (12, *train.shape[1:]))
    mixed = share * train[rng.integers(0, 10, 12)] + (1 - share) * noise
    test = np.concatenate([mixed.astype(np.uint8), train[3:4, :, ::-1], train[5:6]])
    labels, others = list(range(14)), list(range(10))
    similar = 0.8
    table = _table(test, train)
    found = find_copies(_split(test, labels), _split(train, others), similar)
    copies = table >= similar
    assert 3 < copies.any(1).sum() < 14, "the threshold parts the pairs"
    assert (found.count == copies.sum(1)).all()
    assert (found.places == np.flatnonzero(copies.any(1))).all()
    assert (found.closest == np.where(copies.any(1), table.argmax(1), -1)).all()
    np.testing.assert_allclose(found.similarity, np.where(copies.any(1), table.max(1), 0))
    differ = np.array(labels)[:, None] != np.array(others)
    assert (found.other_label == (copies & differ).sum(1)).all()
    assert found.exact.tolist() == [False] * 13 + [True] and found.mirrored[12]

    within = find_copies(_split(test, labels), similar=similar)
    own = _table(test, test)
    assert (within.count == (np.tril(own, -1) >= similar).sum(1)).all()


def test_neither_light_contrast_colour_nor_a_mirror_hides_a_copy(rng: np.random.Generator) -> None:
    photo = np.asarray(
        Image.fromarray(rng.integers(60, 180, (6, 6, 3), np.uint8)).resize((32, 32))
    ).astype(float)
    changed = {
        "brighter": photo + 40,
        "flatter": 0.6 * photo + 50,
        "of a cast": photo + np.array([30, 0, -20]),
        "noisy": photo + rng.normal(0, 3, photo.shape),
        "mirrored": photo[:, ::-1],
        "another": rng.permutation(photo.reshape(-1, 3)).reshape(photo.shape),
        "shifted": np.roll(photo, 8, 1),
    }
    test = np.stack([one.round().clip(0, 255).astype(np.uint8) for one in changed.values()])
    found = find_copies(_split(test), _split(photo[None].round().astype(np.uint8)))
    assert dict(zip(changed, found.count > 0, strict=True)) == {
        **dict.fromkeys(changed, True),
        "another": False,
        "shifted": False,
    }
    assert not found.exact.any() and found.mirrored.sum() == 1 and found.mirrored[4]


@pytest.mark.parametrize("size", [16, 64])
def test_images_of_one_colour_are_copies_only_to_the_bit(size: int) -> None:
    def flat(level: int, dust: int = 0) -> np.ndarray:
        image = np.full((size, size, 3), level, np.uint8)
        image[: size // 2, : size // 2] += np.uint8(dust)  # too faint a contrast to go by
        return image

    test = np.stack([flat(7), flat(9), flat(7, dust=2), flat(9, dust=2), flat(7, dust=3)])
    found = find_copies(_split(test), _split(np.stack([flat(7), flat(7, dust=2)])))
    assert found.count.tolist() == [1, 0, 1, 0, 0]
    assert found.exact.tolist() == [True, False, True, False, False]


def _planted(rng: np.random.Generator) -> Made:
    """Ten test images, of which 0 has a copy under another label, 1 a brighter and 2 a mirrored."""
    made = make(rng, 2, train=20, test=5)
    made.train = made.train // 2
    made.test[0] = made.train[30]
    made.test_labels[:3] = made.train_labels[30:33]
    made.test_labels[0] = 1 - made.train_labels[30]
    made.test[1] = made.train[31] + 50
    made.test[2] = made.train[32][:, ::-1]
    return made


def test_test_images_with_copies_are_left_out_where_asked(
    data: Path, cache: Path, rng: np.random.Generator
) -> None:
    made = _planted(rng)
    write_parquet(made, data / "d", "label")
    plain = {"source": f"parquet:{data / 'd'}"}
    whole = open_data(DataSpec.parse(plain))
    assert len(whole.test) == 10 and whole.test_left_out is None
    spec = DataSpec.parse({**plain, "exclude_duplicates": True})
    assert "exclude_duplicates" not in DataSpec.parse(plain).definition()
    assert spec.definition()["exclude_duplicates"] is True
    for _ in range(2):  # looked for, then read from the cache
        opened = open_data(spec)
        assert len(opened.test) == 7 and opened.test_left_out == 3
        assert opened.test.pixels(slice(None)).tobytes() == made.test[3:].tobytes()
    (kept,) = cache.glob("data/*/test_copies.json")
    kept.write_text("{}")  # damaged: looked for again
    assert len(open_data(spec).test) == 7
    assert len(open_data(DataSpec.parse({**spec.model_dump(), "test_images": 5})).test) == 5
    made.test[:] = made.train[:10]
    write_parquet(made, data / "all", "label")
    with pytest.raises(InputError, match="leaves none; look at `blocklab data check`"):
        open_data(DataSpec.parse({"source": f"parquet:{data / 'all'}", "exclude_duplicates": True}))


@pytest.mark.parametrize("layout", ["parquet", "folder"])
def test_the_command_names_copies_and_draws_them(
    layout: str,
    data: Path,
    tmp_path: Path,
    rng: np.random.Generator,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made, root = _planted(rng), data / "d"
    if layout == "parquet":
        write_parquet(made, root, "label")
    else:
        for split, images, labels in made.splits():
            for number, (image, label) in enumerate(zip(images, labels, strict=True)):
                path = root / split / made.names[label] / f"{number:02}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)
    source, sheet = f"{layout}:{root}", tmp_path / "pairs.png"
    assert run(["data", "check", source, "--json", "--png", str(sheet)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == {"train": 40, "test": 10}
    assert found["summary"][0] == {
        **{"split": "test", "among": "train"},
        **{"exact": 1, "near": 1, "mirrored": 1, "other_label": 1},
    }
    by_kind = {one["kind"]: one for one in found["copies"]}
    exact, names = by_kind["exact"], made.names
    assert (exact["label"], exact["of_label"]) == (
        names[made.test_labels[0]],
        names[made.train_labels[30]],
    )
    row = {"parquet": ", row {}", "folder": "/{:02}.png"}[layout]
    assert exact["name"].endswith(row.format(0)) and exact["of_name"].endswith(row.format(30))
    assert by_kind["mirrored"]["of_name"].endswith(row.format(32))
    assert Image.open(sheet).size == (3 * 136, 72)
    assert run(["data", "check", source]) == 0
    said = capsys.readouterr().out
    assert "test images with a copy in training" in said and exact["name"] in said


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["digits", "--similar", "nan"], "--similar is from 0.5 to 1, not nan"),
        (["digits", "--set", "epochs=3"], "write --set data.FIELD=VALUE"),
        (["digitz"], "did you mean 'digits'"),
        (["folder:nowhere"], "nowhere"),
        (["digits", "--png", "/"], "--png / is a folder; name a file, such as /pairs.png"),
    ],
)
def test_what_cannot_be_checked_is_one_line(
    given: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "check", *given]) == 2
    said = capsys.readouterr().err
    assert why in said and said.count("\n") == 1


@pytest.mark.slow  # half a minute
def test_cifar100_has_ten_exact_copies_of_which_six_are_labelled_otherwise(
    real_cifar100: Path,
) -> None:
    opened = open_data(DataSpec.parse({"source": "cifar100", "validation_fraction": 0}))
    found = find_copies(opened.test, opened.train)
    assert found.exact.sum() == 10 and (found.other_label[found.exact] > 0).sum() == 6
    assert 26 <= len(found.places) <= 48
