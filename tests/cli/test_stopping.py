"""Ctrl-C, as a terminal sends it to every process: one line says what is kept and how to go on.

SIGTERM to the command is the same. Checkpoints are written each minute: the stop writes these.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from blocklab.cli.app import run
from blocklab.training.run_folder import load_sealed

LONG = """\
title: Long
data: {source: digits, train_images: 48, test_images: 40}
recipe: {base: quick, epochs: 500, batch_size: 16}
varies: [attention]
model: {widths: [4, 4, 8], depths: [1, 1, 1]}
rows: {plain: resnet20, se: resnet20_se}
"""
TUNED = "tune: {lr: [0.1, 0.2], seeds: [7]}\n"
TRAIN = (
    "train",
    "resnet20:widths=[4,4,8],depths=[1,1,1]",
    "--data",
    "digits",
    "--set",
    "epochs=500",
)
FEW = ("--set", "data.train_images=48", "--set", "batch_size=16")


def stopped(
    out: Path, *arguments: str, by: signal.Signals = signal.SIGINT
) -> tuple[int, list[str], str]:
    """Stop a command once two epochs are kept; return its status, what it said, and a run."""
    program = "from blocklab_command import main; main()"
    command = [sys.executable, "-c", program, *arguments, "--out", str(out)]
    with subprocess.Popen(
        command,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 300
        logs: list[Path] = []
        while not logs and process.poll() is None and time.monotonic() < deadline:
            logs = [log for log in out.glob("*/log.jsonl") if log.read_text().count("\n") >= 2]
            time.sleep(0.05)
        if by == signal.SIGINT:
            os.killpg(process.pid, by)
        else:
            process.send_signal(by)
        said = process.communicate(timeout=300)[1]
    assert logs, said
    deadline = time.monotonic() + 120
    while left_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left_of(process.pid)
    return process.returncode, said.splitlines(), logs[0].parent.name


def left_of(session: int) -> list[str]:
    """Processes of a session that have not ended, where /proc tells."""
    left: list[str] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ends as it is looked at
            state, _, _, of = stat.read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                left.append(stat.parent.name)
    return left


def epochs(folder: Path) -> tuple[int, int]:
    """Those of a run's log, and of its checkpoint."""
    saved = load_sealed(folder / "last.ckpt")
    return (folder / "log.jsonl").read_text().count("\n"), (saved or {}).get("epochs_done", 0)


@pytest.mark.parametrize(
    ("devices", "by"),
    [
        pytest.param(1, signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(1, signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(2, signal.SIGINT, marks=pytest.mark.slow),
        (2, signal.SIGTERM),  # to one process, which has to end the other
    ],
)
def test_a_run(tmp_path: Path, devices: int, by: signal.Signals) -> None:
    status, said, name = stopped(tmp_path, *TRAIN, *FEW, "--devices", str(devices), by=by)
    logged, saved = epochs(tmp_path / name)
    assert logged - 1 <= saved <= logged + 1  # a stop may fall between the two
    kept = (tmp_path / name / "log.jsonl").read_text().count("\n")
    assert status == 130
    assert said[-1] == (
        f"stopped: {kept} of 500 epochs are kept in {tmp_path / name}; "
        "the same command goes on there"
    )
    assert not [line for line in said if "Traceback" in line or "Interrupt" in line]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(LONG, id="study"),
        pytest.param(LONG + TUNED, id="tune", marks=pytest.mark.slow),
    ],
)
def test_a_study_with_workers(tmp_path: Path, text: str) -> None:
    path = tmp_path / "long.yaml"
    path.write_text(text)
    out = tmp_path / "runs"
    status, said, _ = stopped(out, "study", str(path), "--workers", "2", "--threads", "1")
    runs = 4 if TUNED in text else 2
    assert status == 130
    assert said[-1].startswith(f"stopped: 0 of {runs} runs are finished, ")
    assert said[-1].endswith(
        f" more keep their whole epochs, in {out}; the same command goes on from there"
    )
    assert not [line for line in said if "Traceback" in line or "Interrupt" in line]
    for log in out.glob("*/log.jsonl"):
        logged, saved = epochs(log.parent)
        assert logged - 1 <= saved <= logged + 1


def test_a_study_that_is_killed_leaves_what_its_workers_reached(tmp_path: Path) -> None:
    path = tmp_path / "long.yaml"
    path.write_text(LONG)
    out = tmp_path / "runs"
    arguments = ("study", str(path), "--workers", "1", "--threads", "1")
    *_, name = stopped(out, *arguments, by=signal.SIGKILL)
    deadline = time.monotonic() + 120
    while not (out / name / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    logged, saved = epochs(out / name)
    assert logged >= 2 and logged - 1 <= saved <= logged + 1


def test_any_other_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("blocklab.cli.models.list_models", interrupted)
    assert run(["models"]) == 130
    assert capsys.readouterr().err == (
        "stopped: what had ended before is kept; the same command goes on from there\n"
    )


INTERRUPTED = """\
import sys
import blocklab_command

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupts())
sys.argv = ["blocklab", "models"]
blocklab_command.main()
"""


def test_a_stop_while_the_program_is_being_imported_is_one_line() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True)
    assert done.returncode == 130 and done.stdout == ""
    assert done.stderr == "stopped: nothing had begun; run the same command again\n"


TWICE = """\
import atexit, os, signal, sys
import blocklab_command
blocklab_command.answering = True  # so that what comes with it is not imported
from blocklab.cli import app

name, moment = sys.argv[1:]

def stop(*_):
    os.kill(os.getpid(), getattr(signal, name))

if moment == "at the end":
    atexit.register(stop)
else:
    app._say = stop
    app.typer.main.get_command = stop
sys.argv[1:] = ["models"]
blocklab_command.main()
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    ("moment", "status"), [("at the end", 0), ("while the first is told", 130)]
)
def test_a_second_stop_prints_no_traceback(name: str, moment: str, status: int) -> None:
    command = [sys.executable, "-c", TWICE, name, moment]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (status, "")
    assert ("resnet20" in done.stdout) == (status == 0)
