"""Whatever is wrong with the data is one line, of the right class, with the remedy."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_files import (
    encoded,
    make,
    png,
    write_class_folders,
    write_classes,
    write_parquet,
    write_pickles,
    write_shards,
)

from blocklab.data.image_data import open_data
from blocklab.data.spec import DataSpec
from blocklab.errors import BlocklabError, InputError, RunError

RNG = np.random.default_rng(1)
PIXELS = RNG.integers(0, 256, (8, 8, 3), np.uint8)


def refused(source: str | dict[str, Any], message: str, kind: type = InputError) -> str:
    """Open the data and return the one line that says why not."""
    with pytest.raises(BlocklabError, match=message) as caught:
        open_data(DataSpec.parse(source))
    assert type(caught.value) is kind
    assert caught.value.exit_status == (2 if kind is InputError else 1)
    text = str(caught.value)
    assert text.isprintable() and "Traceback" not in text
    return text


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("cifar1000", r"no data source 'cifar1000'; did you mean 'cifar100'\? Sources: digits, "),
        ("digit", r"did you mean 'digits'\?"),
        ("folders:x", r"no data source 'folders:x'; did you mean 'folder:PATH'\?"),
        ("imagenet", r"no data source 'imagenet'\. Sources: digits, cifar10, cifar100, folder:PAT"),
        ("", "no data source ''"),
        ("folder:", r"'folder:' names no folder; write folder:PATH"),
        ("parquet:  ", "names no folder; write parquet:PATH"),
        ("digits:x", "no data source 'digits:x'"),
        ("folder", "'folder' names no folder"),
    ],
)
def test_addresses(source: str, message: str) -> None:
    refused(source, message)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 0}, "data: image_size: .*greater than 0"),
        ({"image_size": -32}, "data: image_size: .*greater than 0"),
        ({"image_size": 5000}, "data: image_size: .*less than or equal to 4096"),
        ({"image_size": 32.5}, "data: image_size"),
        ({"image_size": "big"}, "data: image_size"),
        ({"train_images": 0}, "data: train_images"),
        ({"test_images": -1}, "data: test_images"),
        ({"validation_fraction": 1}, "data: validation_fraction"),
        ({"validation_fraction": -0.1}, "data: validation_fraction"),
        ({"validation_fraction": float("nan")}, "data: validation_fraction"),
        ({"train_image": 5}, r"data has no 'train_image'; did you mean 'train_images'\?"),
        ({"source": None}, "data: source"),
    ],
)
def test_fields(fields: dict[str, Any], message: str) -> None:
    refused({"source": "digits", **fields}, message)


@pytest.mark.parametrize("given", [None, 3, ["digits"], object])
def test_data_that_is_no_address(given: Any) -> None:
    refused(given, "data must be an address or fields")


def test_a_missing_cifar_says_what_to_put_where(data: Path) -> None:
    refused("cifar10", "cifar10 is not in .* and BLOCKLAB_OFFLINE is set; unset it, or put cifar10")


@pytest.fixture
def folder(data: Path, rng: np.random.Generator) -> Path:
    """A good folder of two classes without train and test, to be spoilt."""
    write_classes(data / "set", {"a": 5, "b": 5}, rng)
    return data / "set"


def _emptied(folder: Path) -> None:
    for file in (folder / "a").iterdir():
        file.unlink()


def _only_train(folder: Path) -> None:
    (folder / "train").mkdir()
    (folder / "a").rename(folder / "train" / "a")


def _odd_class(folder: Path) -> None:
    write_classes(folder / "train", {"a": 2, "b": 2}, RNG)
    write_classes(folder / "test", {"a": 2, "c": 2}, RNG)


def _rest_removed(folder: Path) -> None:
    for name in ("a", "b"):
        for number in range(1, 5):
            (folder / name / f"{number}.png").unlink()


def file(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "a" / name).write_bytes(content)


def link(name: str, target: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "a" / name).symlink_to(target)


def _pipe(folder: Path) -> None:
    import os

    os.mkfifo(folder / "a" / "0pipe.png")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
PNG = png(PIXELS)
JPEG = encoded(PIXELS.repeat(8, 0).repeat(8, 1), "JPEG")
BOMB = encoded(np.zeros((20_000, 20_000), np.uint8), "PNG", compress_level=1)[:60_000]


def _declares(width: int, height: int) -> bytes:
    """A PNG of few bytes that says that it is so large."""
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")
    return PNG[:8] + b"".join(chunk(*part) for part in parts)


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "an empty class": (_emptied, r"class 'a' \(.*/a\) has no images \(\.jpg, .*\); add some or"),
    "train without test": (_only_train, "has train/ but neither test/ nor val/; add one, or give"),
    "classes that differ": (_odd_class, "class 'b' is in .*train but not in .*test; both need"),
    "one image a class": (_rest_removed, "has only 2 images: too few for a test split; add more"),
    "no image": (
        file("0.png", b"hello"),
        r"cannot read the image .*0.png \(not an image\); replac",
    ),
    "nothing in it": (file("0.png", b""), r"cannot read the image .*0.png \(not an image\)"),
    "cut png": (file("0.png", PNG[:-20]), r"0.png \(the file ends early\); replace or remove it"),
    "png without its end": (file("0.png", PNG[:-12]), r"0.png \(the file ends early\)"),
    "flipped png": (
        file("0.png", PNG[:60] + bytes([PNG[60] ^ 1]) + PNG[61:]),
        r"0.png \(a checksum in it is wrong\); replace or remove it",
    ),
    "cut jpeg": (file("0.jpg", JPEG[:-500]), r"0.jpg \(.*truncated.*\); replace or rem"),
    "eps": (file("0.png", EPS), r"0.png \(not an image\)"),
    "pcx": (file("0.png", encoded(PIXELS, "PCX")), r"0.png \(not an image\)"),
    "svg": (file("0.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "not an image"),
    "float pixels": (
        lambda folder: _save_floats(folder / "a" / "0.tif"),
        r"0.tif \(floating-point pixels; save it with 8 bits a channel\)",
    ),
    "another size": (
        file("4.png", png(PIXELS[:6, :6])),
        r"4.png is 6x6 pixels, not 8x8 as the first image; set data\.image_size, such as data\.",
    ),
    "not square": (
        file("4.png", png(PIXELS[:, :6])),
        "4.png is 6x8 pixels, not 8x8 as the first image; set data.image_size",
    ),
    "bomb": (
        file("0.png", _declares(100_000, 100_000)),
        "0.png has more than 64 megapixels .*; shrink or remove it",
    ),
    "a smaller bomb": (
        file("0.png", _declares(9_000, 9_000)),
        r"0.png has more than 64 megapixels \(9000x9000\); shrink or remove it",
    ),
    "a bomb without its pixels": (file("0.png", _declares(7_000, 7_000)), r"cannot read the image"),
    "link to nothing": (link("0link.png", "gone.png"), "cannot read .*0link.png: No such file"),
    "link to itself": (link("0link.png", "0link.png"), "cannot read .*0link.png: "),
    "link to a device": (link("0link.png", "/dev/zero"), "0link.png is no ordinary file; remove"),
    "a pipe": (_pipe, "0pipe.png is no ordinary file; remove it"),
    "link to no image": (link("0link.png", "/etc/passwd"), r"0link.png \(not an image\)"),
}


def _save_floats(path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.zeros((8, 8), np.float32)).save(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("case", FOLDERS)
def test_folders(case: str, folder: Path, cache: Path) -> None:
    spoil, message = FOLDERS[case]
    spoil(folder)
    refused(f"folder:{folder}", message)
    assert not [path for path in cache.rglob("*") if path.suffix != ".lock" and path.is_file()]


def test_a_first_image_that_is_not_square(folder: Path) -> None:
    for number, path in enumerate(folder.rglob("*.png")):
        path.write_bytes(png(np.roll(PIXELS[:, :6], number)))
    refused(
        f"folder:{folder}",
        "is 6x8 pixels, not square; set data.image_size, such as data.image_size=6",
    )
    sized = {"source": f"folder:{folder}", "image_size": 6, "validation_fraction": 0}
    assert open_data(DataSpec.parse(sized)).image_size == 6


def test_a_strip_that_would_fill_the_memory(folder: Path) -> None:
    (folder / "a" / "0.png").write_bytes(png(np.zeros((1, 500_000, 3), np.uint8)))
    refused(
        {"source": f"folder:{folder}", "image_size": 224},
        "500000x1 is too long and thin for 224x224",
    )


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_no_folder(kind: str, data: Path) -> None:
    refused(f"{kind}:{data / 'gone'}", "the data folder .*gone does not exist; give the folder of")
    (data / "file").write_text("")
    refused(f"{kind}:{data / 'file'}", "the data folder .*file is a file; give the folder of")
    refused(f"{kind}:~nobody_of_that_name/x", "does not exist")
    refused(f"{kind}:{'x' * 300}", "does not exist")
    refused(f"{kind}:a\0b", "does not exist")


def test_a_folder_without_class_folders(data: Path) -> None:
    (data / "0.png").write_bytes(PNG)
    refused(
        f"folder:{data}", "has no class folders; put each class's images in a folder of its own"
    )


def test_a_folder_that_may_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in: the tests may run as root, who may read everything."""

    def denied(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("blocklab.data.folders.os.scandir", denied)
    refused(f"folder:{folder}", "cannot read .*set: Permission denied; check the path and its perm")


def test_an_image_that_may_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("blocklab.data.pictures._read", denied)
    refused(f"folder:{folder}", "no permission to read .*png; change its mode")


@pytest.fixture
def tables(data: Path, rng: np.random.Generator) -> Path:
    """A good folder of parquet files, to be spoilt."""
    write_parquet(make(rng, 2, train=10, test=2, size=8), data / "set")
    return data / "set"


def table(path: str = "train.parquet", **columns: Any) -> Callable[[Path], object]:
    """Replace a file by one of these columns; the good ones are img and label."""
    good = {"img": [{"bytes": PNG}] * 4, "label": [0, 1, 0, 1]}
    given = {name: values for name, values in (good | columns).items() if values is not None}
    return lambda folder: pq.write_table(pa.table(given), folder / path)


def both(**columns: Any) -> Callable[[Path], object]:
    """A good training file without names of classes, and a test file of these columns."""
    return lambda folder: (table()(folder), table("test.parquet", **columns)(folder))


def cut(name: str, share: float) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(share * len(content))])

    return spoil


def text(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def _shards(folder: Path) -> None:
    write_shards(make(RNG, 2, train=10, test=2, size=8), folder)


def _missing_shard(folder: Path) -> None:
    for path in folder.glob("*.parquet"):
        path.unlink()
    _shards(folder)
    (folder / "train-00001-of-00003.parquet").unlink()


def _dead_link(folder: Path) -> None:
    (folder / "test.parquet").unlink()
    (folder / "test.parquet").symlink_to("gone.parquet")


def _folder_by_that_name(folder: Path) -> None:
    (folder / "test.parquet").unlink()
    (folder / "test.parquet").mkdir()


NOT_WHOLE = "is not a whole parquet file"
TABLES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no image column": (
        table(img=None, pixels=[b""] * 4),
        "has no image column: it must be named img or image; found: label, pixels",
    ),
    "no label column": (
        table(label=None, target=[0] * 4),
        "has no label column: it must be named fine_label or label; found: img, target",
    ),
    "no columns": (table(img=None, label=None), "has no label column: .*; found: none"),
    "no rows": (
        table(img=pa.array([], pa.binary()), label=pa.array([], pa.int64())),
        "train.parquet has no rows; replace it",
    ),
    "no test rows": (
        both(img=pa.array([], pa.binary()), label=pa.array([], pa.int64())),
        "test.parquet has no rows",
    ),
    "null label": (
        table(label=[0, 1, None, 1]), "train.parquet, row 2 has no label; remove the row",
    ),
    "null image": (
        table(img=[{"bytes": PNG}, None, {"bytes": PNG}, {"bytes": PNG}]),
        "train.parquet, row 1 has no image; remove the row",
    ),
    "null bytes": (
        table(img=[{"bytes": PNG}, {"bytes": None}, {"bytes": PNG}, {"bytes": PNG}]),
        "train.parquet, row 1 has no image; remove the row",
    ),
    "images by path alone": (
        table(img=[{"path": "x.png"}] * 4),
        "column 'img' of .* holds null; it must hold encoded images",
    ),
    "images as numbers": (table(img=[1, 2, 3, 4]), "column 'img' of .* holds int64; it must hold"),
    "images as text": (table(img=["a"] * 4), "column 'img' of .* holds string; it must hold"),
    "labels as floats": (table(label=[0.0, 1.0] * 2), "column 'label' of .* holds double; it must"),
    "labels as lists": (table(label=[[0], [1]] * 2), "column 'label' of .* holds list"),
    "labels as truth": (table(label=[True, False] * 2), "column 'label' of .* holds bool"),
    "labels as bytes": (table(label=[b"a", b"b"] * 2), "column 'label' of .* holds binary"),
    "an unknown test label": (
        both(label=[0, 1, 2, 1]),
        "test.parquet, row 2: label 2 is none of the 2 classes of the training split; remove",
    ),
    "an unlabelled row": (
        both(label=[0, 1, -1, 1]), "row 2: label -1 is none of the 2 classes",
    ),
    "test labels of another kind": (
        both(label=["a", "b"] * 2),
        "train.parquet holds numbers without names, and that of other files text",
    ),
    "no image in it": (
        table(img=[{"bytes": b"hello"}] * 4),
        r"cannot read the image .*train.parquet, row 0 \(not an image\); replace or remove it",
    ),
    "cut in half": (cut("train.parquet", 0.5), NOT_WHOLE),
    "cut by a byte": (cut("test.parquet", 0.9999), NOT_WHOLE),
    "empty": (cut("train.parquet", 0), NOT_WHOLE),
    "text": (text("train.parquet", b"img,label\n" * 100), NOT_WHOLE),
    "no train": (
        lambda folder: (folder / "train.parquet").unlink(), r"has no train\*\.parquet; put it",
    ),
    "a missing shard": (_missing_shard, "has 2 of the 3 train parquet files; add the missing ones"),
    "whole and shards": (_shards, "holds both train.parquet and .*; keep one of the two"),
    "a link to nothing": (_dead_link, "cannot read .*test.parquet: No such file.*; mend or remove"),
    "a folder of that name": (_folder_by_that_name, "test.parquet is no ordinary file"),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_tables(case: str, tables: Path) -> None:
    spoil, message = TABLES[case]
    spoil(tables)
    refused(f"parquet:{tables}", message)


def test_a_folder_without_tables(data: Path) -> None:
    refused(f"parquet:{data}", r"has no train\*\.parquet and test\*\.parquet; put them there")


def test_a_cifar_of_other_classes(data: Path, rng: np.random.Generator) -> None:
    made = make(rng, 11, train=2, test=1)
    write_parquet(made, data / "cifar10")
    message = "the data found as cifar10 has 11 classes instead of 10; give other data as folder:PA"
    refused("cifar10", message)


def test_a_cifar_without_one_of_its_files(data: Path, rng: np.random.Generator) -> None:
    made = make(rng, 10, train=2, test=1)
    write_pickles(made, data, "cifar10")
    (data / "cifar-10-batches-py" / "data_batch_3").unlink()
    refused("cifar10", "cifar-10-batches-py has no file data_batch_3; unpack the archive again")


def test_cifar_class_folders_that_do_not_fit(data: Path, rng: np.random.Generator) -> None:
    made = make(rng, 10, train=2, test=1, size=8)
    write_class_folders(made, data / "cifar10")
    (data / "cifar10" / "test" / "class_003").rename(data / "cifar10" / "test" / "other")
    refused("cifar10", "class 'class_003' is in .*train but not in .*test; both need the same")


def test_a_cache_that_cannot_be_written(folder: Path, cache: Path) -> None:
    cache.write_text("in the way")
    message = "cannot write decoded images to .*; free some space or set BLOCKLAB_CACHE to another"
    refused(f"folder:{folder}", message, RunError)


def test_a_disk_that_fills_up(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("blocklab.data.cache.os.fsync", full)
    refused(f"folder:{folder}", "cannot write decoded .*: No space left on device; free", RunError)
    monkeypatch.undo()
    assert [path.suffix for path in (cache / "data").iterdir()] == [".lock"]


def test_a_disk_too_small_is_noticed_before_the_first_image(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(
        "blocklab.data.cache.shutil.disk_usage", lambda path: usage(9e9, 8e9, 100_000_000)
    )
    monkeypatch.setattr("blocklab.data.cache.decoded", lambda *ignored: pytest.fail("decoded"))
    sized = {"source": f"folder:{folder}", "image_size": 1200}
    message = (
        r"10 images of set at 1200x1200 take 0\.1 GB decoded and .* has 0\.1 GB free; free some, "
        "set BLOCKLAB_CACHE to another folder, or set a smaller image_size"
    )
    refused(sized, message, RunError)
    assert [path.suffix for path in (cache / "data").iterdir()] == [".lock"]


def test_messages_stay_one_line_whatever_the_names(data: Path) -> None:
    name = "new\nline\x1b[31mred\u2028\x00".rstrip("\x00")
    (data / "set" / name).mkdir(parents=True)
    said = refused(f"folder:{data / 'set'}", re.escape(r"class 'new\nline\x1b[31mred\u2028'"))
    assert "has no images" in said
