"""Files damaged at random: none is taken for good with other content, none ends in a traceback.

What carries a checksum is detected: every file of the cache, PNG, parquet with page checksums, and
tar.gz. (A flipped bit in a BMP, in a JPEG's pixels or in a plain pickle makes another valid file.)
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_files import Made, make, write_archive, write_class_folders, write_parquet

from blocklab.data.image_data import ImageData, open_data
from blocklab.data.spec import DataSpec
from blocklab.errors import BlocklabError

ARCHIVE = "cifar10"


def content(opened: ImageData) -> tuple[object, ...]:
    pixels = [
        (split.pixels(slice(None)).tobytes(), split.targets.tobytes())
        for split in (opened.train, opened.test)
    ]
    return (*pixels, opened.class_names, opened.fingerprint, opened.mean, opened.std)


def damage(body: bytes, rng: np.random.Generator) -> bytes:
    """Flip a bit or a byte, zero or remove a piece, or cut the end off."""
    kind, at = rng.integers(5), int(rng.integers(len(body)))
    piece = int(rng.integers(1, 64))
    if kind == 0:
        return body[:at] + bytes([body[at] ^ 1 << int(rng.integers(8))]) + body[at + 1 :]
    if kind == 1:
        return body[:at] + bytes([int(rng.integers(256))]) + body[at + 1 :]
    if kind == 2:
        return body[:at] + bytes(len(body[at : at + piece])) + body[at + piece :]
    if kind == 3:
        return body[:at] + body[at + piece :]
    return body[:at]


SOURCES: dict[str, tuple[Callable[[Made, Path], None], str]] = {
    "parquet": (lambda made, root: write_parquet(made, root / "set", checksums=True), "parquet:"),
    "png": (lambda made, root: write_class_folders(made, root / "set"), "folder:"),
    "tar": (lambda made, root: write_archive(made, root, ARCHIVE), ARCHIVE),
}


def spec_of(kind: str, root: Path) -> DataSpec:
    source = SOURCES[kind][1]
    address = source if source == ARCHIVE else f"{source}{root / 'set'}"
    return DataSpec(source=address, validation_fraction=0)


def outcomes(
    kind: str, rounds: int, data: Path, cache: Path, rng: np.random.Generator
) -> dict[str, int]:
    """Damage one file a round; count what was refused, and what was taken as it had been."""
    made = make(rng, 10, train=2, test=1)
    where = "parquet" if kind == "cache" else kind
    SOURCES[where][0](made, data)
    spec = spec_of(where, data)
    good = content(open_data(spec))
    place = cache if kind == "cache" else data
    files = sorted(p for p in place.rglob("*") if p.is_file() and p.suffix != ".lock")
    counts = {"refused": 0, "the same": 0}
    for round_ in range(rounds):
        path = files[round_ % len(files)]
        body = path.read_bytes()
        path.write_bytes(damage(body, rng))
        if kind != "cache":
            shutil.rmtree(cache, ignore_errors=True)  # it is not there after a refusal
        try:
            opened = content(open_data(spec))
        except BlocklabError as error:
            assert str(error).isprintable()
            counts["refused"] += 1
        else:
            assert opened == good, f"round {round_}: {path.name} was taken with other content"
            counts["the same"] += 1
        if kind != "cache":
            path.write_bytes(body)
    return counts


@pytest.mark.parametrize(
    ("kind", "rounds"), [("cache", 27), ("parquet", 12), ("png", 12), ("tar", 9)]
)
def test_damaged_files(
    kind: str, rounds: int, data: Path, cache: Path, rng: np.random.Generator
) -> None:
    counts = outcomes(kind, rounds, data, cache, rng)
    # A damaged cache is written anew without a word; damaged data is the user's to mend.
    assert counts["the same" if kind == "cache" else "refused"] >= rounds / 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cache", *SOURCES])
def test_500_damaged_files(
    kind: str, data: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = outcomes(kind, 125, data, cache, np.random.default_rng(500))
    with capsys.disabled():
        print(f"\n{kind}: 125 damaged, {counts}, 0 taken with other content")
    if kind == "cache":
        assert counts == {"refused": 0, "the same": 125}
