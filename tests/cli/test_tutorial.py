"""The tutorial, word by word: its file is written and its commands are run, in its order."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
Blocklab = Any


@pytest.fixture(autouse=True)
def _in_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry_as_it_was: None
) -> None:
    monkeypatch.chdir(tmp_path)


def follow(blocklab: Blocklab, trains: bool) -> list[str]:
    """Do what the page says, and return what its commands print.

    Without `trains` what takes seconds is left out; `test_new_command.py` checks the block.
    """
    printed = list[str]()
    for language, text in FENCE.findall(PAGE.read_text(encoding="utf-8")):
        if language == "yaml":
            Path(re.findall(r"^# (\w+\.yaml)", text)[0]).write_text(text, encoding="utf-8")
        for line in text.splitlines() if language == "console" else ():
            program, *given = shlex.split(line.removeprefix("$ "), comments=True)
            if not trains and given[0] != "new" and "--dry-run" not in given:
                continue
            if program == "pytest":
                command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *given]
                done = subprocess.run(command, capture_output=True, text=True)
                assert done.returncode == 0, done.stdout
                continue
            assert program == "blocklab", line
            said = blocklab(*given)
            assert said.status == 0, f"{line}\n{said.err}"
            printed.append(said.out)
    return printed


def test_the_block_is_written_and_the_study_is_planned(blocklab: Blocklab) -> None:
    made, planned = follow(blocklab, trains=False)
    assert "wrote my_gate.py" in made
    assert [line.split()[0] for line in planned.splitlines()[3:6]] == ["plain", "se", "mine"]


@pytest.mark.slow
def test_it_ends_with_verdicts(blocklab: Blocklab) -> None:
    _, checked, _, four_seeds, eight_seeds = follow(blocklab, trains=True)
    assert "keeps the contract" in checked
    for printed in (four_seeds, eight_seeds):
        assert "too few seeds" not in printed and "undertrained" not in printed, printed
    assert Path("runs/worth_it/report.html").exists()
    assert Path("runs/worth_it+seeds=8/report.html").exists()
