"""What a run says of the code that trained it."""

from pathlib import Path

import pytest

from blocklab.training.provenance import code_of, versions


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name in ("kernels/pooling.py", "training/loop.py", "report/page.py"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("x = 1\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "text", "same"),
    [
        ("kernels/pooling.py", "x = 2\n", False),
        ("training/step.py", "", False),
        ("training/loop.py", "x = 1\r\n", True),  # as Git writes it on Windows
        ("report/page.py", "x = 2\n", True),  # trains nothing
        ("training/notes.txt", "x", True),
    ],
)
def test_code_is_other_code_where_what_trains_is_changed(
    package: Path, name: str, text: str, same: bool
) -> None:
    before = code_of(package)
    (package / name).write_bytes(text.encode())
    code_of.cache_clear()
    assert (code_of(package) == before) is same


def test_code_that_moves_is_other_code(package: Path) -> None:
    before = code_of(package)
    (package / "training/loop.py").rename(package / "training/step.py")
    code_of.cache_clear()
    assert code_of(package) != before


def test_a_runs_versions_name_its_code() -> None:
    code = versions()["code"]
    assert len(code) == 8
    assert set(code) <= set("0123456789abcdef")
