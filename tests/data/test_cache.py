"""The cache: whole or not there, whoever is killed and whatever is flipped."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from image_files import make, png, write_classes, write_parquet

from blocklab.data import cache as cache_module
from blocklab.data.image_data import ImageData, open_data
from blocklab.data.pictures import Contents
from blocklab.data.spec import DataSpec
from blocklab.errors import InputError, RunError


@pytest.fixture
def spec(data: Path, rng: np.random.Generator) -> DataSpec:
    write_classes(data / "set", {"a": 10, "b": 12}, rng)
    return DataSpec(source=f"folder:{data / 'set'}")


def stores(cache: Path) -> list[Path]:
    """Folders that can be taken for a store, by their names."""
    return sorted(path for path in (cache / "data").iterdir() if path.suffix != ".lock")


def content(opened: ImageData) -> list[object]:
    splits = (opened.train, opened.validation, opened.test)
    pixels = [(split.pixels(slice(None)).tobytes(), split.targets.tolist()) for split in splits]
    return [*pixels, opened.class_names, opened.mean, opened.std, opened.fingerprint]


def stamp(cache: Path) -> list[int]:
    """Changes when a store is written anew."""
    return [path.stat().st_ino for store in stores(cache) for path in sorted(store.iterdir())]


def test_a_second_opening_decodes_nothing(
    spec: DataSpec, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = content(open_data(spec))
    monkeypatch.setattr(cache_module, "decoded", lambda *ignored: pytest.fail("decoded again"))
    assert content(open_data(spec)) == first


def test_the_images_are_mapped_not_read(spec: DataSpec) -> None:
    images = open_data(spec).train.images
    assert isinstance(images.base, np.memmap) and not images.flags.writeable


def test_each_size_and_each_change_has_a_store_of_its_own(
    spec: DataSpec, data: Path, cache: Path
) -> None:
    open_data(spec)
    open_data(spec.model_copy(update={"image_size": 4}))
    assert len(stores(cache)) == 2
    path = data / "set" / "a" / "0.png"
    path.write_bytes(png(np.zeros((8, 8, 3), np.uint8)))  # in place
    changed = open_data(spec)
    assert len(stores(cache)) == 3
    every = np.concatenate([changed.train.images, changed.test.images])
    assert sum(not image.any() for image in every) == 1


def test_an_image_that_cannot_be_used_leaves_no_store(
    spec: DataSpec, data: Path, cache: Path
) -> None:
    (data / "set" / "b" / "z.png").write_bytes(b"damaged")
    with pytest.raises(InputError):
        open_data(spec)
    assert stores(cache) == []
    (data / "set" / "b" / "z.png").unlink()
    open_data(spec)
    assert len(stores(cache)) == 1


def test_a_read_only_cache_is_enough_to_open(spec: DataSpec, cache: Path) -> None:
    first = content(open_data(spec))
    for path in (cache / "data").glob("*.lock"):
        path.unlink()
    for path in sorted(cache.rglob("*"), reverse=True):
        path.chmod(0o444 if path.is_file() else 0o555)
    try:
        assert content(open_data(spec)) == first
        assert not list((cache / "data").glob("*.lock"))
    finally:
        for path in [cache, *cache.rglob("*")]:
            path.chmod(0o755)


@pytest.mark.parametrize("what", ["images", "labels", "order", "crc32", "meta"])
@pytest.mark.parametrize("how", ["flip", "cut", "empty", "longer", "gone", "folder"])
def test_a_damaged_store_is_written_anew(what: str, how: str, spec: DataSpec, cache: Path) -> None:
    first = content(open_data(spec))
    (store,) = stores(cache)
    path = store / ("meta.json" if what == "meta" else f"train_{what}.npy")
    body = bytearray(path.read_bytes())
    if how == "flip":
        body[len(body) * 3 // 4] ^= 4
    elif how == "cut":
        del body[-1:]
    elif how == "empty":
        body.clear()
    elif how == "longer":
        body += b"{"
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how != "gone":
        path.write_bytes(body)
    before = stamp(cache)
    assert content(open_data(spec)) == first
    if how != "cut" or what != "meta":  # whose last byte is a line's end
        assert stamp(cache) != before
    (store,) = stores(cache)
    assert content(open_data(spec)) == first


@pytest.mark.parametrize(
    "meta", ["[]", "3", "{}", '{"facts": 3, "crc32": 0}', "[" * 100_000, '{"facts": null}', "\xff"]
)
def test_notes_that_are_none(meta: str, spec: DataSpec, cache: Path) -> None:
    first = content(open_data(spec))
    (stores(cache)[0] / "meta.json").write_bytes(meta.encode("latin1"))
    assert content(open_data(spec)) == first


def test_a_changed_digit_of_the_mean(spec: DataSpec, cache: Path) -> None:
    first = content(open_data(spec))
    path = stores(cache)[0] / "meta.json"
    notes = json.loads(path.read_text())
    notes["facts"]["mean"][0] += 0.001
    path.write_text(json.dumps(notes))
    assert content(open_data(spec)) == first


def test_notes_of_another_store(spec: DataSpec, cache: Path) -> None:
    first = content(open_data(spec))
    open_data(spec.model_copy(update={"image_size": 4}))
    one, other = stores(cache)
    notes = [json.loads((store / "meta.json").read_text()) for store in (one, other)]
    assert notes[0]["facts"]["crc32"] != notes[1]["facts"]["crc32"]
    (one / "meta.json").write_bytes((other / "meta.json").read_bytes())
    assert content(open_data(spec)) == first


@pytest.mark.parametrize("what", ["images", "labels"])
def test_a_store_too_large_to_read_through(
    what: str, spec: DataSpec, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "LARGEST_CHECKED", 1000)
    first = open_data(spec)
    expected = content(first)
    assert first.train.checksums is not None
    path = stores(cache)[0] / f"train_{what}.npy"
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(body)
    before = stamp(cache)
    opened = open_data(spec)
    if what == "labels":  # small: checked at once
        assert stamp(cache) != before
        assert content(opened) == expected
        return
    with pytest.raises(RunError, match=r"image \d+ of .*train_images.npy is damaged; delete it"):
        content(opened)
    path.unlink()
    assert content(open_data(spec)) == expected


def test_a_large_store_of_another_length(
    spec: DataSpec, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "LARGEST_CHECKED", 1000)
    first = content(open_data(spec))
    images = np.load(stores(cache)[0] / "train_images.npy")
    for wrong in (images[:-1], images[:, :4], images.astype(np.int8), images.ravel()):
        np.save(stores(cache)[0] / "train_images.npy", wrong)
        assert content(open_data(spec)) == first


def test_a_store_that_is_damaged_as_it_is_written(
    spec: DataSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_crc_of_file", lambda path: 0)
    with pytest.raises(RunError, match="is damaged as soon as it is written; check the disk"):
        open_data(spec)


def test_fewer_images_than_labels_are_no_store(
    spec: DataSpec, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a damaged table could have it."""
    from blocklab.data import folders
    from blocklab.data.pictures import Pictures

    contents = folders._contents

    def short(*given: object) -> Contents:
        whole = contents(*given)  # pyright: ignore[reportArgumentType]
        train = Pictures(np.append(whole.train.labels, 0), whole.train.items)
        return replace(whole, train=train)

    monkeypatch.setattr(folders, "_contents", short)
    with pytest.raises(InputError, match=r"18 images for 19 labels, up to .*png; the data is dama"):
        open_data(spec)
    assert stores(cache) == []


def _slowly(seconds: float) -> None:
    """Let each chunk of two images take so long."""
    from blocklab.data import decoding

    decoding.IMAGES_AT_ONCE = 2
    plain = decoding.decode_with_depth

    def slow(*given: object) -> tuple[np.ndarray, int | None]:
        time.sleep(seconds)
        return plain(*given)  # pyright: ignore[reportArgumentType]

    decoding.decode_with_depth = slow


def _build(spec: DataSpec, count: Path, seconds: float) -> None:
    _slowly(seconds)
    build = cache_module._build

    def counted(*arguments: object) -> None:
        (count / str(os.getpid())).touch()
        build(*arguments)  # pyright: ignore[reportArgumentType]

    cache_module._build = counted
    open_data(spec)


def _start(spec: DataSpec, count: Path, seconds: float) -> "multiprocessing.Process":
    context = multiprocessing.get_context("fork")  # quick: torch is imported already
    process = context.Process(target=_build, args=(spec, count, seconds))
    process.start()
    return process  # pyright: ignore[reportReturnType]


def test_two_processes_build_a_store_once(spec: DataSpec, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "count").mkdir()
    pair = [_start(spec, tmp_path / "count", 0.01) for _ in range(2)]
    for process in pair:
        process.join(300)
    assert [process.exitcode for process in pair] == [0, 0]
    assert len(list((tmp_path / "count").iterdir())) == 1
    assert len(stores(cache)) == 1


def _half_written(cache: Path) -> list[Path]:
    if not (cache / "data").exists():
        return []
    return [path for path in stores(cache) if path.name.startswith(".")]


def _killed_while_building(spec: DataSpec, cache: Path, count: Path) -> None:
    process = _start(spec, count, 5)
    for _ in range(12_000):
        if any(path.suffix == ".npy" for path in cache.rglob("*")):
            break
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(300)


def test_a_killed_process_leaves_nothing_that_is_taken_for_a_store(
    spec: DataSpec, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "count").mkdir()
    _killed_while_building(spec, cache, tmp_path / "count")
    assert len(_half_written(cache)) == 1 and stores(cache) == _half_written(cache)
    opened = content(open_data(spec))
    assert _half_written(cache) == [] and len(stores(cache)) == 1
    shutil.rmtree(cache)
    assert content(open_data(spec)) == opened


def test_what_a_killed_process_left_of_other_data_is_cleared_too(
    spec: DataSpec, data: Path, cache: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    (tmp_path / "count").mkdir()
    _killed_while_building(spec, cache, tmp_path / "count")
    write_parquet(make(rng, 2, train=10, test=2, size=8), data / "other")
    open_data(DataSpec(source=f"parquet:{data / 'other'}"))
    assert _half_written(cache) == [] and len(stores(cache)) == 1


def test_what_another_process_is_writing_is_left_alone(
    spec: DataSpec, data: Path, cache: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    (tmp_path / "count").mkdir()
    process = _start(spec, tmp_path / "count", 0.1)
    for _ in range(12_000):
        if cache.exists() and _half_written(cache):
            break
        time.sleep(0.01)
    write_parquet(make(rng, 2, train=10, test=2, size=8), data / "other")
    open_data(DataSpec(source=f"parquet:{data / 'other'}"))
    process.join(300)
    assert process.exitcode == 0 and len(stores(cache)) == 2 and not _half_written(cache)
