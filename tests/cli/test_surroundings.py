"""What a command is started with: closed or full outputs, and what launchers tell it."""

import subprocess
import sys
from pathlib import Path

import pytest

from blocklab.cli import app
from blocklab.cli.output import print_table

BLOCKLAB = "from blocklab_command import main; main()"


def shell(arguments: str, redirected: str) -> subprocess.CompletedProcess[str]:
    """Run a command line with its streams redirected as a shell does."""
    line = f"'{sys.executable}' -c '{BLOCKLAB}' {arguments} {redirected}"
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True)


@pytest.mark.parametrize("arguments", ["models", "recipes --json", "--help", "--version"])
def test_a_full_output_is_one_line(arguments: str) -> None:
    done = shell(arguments, ">/dev/full")
    assert done.returncode == 1
    assert done.stderr == (
        "error: cannot write the output: No space left on device; free some space\n"
    )


@pytest.mark.parametrize("arguments", ["models", "recipes --json", "--help"])
def test_a_closed_output_is_no_fault(arguments: str) -> None:
    done = shell(arguments, ">&-")
    assert (done.returncode, done.stderr) == (0, "")


def test_errors_need_no_stderr() -> None:
    for redirected in ("2>&-", "2>/dev/full", ">&- 2>&- <&-"):
        done = shell("models resnot", redirected)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_a_reader_that_has_gone_is_no_fault() -> None:
    for command in ("models", "models --json"):
        assert shell(command, "| head -1").stderr == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["study", "quickstart", "--out", ""], '--out "" is no folder'),
        (["report", "", "--json"], "an argument is empty"),
        (["compare", "--out=", "table.csv"], '--out "" is no folder'),
        (["train", "resnet20", ""], "an argument is empty"),
    ],
)
def test_an_unset_variable_is_not_the_working_directory(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert app.run(arguments) == 2
    error = capsys.readouterr().err
    assert error == f"error: {said}; is a variable of your shell unset?\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "x"}, "SLURM_NTASKS"),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "-1"}, "SLURM_NTASKS"),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "2", "SLURM_PROCID": "y"}, "SLURM_PROCID"),
        ({"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "9" * 5000}, "WORLD_SIZE"),
        ({"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "RANK": "x"}, "RANK"),
    ],
)
def test_what_launchers_tell_is_a_number(
    told: dict[str, str],
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for variable, value in told.items():
        monkeypatch.setenv(variable, value)
    devices = "1" if told.get("SLURM_NTASKS") == "x" else "2"
    given = ["train", "resnet20", "--data", "digits", "--out", str(tmp_path)]
    assert app.run([*given, "--devices", devices]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {name} is '") and said.count("\n") == 1


@pytest.mark.parametrize("rows", [2, 2000])
def test_tables_hand_on_no_escape_sequence_and_no_markup(
    rows: int, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = "\x1b[31m[/red]\r\u202e"
    print_table((odd, "b"), [(odd, odd)] * rows, odd)
    said = capsys.readouterr().out
    assert "\x1b" not in said and "\r" not in said and "\u202e" not in said
    assert said.count(r"\x1b[31m[/red]\r\u202e") == 2 + 2 * rows
