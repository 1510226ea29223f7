"""Pictures kept larger than they are trained on, and JPEGs decoded in draft mode for that."""

import hashlib
import io
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from blocklab.data.cache import FORMAT_VERSION, open_store
from blocklab.data.checksums import JoinedChecksum
from blocklab.data.given_images import as_tensor
from blocklab.data.image_data import open_data
from blocklab.data.pictures import Contents, Picture, Pictures, Source, decode
from blocklab.data.spec import DataSpec
from blocklab.errors import InputError


def jpeg(width: int, height: int, mode: str = "RGB") -> bytes:
    across, down = np.meshgrid(np.linspace(0, 6, width), np.linspace(0, 5, height))
    waves = np.stack([np.sin(across), np.cos(down), np.sin(across + down)], 2)
    stream = io.BytesIO()
    Image.fromarray((127 + 100 * waves).astype(np.uint8)).convert(mode).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(12):
        place = tmp_path / "photos" / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.jpg").write_bytes(jpeg(300 + 7 * number, 250))
    return tmp_path / "photos"


def test_an_open_picture_of_somebody_is_not_changed() -> None:
    content = jpeg(800, 600)
    image = Image.open(io.BytesIO(content))
    lazy = as_tensor("lazy", image, 56, False, 64)
    assert image.size == (800, 600)
    loaded = Image.open(io.BytesIO(content))
    loaded.load()
    assert torch.equal(as_tensor("loaded", loaded, 56, False, 64), lazy)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(("width", "height"), [(800, 600), (600, 800), (130, 64)])
def test_a_draft_is_the_picture_in_other_bits(
    width: int, height: int, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = Picture("one", jpeg(width, height, mode))
    whole = decode(picture, 64)
    sizes: list[tuple[int, int]] = []
    plain = Image.Image.resize

    def resize(image: Image.Image, *given: object) -> Image.Image:
        sizes.append(image.size)
        return plain(image, *given)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Image.Image, "resize", resize)
    draft = decode(picture, 64, draft=True)
    assert draft.shape == whole.shape == (64, 64, 3)
    assert np.abs(draft.astype(int) - whole).mean() < 3
    for size in sizes:  # never smaller than what is kept, and less than twice that
        assert 64 <= min(size) <= 128
    assert np.array_equal(decode(picture, 64), whole)


def test_larger_pictures_are_kept_and_old_stores_stay(folder: Path, cache: Path) -> None:
    old = open_data(DataSpec(source=f"folder:{folder}", image_size=56))
    stores = set((cache / "data").glob("[!.]*[!k]"))
    fields = {"source": f"folder:{folder}", "image_size": 56, "kept_size": 64}
    data = open_data(DataSpec.parse(fields))
    assert data.train.images.shape[1:] == (64, 64, 3)
    assert data.image_size == 56
    again = open_data(DataSpec(source=f"folder:{folder}", image_size=56))
    assert again.fingerprint == old.fingerprint != data.fingerprint
    assert stores < set((cache / "data").glob("[!.]*[!k]"))


def test_a_store_without_drafts_is_named_as_it_always_was(cache: Path) -> None:
    """By the SHA-256 of the format and what it was decoded from: more, and all are decoded anew."""
    image = Picture("one", np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    pictures = Pictures(np.zeros(1, np.int64), lambda: iter([image]))
    source = Source("mine", ["there"], lambda _: Contents(("a",), pictures, pictures))
    key = f'[{FORMAT_VERSION}, "mine", ["there"], 4]'.encode()
    open_store(source, 4)
    names = {place.name for place in (cache / "data").iterdir() if place.is_dir()}
    assert names == {f"mine-{hashlib.sha256(key).hexdigest()[:16]}"}
    open_store(source, 4, draft=True)
    assert len([place for place in (cache / "data").iterdir() if place.is_dir()]) == 2


def test_a_definition_without_it_is_what_it_was(folder: Path) -> None:
    plain = DataSpec(source=f"folder:{folder}", image_size=56)
    assert "kept_size" not in plain.definition()
    larger = DataSpec(source=f"folder:{folder}", image_size=56, kept_size=64)
    assert larger.definition() == {**plain.definition(), "kept_size": 64}
    other = DataSpec.like(larger.definition(), f"folder:{folder}", 56)
    assert other.kept_size == 64


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 56, "kept_size": 55}, "kept_size=55 .*; set kept_size=64"),
        ({"kept_size": 64}, "needs image_size.* image_size=56"),
        ({"image_size": 56, "kept_size": 0}, "kept_size: .*greater than 0"),
    ],
)
def test_a_kept_size_that_keeps_nothing_is_refused(fields: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DataSpec.parse({"source": "cifar100", **fields})


def test_an_image_to_predict_is_read_as_the_store_keeps_it(folder: Path) -> None:
    data = open_data(DataSpec(source=f"folder:{folder}", image_size=56, kept_size=64), measure=True)
    files = sorted((folder / "class0").iterdir(), key=lambda file: file.name)
    given = as_tensor("one", files[0], 56, kept_size=64)
    first = data.test.pixels(np.arange(1))[0][4:60, 4:60]
    assert np.array_equal((given * 255).round().permute(1, 2, 0).numpy(), first)


@pytest.mark.parametrize("side", [56, 64, 70])
def test_an_array_is_prepared_alike_as_bytes_and_as_floats(
    side: int, rng: np.random.Generator
) -> None:
    pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    given, floats = (
        as_tensor("one", image, 56, kept_size=64)
        for image in (pixels, (pixels / np.float32(255)).astype(np.float32))
    )
    assert given.shape == (3, 56, 56) and (given - floats).abs().max() < 1e-6
    between = np.full((64, 64, 3), 0.3001, np.float32)  # which 8 bits would not hold
    assert torch.equal(as_tensor("two", between, 56, kept_size=64), torch.full((3, 56, 56), 0.3001))


@pytest.mark.parametrize("length", [0, 1, 3072, 99_999])
def test_checksums_join_to_that_of_the_whole(length: int, rng: np.random.Generator) -> None:
    before, after = rng.bytes(1234), rng.bytes(length)
    joined = JoinedChecksum(length).of(zlib.crc32(before), zlib.crc32(after))
    assert joined == zlib.crc32(before + after)
