"""Every source and every layout gives the images and labels that were written."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_files import (
    ARCHIVES,
    CLASSES,
    FOLDERS,
    HUB_FOLDERS,
    LABELS,
    Made,
    encoded,
    make,
    png,
    write_archive,
    write_class_folders,
    write_classes,
    write_hub_cache,
    write_parquet,
    write_pickles,
    write_shards,
    write_table,
)
from PIL import Image

from blocklab.data.image_data import ImageData, open_data
from blocklab.data.pictures import Picture, decode
from blocklab.data.sources import portable_address
from blocklab.data.spec import DataSpec
from blocklab.data.split import Split
from blocklab.errors import InputError


def pairs(split: Split) -> list[tuple[bytes, int]]:
    rows = zip(split.pixels(slice(None)), split.targets, strict=True)
    return [(image.tobytes(), int(label)) for image, label in rows]


def whole(source: str, **fields: object) -> ImageData:
    return open_data(DataSpec.parse({"source": source, "validation_fraction": 0, **fields}))


def holds(data: ImageData, made: Made) -> None:
    """Each split has exactly the images that were made, with their labels, in some order."""
    for name, images, labels in made.splits():
        given = [(image.tobytes(), int(n)) for image, n in zip(images, labels, strict=True)]
        assert sorted(pairs(getattr(data, name))) == sorted(given), name
    assert data.class_names == tuple(made.names)


LAYOUTS: dict[str, Callable[[Made, Path, str], None]] = {
    "parquet": lambda made, root, name: write_parquet(made, root / name, LABELS[name]),
    "shards": lambda made, root, name: write_shards(made, root / name, LABELS[name]),
    "shards in the hub's folder": lambda made, root, name: write_shards(
        made, root / "uoft-cs" / name / HUB_FOLDERS[name], LABELS[name]
    ),
    "shards in data": lambda made, root, name: write_shards(
        made, root / name / "data", LABELS[name], shards=1
    ),
    "the hub's cache": write_hub_cache,
    "pickles": write_pickles,
    "pickles below the name": lambda made, root, name: write_pickles(made, root / name, name),
    "archive": write_archive,
    "archive below the name": lambda made, root, name: write_archive(made, root / name, name),
    "class folders": lambda made, root, name: write_class_folders(made, root / name),
    "class folders with val": lambda made, root, name: write_class_folders(
        made, root / name, "val"
    ),
}


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_the_same_in_every_layout(
    name: str, data: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(rng, CLASSES[name], train=2, test=1)
    first: ImageData | None = None
    for layout, write in LAYOUTS.items():
        root = data / layout
        write(made, root, name)
        monkeypatch.setenv("BLOCKLAB_DATA", str(root))
        opened = whole(name)
        holds(opened, made)
        assert opened.name == name and opened.image_size == 32
        if first is None:
            first = opened
            continue
        assert opened.fingerprint == first.fingerprint, layout
        for split in ("train", "test"):
            assert pairs(getattr(opened, split)) == pairs(getattr(first, split)), layout
        assert (opened.mean, opened.std) == (first.mean, first.std), layout


@pytest.mark.parametrize("layout", ["parquet", "pickles", "class folders"])
def test_cifar_has_the_same_images_in_every_split_at_every_size(
    layout: str, data: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of other sizes are compared on the same images, so their order is that of none."""
    LAYOUTS[layout](make(rng, 10, train=20, test=10), data, "cifar10")
    monkeypatch.setenv("BLOCKLAB_DATA", str(data))
    some = {"source": "cifar10", "train_images": 100, "test_images": 50}
    native = open_data(DataSpec.parse(some))
    for fields in ({"image_size": 32}, {"image_size": 48}, {"image_size": 32, "kept_size": 40}):
        other = open_data(DataSpec.parse({**some, **fields}))
        size = fields.get("kept_size", fields["image_size"])
        for name in ("train", "validation", "test"):
            ours, theirs = getattr(native, name), getattr(other, name)
            assert len(ours) == len(theirs) > 0 and np.array_equal(ours.targets, theirs.targets)
            of_native = ours.pixels(slice(None))
            resized = [decode(Picture("", Image.fromarray(one)), size) for one in of_native]
            assert np.array_equal(np.stack(resized), theirs.pixels(slice(None))), (name, fields)


def test_a_changed_pixel_or_label_changes_the_fingerprint(
    data: Path, rng: np.random.Generator
) -> None:
    made = make(rng, 3, train=3, test=2, size=8)
    write_parquet(made, data / "a")
    made.test[0, 0, 0, 0] ^= 1
    write_parquet(made, data / "b")
    made.test[0, 0, 0, 0] ^= 1
    made.train_labels[:] = np.roll(made.train_labels, 1)
    write_parquet(made, data / "c")
    assert len({whole(f"parquet:{data / which}").fingerprint for which in "abc"}) == 3


def test_mean_and_std_are_of_the_training_pixels(data: Path, rng: np.random.Generator) -> None:
    made = make(rng, 3, train=5, test=2, size=8)
    made.test[1:] = 0  # must not count
    write_parquet(made, data / "set")
    opened = open_data(DataSpec.parse(f"parquet:{data / 'set'}"))
    pixels = made.train.reshape(-1, 3) / 255
    np.testing.assert_allclose(opened.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(opened.std, pixels.std(0), rtol=1e-12)


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    opened = whole("digits")
    assert (len(opened.train), len(opened.test)) == (1297, 500)
    assert opened.class_names == tuple("0123456789") and opened.image_size == 32
    images, labels = load_digits(return_X_y=True)
    eight = whole("digits", image_size=8)
    shown = sorted(pairs(eight.train) + pairs(eight.test))
    grey = np.round(images * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    given = [(np.repeat(g, 3, 2).tobytes(), int(n)) for g, n in zip(grey, labels, strict=True)]
    assert shown == sorted(given)
    # The same images train whatever their size.
    assert list(eight.train.targets) == list(opened.train.targets)


def test_folder_with_train_and_test(data: Path, rng: np.random.Generator) -> None:
    made = make(rng, 3, train=4, test=2, size=8)
    write_class_folders(made, data / "set")
    holds(whole(f"folder:{data / 'set'}"), made)


def test_folder_without_splits_tests_on_a_fixed_fifth(data: Path, rng: np.random.Generator) -> None:
    write_classes(data / "set", {"a": 10, "b": 20, "c": 5}, rng)
    opened = whole(f"folder:{data / 'set'}")
    assert np.bincount(opened.test.targets).tolist() == [2, 4, 1]
    assert np.bincount(opened.train.targets).tolist() == [8, 16, 4]
    both = pairs(opened.train) + pairs(opened.test)
    assert len(set(both)) == 35
    (data / "set").rename(data / "moved")
    assert pairs(whole(f"folder:{data / 'moved'}").test) == pairs(opened.test)


def test_folders_may_nest_and_hidden_ones_are_left_out(
    data: Path, rng: np.random.Generator
) -> None:
    write_classes(data / "set", {"a": 5, "b": 5, "a/deep/er": 5, "a/.hidden": 3, ".git": 2}, rng)
    (data / "set" / "a" / "._0.png").write_bytes(b"note of the file system")
    (data / "set" / "a" / "readme.txt").write_text("not an image")
    opened = whole(f"folder:{data / 'set'}")
    assert opened.class_names == ("a", "b")
    assert len(opened.train) + len(opened.test) == 15


@pytest.mark.parametrize("place", [".", "data"])
def test_parquet_with_names_of_text_and_both_column_names(
    place: str, data: Path, rng: np.random.Generator
) -> None:
    made = make(rng, 3, train=4, test=2, size=8)
    for split, images, labels in made.splits():
        path = data / "set" / place / f"{split if split == 'train' else 'validation'}.parquet"
        words = [made.names[label] for label in labels]
        write_table(path, map(png, images), words, None, "image", "label")
    holds(whole(f"parquet:{data / 'set'}"), made)


def test_parquet_of_numbers_without_names(data: Path, rng: np.random.Generator) -> None:
    made = make(rng, 3, train=4, test=2, size=8)
    for split, images, labels in made.splits():
        write_table(data / "set" / f"{split}.parquet", map(png, images), labels * 10 + 7)
    made.names = ["7", "17", "27"]
    holds(whole(f"parquet:{data / 'set'}"), made)


@pytest.mark.parametrize("kind", ["BMP", "PPM", "TIFF", "PNG", "WEBP"])
def test_lossless_formats_keep_their_pixels(
    kind: str, data: Path, rng: np.random.Generator
) -> None:
    write_classes(data / "set", {"a": 4, "b": 4}, rng)
    pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
    options = {"lossless": True} if kind == "WEBP" else {}
    (data / "set" / "a" / f"x.{kind.lower()}").write_bytes(encoded(pixels, kind, **options))
    opened = whole(f"folder:{data / 'set'}")
    assert (pixels.tobytes(), 0) in pairs(opened.train) + pairs(opened.test)


def test_grey_palette_transparent_and_16_bit_images_become_rgb(data: Path) -> None:
    from PIL import Image

    ramp = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    images = {
        "L": Image.fromarray(ramp),
        "LA": Image.fromarray(np.stack([ramp, ramp], 2), "LA"),
        "RGBA": Image.fromarray(np.stack([ramp] * 3 + [ramp.T], 2), "RGBA"),
        "P": Image.fromarray(ramp).quantize(64),
        "16": Image.fromarray(ramp.astype(np.uint16) * 257),
    }
    for name, image in images.items():
        place = data / "set" / "grey"
        place.mkdir(parents=True, exist_ok=True)
        image.save(place / f"{name}.png")
    for number in range(5):
        place = data / "set" / "other"
        place.mkdir(exist_ok=True)
        Image.fromarray(ramp // 2).save(place / f"{number}.png")
    opened = whole(f"folder:{data / 'set'}")
    expected = np.repeat(ramp[..., None], 3, 2).tobytes()
    shown = pairs(opened.train) + pairs(opened.test)
    assert sum(pair == (expected, 0) for pair in shown) == 5


def test_image_size_resizes_the_shorter_side_and_crops_the_centre(data: Path) -> None:
    from PIL import Image

    # 16 wide, 8 high; the outer quarters are white, so the centre alone is black.
    pixels = np.full((8, 16, 3), 255, np.uint8)
    pixels[:, 4:12] = 0
    for name in "ab":
        (data / "set" / name).mkdir(parents=True)
        for number in range(3):
            pixels[0, 4] = 8 * number  # not all alike
            Image.fromarray(pixels).save(data / "set" / name / f"{number}.png")
    opened = whole(f"folder:{data / 'set'}", image_size=8)
    assert opened.image_size == 8
    assert opened.train.images.max() <= 16
    smaller = whole(f"folder:{data / 'set'}", image_size=4)
    assert smaller.train.images.shape[1:] == (4, 4, 3)
    assert smaller.train.images[:, :, 1:3].max() < 20 < 255  # edges mix with the white


def test_the_address_of_a_moved_copy_is_the_same(data: Path, rng: np.random.Generator) -> None:
    write_classes(data / "set", {"a": 3, "b": 3}, rng)
    first = portable_address(f"folder:{data / 'set'}")
    assert str(data) not in first
    (data / "set").rename(data / "moved")
    moved = f"folder:{data / 'moved'}"
    assert portable_address(moved) == first
    with pytest.raises(InputError, match="does not exist"):
        portable_address(f"folder:{data / 'set'}")


@pytest.mark.parametrize("change", ["add", "remove", "rename", "edit", "new class", "in train"])
def test_the_address_follows_changes_within_one_process(
    change: str, data: Path, rng: np.random.Generator
) -> None:
    root = data / "set"
    for split in ("train", "test"):
        write_classes(root / split, {"a": 3, "b": 3}, rng)
    address = f"folder:{root}"
    first = portable_address(address)
    assert portable_address(address) == first
    pixels = rng.integers(0, 256, (9, 9, 3), np.uint8)
    if change == "add":
        (root / "test" / "a" / "new.png").write_bytes(png(pixels))
    elif change == "remove":
        (root / "train" / "b" / "0.png").unlink()
    elif change == "rename":
        (root / "train" / "b" / "0.png").rename(root / "train" / "b" / "00.png")
    elif change == "edit":
        (root / "train" / "b" / "0.png").write_bytes(png(pixels))
    elif change == "new class":
        for split in ("train", "test"):
            write_classes(root / split, {"c": 1}, rng)
    else:
        write_classes(root / "train", {"a/deep": 1}, rng)
    assert portable_address(address) != first


def test_names_stand_for_themselves() -> None:
    assert portable_address("cifar100") == "cifar100"
    assert DataSpec.parse("digits").definition()["source"] == "digits"


def test_real_cifar100_splits_450_to_50_a_class(real_cifar100: Path) -> None:
    opened = open_data(DataSpec.parse("cifar100"))
    assert np.bincount(opened.train.targets).tolist() == [450] * 100
    assert np.bincount(opened.validation.targets).tolist() == [50] * 100
    assert np.bincount(opened.test.targets).tolist() == [100] * 100
    np.testing.assert_allclose(opened.mean, (0.5071, 0.4865, 0.4409), atol=5e-5)
    np.testing.assert_allclose(opened.std, (0.2673, 0.2564, 0.2762), atol=5e-5)


def test_layout_names_match_the_archives() -> None:
    """The makers of this folder and torchvision agree on what Toronto's files are called."""
    from torchvision.datasets import CIFAR10, CIFAR100

    for name, known in (("cifar10", CIFAR10), ("cifar100", CIFAR100)):
        assert known.base_folder == FOLDERS[name] and known.filename == ARCHIVES[name]


def test_digits_beyond_what_memory_holds_are_refused() -> None:
    with pytest.raises(InputError, match="with 512 a side at most, not 4096"):
        open_data(DataSpec(source="digits", train_images=100, image_size=4096))
