"""The house: imports only run downward, and what the package says of itself."""

import subprocess
import sys
from pathlib import Path

import pytest

import blocklab

ROOT = Path(__file__).parent.parent


def test_imports_only_run_downward() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kept, 0 broken" in done.stdout


@pytest.mark.parametrize("name", ["utils", "misc", "helpers"])
def test_no_file_is_a_drawer(name: str) -> None:
    folders = ("src", "tests", "benchmarks", "examples")
    assert not [path for folder in folders for path in (ROOT / folder).rglob(f"*{name}*.py")]


def test_the_project_speaks_of_itself_alone() -> None:
    """No file names a place of one machine, where it would mean nothing to a reader."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout, so what is the project's own is not known")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if name in (".ci/run", "tests/test_house.py") or path.suffix in (".png", ".svg", ".gz"):
            continue
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        for word in ("/work/", "../shared", "/root/", "/tmp/team"):
            assert word not in text, f"{name} names {word}"


def test_every_public_name_is_there_and_listed() -> None:
    assert set(blocklab.__all__) <= set(dir(blocklab))  # what autodoc and completion go by
    for name in blocklab.__all__:
        assert callable(getattr(blocklab, name)), name
    with pytest.raises(AttributeError, match="no attribute 'Studdy'"):
        _ = blocklab.Studdy
