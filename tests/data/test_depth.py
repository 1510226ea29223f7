"""Values of more than 8 bits, rotation, and images that are all alike."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_files import write_classes
from PIL import Image

from blocklab.data.given_images import as_tensor
from blocklab.data.image_data import ImageData, open_data
from blocklab.data.pictures import Picture, decode
from blocklab.data.spec import DataSpec
from blocklab.errors import InputError


def png16(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a value, of uint16 (H, W, 1 or 3): Pillow writes none in colour."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, 2 if channels == 3 else 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "TIFF")
    return stream.getvalue()


def pixels_of(content: bytes, upright: bool = False) -> np.ndarray:
    return decode(Picture("x", content, upright), None)


RAMP = np.arange(64).reshape(8, 8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png16(RAMP[..., None] * 4), "none is above 252: all would be black"),
        (png16(np.repeat(RAMP[..., None], 3, 2)), "16 bits, and all are black in 8"),
        (tiff((RAMP * 4).astype(np.int32)), "none is above 252: all would be black"),
        (tiff((RAMP * 100_000).astype(np.int32)), "go from 0 to 6,300,000, and it does not say"),
        (tiff((RAMP - 20).astype(np.int32) * 500), "go from -10,000 to 21,500"),
        (b"P5 8 8 65535\n" + (RAMP * 4).astype(">u2").tobytes(), "all would be black"),
    ],
)
def test_values_that_would_be_black_or_white_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pixels_of(content)


def test_whole_16_bit_values_are_read() -> None:
    expected = np.repeat((RAMP * 4).astype(np.uint8)[..., None], 3, 2)
    for content in (
        png16(RAMP[..., None] * 1028),
        png16(np.repeat(RAMP[..., None], 3, 2) * 1028),
        tiff((RAMP * 1028).astype(np.uint16)),
        tiff((RAMP * 1028).astype(np.int32)),
        png16(np.zeros((8, 8, 1))),
    ):
        found = pixels_of(content)
        assert (found == expected).all() or content == png16(np.zeros((8, 8, 1)))
    assert not pixels_of(png16(np.zeros((8, 8, 1)))).any()


def write(folder: Path, images: list[bytes], ending: str) -> None:
    for number, content in enumerate(images):
        place = folder / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:02}.{ending}").write_bytes(content)


def opened(folder: Path, **fields: object) -> ImageData:
    return open_data(DataSpec.parse({"source": f"folder:{folder}", **fields}))


def test_a_cameras_12_bits_in_16_are_refused(data: Path, rng: np.random.Generator) -> None:
    images = [png16(rng.integers(0, 4096, (8, 8, 1))) for _ in range(20)]
    write(data / "set", images, "png")
    with pytest.raises(InputError, match=r"no training image of more than 8 bits is brighter"):
        opened(data / "set")
    (data / "set" / "a" / "00.png").write_bytes(png16(rng.integers(0, 65536, (8, 8, 1))))
    opened(data / "set")  # 16 bits are used, and the others are dark
    dark = [rng.integers(0, 10, (8, 8), np.uint8) for _ in range(20)]  # masks, say
    write(data / "masks", [tiff(image) for image in dark], "tif")
    assert opened(data / "masks").train.images.max() == 9


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_cameras_12_bits_are_refused_beside_8_bits(
    split: str, data: Path, rng: np.random.Generator
) -> None:
    for name in ("train", "test"):
        write_classes(data / "set" / name, {"a": 9, "b": 9}, rng)
    (data / "set" / split / "a" / "0.png").write_bytes(png16(np.zeros((8, 8, 1))))
    opened(data / "set")  # black at any depth
    for number in (1, 2):
        content = png16(rng.integers(0, 4096, (8, 8, 1)))
        (data / "set" / split / "a" / f"{number}.png").write_bytes(content)
    named = "training" if split == "train" else split
    with pytest.raises(InputError, match=f"no {named} image of more than 8 bits is brighter than"):
        opened(data / "set")


def test_a_cameras_12_bits_are_seen_before_edges_overshoot(tmp_path: Path) -> None:
    for name in "ab":
        for number in range(9):
            values = np.zeros((16, 16, 1), np.uint16)
            values[4:12, number : number + 7] = 4095
            place = tmp_path / "set" / name / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(png16(values))
    assert decode(Picture("x", place.read_bytes()), 13).max() > 15  # as its edges overshoot
    with pytest.raises(InputError, match="brighter than 15 of 255"):
        opened(tmp_path / "set", image_size=13)
    with pytest.raises(InputError, match="nowhere brighter than 15 of 255"):
        as_tensor("a", place, 13)


def test_a_cameras_12_bits_are_refused_where_they_are_measured_alone(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    (tmp_path / "set" / "a").mkdir(parents=True)
    for number in range(4):
        content = png16(rng.integers(0, 4096, (8, 8, 1)))
        (tmp_path / "set" / "a" / f"{number}.png").write_bytes(content)
    spec = DataSpec.parse({"source": f"folder:{tmp_path / 'set'}", "image_size": 8})
    with pytest.raises(InputError, match=r"no test image of more than 8 bits is brighter"):
        open_data(spec, measure=True)
    with pytest.raises(InputError, match="nowhere brighter than 15 of 255"):
        as_tensor("a", tmp_path / "set" / "a" / "0.png", 8)
    black = tmp_path / "black.png"
    black.write_bytes(png16(np.zeros((8, 8, 1))))
    assert not as_tensor("black", black, 8).any()


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_of_images_that_are_all_alike_is_refused(
    split: str, data: Path, rng: np.random.Generator
) -> None:
    for name in ("train", "test"):
        write_classes(data / "set" / name, {"a": 9, "b": 9}, rng)
    one = (data / "set" / "test" / "a" / "0.png").read_bytes()
    for path in (data / "set" / split).rglob("*.png"):
        path.write_bytes(one)
    with pytest.raises(InputError, match=f"all 18 {split} images of set are alike"):
        opened(data / "set")
    with pytest.raises(InputError, match=f"all 18 {split} images of set are alike"):
        opened(data / "set")  # out of the cache


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_when_asked_to(orientation: int) -> None:
    # How each orientation is stored, by EXIF 2.3: what lies at the top and at the left.
    upright = np.zeros((16, 16, 3), np.uint8)
    upright[:8, :8] = (255, 0, 0)
    upright[:8, 8:] = (0, 255, 0)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(stored)).save(stream, "PNG", exif=exif)
    assert (pixels_of(stream.getvalue()) == stored).all()
    assert (pixels_of(stream.getvalue(), upright=True) == upright).all()


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_exif_is_an_option_of_the_data(kind: str, data: Path, rng: np.random.Generator) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    images = []
    for _ in range(20):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(stream, "PNG", exif=exif)
        images.append(stream.getvalue())
    if kind == "folder":
        write(data / "set", images, "png")
    else:
        (data / "set").mkdir()
        table = {"image": [{"bytes": image} for image in images], "label": [0, 1] * 10}
        pq.write_table(pa.table(table), data / "set" / "train.parquet")
    address = f"{kind}:{data / 'set'}"
    stored = open_data(DataSpec.parse({"source": address}))
    for _ in range(2):
        turned = open_data(DataSpec.parse({"source": address, "exif": True}))
        assert (turned.train.images == stored.train.images[:, ::-1, ::-1]).all()
    definition = DataSpec.parse({"source": address, "exif": True}).definition()
    assert definition == {**DataSpec.parse(address).definition(), "exif": True}
