"""``blocklab new``: what it writes runs as it is, and it overwrites and hides nothing."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

Blocklab = Any


@pytest.fixture(autouse=True)
def _in_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry_as_it_was: None
) -> None:
    monkeypatch.chdir(tmp_path)


def pytest_of(*files: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_what_is_written_runs_from_the_block_to_the_study(blocklab: Blocklab) -> None:
    for kind, name in (("block", "my_gate"), ("backbone", "my_net")):
        said = blocklab("new", kind, name)
        assert said.status == 0, said.err
        assert f"wrote {name}.py\nwrote test_{name}.py" in said.out
        assert f"  blocklab check {name}.py\n  pytest test_{name}.py\n" in said.out
        checked = blocklab("check", f"{name}.py")
        assert checked.status == 0, checked.out
        assert ": keeps the contract" in checked.out
    assert "7 passed" in pytest_of("test_my_gate.py", "test_my_net.py")
    given = ("--plugin", "my_gate.py", "--plugin", "my_net.py")
    said = blocklab("new", "study", "mine", *given)
    assert said.status == 0, said.err
    assert f"  blocklab study mine.yaml {' '.join(given)} --dry-run\n" in said.out
    dry = blocklab("study", "mine.yaml", *given, "--dry-run")
    assert dry.status == 0, dry.err
    assert [line.split()[0] for line in dry.out.splitlines()[3:6]] == [
        "resnet20", "my_gate", "my_net",
    ]  # fmt: skip


def test_what_to_type_next_is_quoted_for_a_shell(blocklab: Blocklab) -> None:
    said = blocklab("new", "block", "my_gate", "--to", "new dir")
    assert said.status == 0, said.err
    folder = Path("new dir")
    block = str(folder / "my_gate.py")
    assert [shlex.split(line) for line in said.out.partition("next:\n")[2].splitlines()] == [
        ["blocklab", "check", block],
        ["pytest", str(folder / "test_my_gate.py")],
        ["blocklab", "new", "study", "my_gate_study", "--plugin", block],
    ]
    said = blocklab("new", "study", "mine", "--to", folder, "--plugin", block)
    command = ["blocklab", "study", str(folder / "mine.yaml"), "--plugin", block]
    assert [shlex.split(line) for line in said.out.partition("next:\n")[2].splitlines()] == [
        [*command, "--dry-run"],
        command,
    ]
    assert f" --plugin '{block}' --dry-run\n" in (folder / "mine.yaml").read_text()


def test_the_test_that_is_written_fails_of_another_equation(
    blocklab: Blocklab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocklab("new", "block", "my_gate")
    path = Path("my_gate.py")
    path.write_text(path.read_text().replace("+ self.bias))", "- self.bias))"))
    monkeypatch.syspath_prepend(Path.cwd())
    capsys.readouterr()
    status = pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir=.", "test_my_gate.py"])
    for name in ("my_gate", "test_my_gate"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert status == 1 and "4 failed, 1 passed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("example", "row"),
    [
        ("my_mixer.py", "near_and_far: {base: resnet20, mixer: near_and_far}"),
        ("my_token_mixer.py", "{base: van_b0, stem: cifar, mixer: row_and_column}"),
        ("my_ffn_mixer.py", "{base: van_b0, stem: cifar, ffn_mixer: neighbours}"),
    ],
)
def test_a_study_has_a_row_for_each_kind_of_block(
    blocklab: Blocklab, example: str, row: str
) -> None:
    file = Path(__file__).parent.parent.parent / "examples" / example
    assert blocklab("new", "study", "mine", "--plugin", file).status == 0
    assert row in Path("mine.yaml").read_text()
    said = blocklab("study", "mine.yaml", "--plugin", file, "--dry-run")
    assert said.status == 0, said.err


def test_a_study_by_itself_compares_two_shipped_rows(blocklab: Blocklab, tmp_path: Path) -> None:
    assert blocklab("new", "study", "mine", "--to", tmp_path).status == 0
    assert blocklab("study", tmp_path / "mine.yaml", "--dry-run").status == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("block", "3x"), "'3x' is no name for a block"),
        (("block", "class"), "'class' is no name for a block"),
        (("block", "yes"), "'yes' is no name for a block"),
        (("block", "_"), "'_' is no name for a block"),
        (("study", "../a"), "'../a' is no name for a study"),
        (("block", "se"), "'se' is a block of blocklab's"),
        (("backbone", "resnet20_se"), "'resnet20_se' is a backbone of blocklab's"),
        (("study", "quickstart"), "'quickstart' is a study of blocklab's"),
        (("block", "torch"), "'torch' is a Python package's name, which torch.py would hide"),
        (("block", "json"), "'json' is a Python package's name"),
        (("blok", "a"), "not 'blok'; did you mean 'block'?"),
        (("block", "mine", "--plugin", "taken.py"), "--plugin gives a study its rows"),
        (("block", "taken"), "taken.py is there already"),
        (("block", "other"), "test_other.py is there already"),
        (("block", "mine", "--to", "taken.py"), "taken.py is a file; name a folder"),
    ],
)
def test_a_bad_name_or_place_is_refused_and_nothing_is_written(
    blocklab: Blocklab, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    block = "from torch import nn\nfrom blocklab import register_block\n"
    block += "@register_block('taken_by_a_file')\nclass A(nn.Identity):\n"
    (tmp_path / "taken.py").write_text(block + "    def __init__(self): super().__init__()\n")
    (tmp_path / "test_other.py").write_text("")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    done = blocklab("new", *words)
    assert done.status == 2 and done.out == ""
    assert said in done.err and done.err.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
