"""Disks that fill up, refuse or vanish: one line, nothing lost, and the same bits afterwards."""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from blocklab import files
from blocklab.errors import InputError, RunError
from blocklab.execution.train_studies import train_studies
from blocklab.execution.worker import Task, train_task
from blocklab.study.study import Study
from blocklab.training import run, run_folder
from blocklab.training.run import execute_run
from blocklab.training.run_definition import RunDefinition
from blocklab.training.run_files import LOG
from blocklab.training.run_folder import RunFolder, VanishedError, note_failure
from blocklab.training.run_reader import RunReader, is_finished

Bits = Callable[[Path], dict[str, Any]]


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_a_disk_that_fills_at_any_write_loses_nothing(
    step: int,
    definition: RunDefinition,
    tmp_path: Path,
    bits: Bits,
    whole_bits: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every write, or every third, fails once, in turn; the same command then goes on.

    A file and then its folder are written: a step of three meets both kinds, in turn.
    """
    real_fsync, failures, left = os.fsync, 0, 0

    def fsync(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real_fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", fsync)
    folder = tmp_path / definition.hash
    for which in range(1, 100, step):
        left = which
        try:
            execute_run(definition, tmp_path, threads=1)
        except RunError as error:
            failures += 1
            assert "No space left on device; free some space" in str(error)
            assert "\n" not in str(error)
            assert not list(folder.glob(".*.tmp")), "what was half written is removed"
        else:
            if left > 0:
                break
        left = 0
        execute_run(definition, tmp_path, threads=1)
        assert bits(folder) == whole_bits
        shutil.rmtree(folder)
    assert failures >= 20 // step  # run.json, two files an epoch, and the results
    assert bits(folder) == whole_bits


@pytest.mark.parametrize("stop", [InputError("wrong"), RunError("no net"), KeyboardInterrupt()])
def test_a_folder_in_which_nothing_was_written_goes_again(
    tmp_path: Path, stop: BaseException
) -> None:
    folder = RunFolder(tmp_path / "made" / "0123456789abcdef")
    with pytest.raises(type(stop)), folder.locked():
        raise stop
    assert not list(tmp_path.iterdir())
    with pytest.raises(type(stop)), folder.locked(keep_empty=True):
        raise stop
    with pytest.raises(type(stop)), folder.locked():
        raise stop
    assert folder.path.is_dir(), "it was there before"
    shutil.rmtree(tmp_path / "made")
    with pytest.raises(type(stop)), folder.locked():
        folder.write_log([])
        raise stop
    assert (folder.path / LOG).exists()


def test_a_run_of_a_study_that_is_refused_keeps_a_folder_for_why(
    definition: RunDefinition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise InputError("no such images")

    monkeypatch.setattr(run, "open_data", refuse)
    task = Task(definition.to_task(), tmp_path, "mine", 1, definition.hash)
    said = train_task(task, lambda _: None)
    assert (said.kind, said.text) == ("failed", "no such images")
    note_failure(tmp_path / definition.hash, said.text)
    assert RunReader(tmp_path / definition.hash).failure == "no such images"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 256 kB, where the system lets us make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "blocklab-test", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("making a small file system needs the rights to mount one")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def test_a_real_disk_that_is_full_then_read_only_then_mended(
    small_disk: Path,
    make_study: Callable[..., Study],
    bits: Bits,
    whole_bits: dict[str, Any],
) -> None:
    study = make_study()
    folder = small_disk / next(study.plan()).definition.hash
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 210_000)
    (row,) = train_studies((study,), small_disk, 1, threads=1)[0].rows
    assert not row.runs and not is_finished(folder)
    assert row.failed == () or "No space left" in row.failed[0]
    filler.unlink()
    remount(small_disk, "ro")
    with pytest.raises(RunError, match=r"cannot write .*Read-only file system"):
        execute_run(next(study.plan()).definition, small_disk)
    with pytest.raises(RunError, match=r"cannot write .*Read-only file system"):
        train_studies((study,), small_disk, 1)[0]
    remount(small_disk, "rw,size=2m")
    (row,) = train_studies((study,), small_disk, 1)[0].rows
    assert len(row.finished) == 1 and not row.failed
    assert bits(folder) == whole_bits


def test_a_folder_that_vanishes_is_noticed(
    definition: RunDefinition, tmp_path: Path, bits: Bits, whole_bits: dict[str, Any]
) -> None:
    folder = tmp_path / definition.hash

    def vanish(record: dict[str, Any]) -> None:
        if record["epoch"] == 2:  # at once: a checkpoint may be on its way into it
            folder.rename(tmp_path / "gone")
            shutil.rmtree(tmp_path / "gone", ignore_errors=True)

    with pytest.raises(RunError, match="vanished while its run was trained"):
        execute_run(definition, tmp_path, threads=1, on_epoch=vanish)
    assert not folder.exists(), "nothing is written to where it was"
    execute_run(definition, tmp_path, threads=1)
    assert bits(folder) == whole_bits


def test_a_folder_that_is_replaced_is_not_written_to(
    definition: RunDefinition, tmp_path: Path
) -> None:
    folder = tmp_path / definition.hash

    def replace(record: dict[str, Any]) -> None:
        folder.rename(tmp_path / "moved")
        folder.mkdir()

    with pytest.raises(RunError, match="vanished"):
        execute_run(definition, tmp_path, threads=1, on_epoch=replace)
    assert not list(folder.iterdir())


def test_an_out_that_is_a_file_is_refused(definition: RunDefinition, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot write to .*choose another --out"):
        execute_run(definition, tmp_path / "file")


def test_a_folder_that_vanishes_while_it_is_written_to_is_noticed(
    definition: RunDefinition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / definition.hash

    def vanish(run_folder: RunFolder) -> None:
        if folder.exists():
            folder.rename(tmp_path / "gone")  # at once: files are written to it meanwhile

    monkeypatch.setattr(RunFolder, "_keep_previous", vanish)  # between the check and the write
    with pytest.raises(RunError, match="vanished while its run was trained"):
        execute_run(definition, tmp_path, threads=1)


@pytest.mark.parametrize("moment", ["_keep_previous", "sweep", "_write_buffer", "_sync"])
def test_a_folder_that_is_replaced_while_it_is_written_to_is_left_alone(
    definition: RunDefinition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A checkpoint is written by a thread: the folder can be replaced at any moment of it."""
    folder, moved = tmp_path / definition.hash, tmp_path / "moved"
    owner = {"_keep_previous": RunFolder, "_write_buffer": run_folder}.get(moment, files)
    as_it_was = getattr(owner, moment)

    def replace(*arguments: Any) -> None:
        if (folder / "log.jsonl").exists() and not moved.exists():  # the first epoch has ended
            folder.rename(moved)
            folder.mkdir()
        as_it_was(*arguments)

    monkeypatch.setattr(owner, moment, replace)
    with pytest.raises(VanishedError, match="vanished while its run was trained") as caught:
        execute_run(definition, tmp_path, threads=1)
    note_failure(folder, str(caught.value))  # as a study does
    assert moved.exists() and not list(folder.iterdir())
