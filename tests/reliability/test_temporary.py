"""Temporary files: the umask decides who reads what they become; those of the dead are swept."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocklab.data.image_data import open_data
from blocklab.data.spec import DataSpec
from blocklab.files import owner, remove_leftovers, sweep, write_atomically, write_json


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_files_have_the_mode_that_the_umask_gives(umask: int, tmp_path: Path) -> None:
    write_json(tmp_path / "new" / "a.json", {})
    assert mode(tmp_path / "new" / "a.json") == 0o666 & ~umask
    assert mode(tmp_path / "new") == 0o777 & ~umask


def test_so_have_decoded_images(
    umask: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image_folder: Path
) -> None:
    monkeypatch.setenv("BLOCKLAB_CACHE", str(tmp_path / "cache"))
    open_data(DataSpec.parse({"source": f"folder:{image_folder}", "image_size": 8}))
    made = [path for path in (tmp_path / "cache").rglob("meta.json")]
    assert made and all(mode(path.parent) == 0o777 & ~umask for path in made)


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """A folder of a few images, of two classes."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    return tmp_path / "images"


def left_by_the_dead(path: Path) -> Path:
    """Have a process die while it writes a file; return what it left."""

    def die_while_writing(half: Path) -> None:
        half.write_text("half")
        os._exit(9)

    child = os.fork()
    if not child:
        try:
            write_atomically(path, die_while_writing)
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    (left,) = (one for one in path.parent.iterdir() if one.name.endswith(".tmp"))
    assert not path.exists() and left.read_text() == "half"
    return left


def test_what_the_dead_left_is_swept_by_the_next_who_writes(tmp_path: Path) -> None:
    left = left_by_the_dead(tmp_path / "verdicts.tex")
    export = tmp_path / left.name.replace(".verdicts.tex", ".export").removesuffix(".tmp")
    export.mkdir()
    (export / "model.onnx").write_bytes(b"x")
    living = tmp_path / f".other.{owner()}.1.tmp"
    living.touch()
    elsewhere = tmp_path / ".other.1@another-machine.1.tmp"
    elsewhere.touch()
    old = tmp_path / ".other.2@another-machine.1.tmp"
    old.touch()
    os.utime(old, (0, 0))
    own = tmp_path / ".bashrc.tmp"  # nobody's of ours
    own.touch()
    sweep.cache_clear()
    write_atomically(tmp_path / "table.tex", "x")
    there = {path.name for path in tmp_path.iterdir()}
    assert there == {"table.tex", living.name, elsewhere.name, own.name}


def test_a_link_among_them_is_removed_and_not_followed(tmp_path: Path) -> None:
    left = left_by_the_dead(tmp_path / "out" / "a.json")
    (tmp_path / "precious").mkdir()
    left.unlink()
    left.symlink_to(tmp_path / "precious")
    sweep.cache_clear()
    sweep(tmp_path / "out")
    assert not left.is_symlink() and (tmp_path / "precious").is_dir()


def test_in_a_locked_folder_nobody_else_writes(tmp_path: Path) -> None:
    left = left_by_the_dead(tmp_path / "run.json")
    remove_leftovers(tmp_path)
    assert not left.exists()
