"""The house: imports only run downward, and what the package says of itself."""

import importlib
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import blocklab

ROOT = Path(__file__).parent.parent


def test_imports_only_run_downward_and_in_no_circle() -> None:
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


def test_the_drawing_of_the_house_names_every_room_and_only_files_that_are_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    drawing = text.split("```")[1]
    package = ROOT / "src" / "blocklab"
    for place in package.iterdir():
        if place.suffix == ".py" or (place / "__init__.py").exists():
            name = place.stem
            assert name == "__init__" or re.search(rf"\b{name}\b", drawing), f"{name} is not drawn"
    files = re.findall(r"`([a-z_]+(?:/[a-z_]+)*\.py)`", text)
    assert len(files) > 20
    for file in files:
        assert (package / file).is_file() or (ROOT / file).is_file(), file


def test_what_the_documents_import_is_there() -> None:
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("src/**/hub.py")]
    found = [
        (path, module, name.strip())
        for path in documents
        for module, names in re.findall(
            r"from (blocklab[\w.]*) import ([\w, ]+)", path.read_text(encoding="utf-8")
        )
        for name in names.split(",")
    ]
    assert any(path.suffix == ".md" for path, _, _ in found)
    for path, module, name in found:
        assert hasattr(importlib.import_module(module), name), f"{path.name}: {module}.{name}"


def test_formulas_of_the_docs_are_rendered() -> None:
    told = runpy.run_path(str(ROOT / "docs" / "conf.py"))
    pages = [page.read_text() for page in (ROOT / "docs").glob("*.md")]
    assert any(re.search(r"\$\\?[A-Za-z][^$\n]*\$", page) for page in pages)
    assert "dollarmath" in told["myst_enable_extensions"]
    assert "mathml" in told["extensions"]
