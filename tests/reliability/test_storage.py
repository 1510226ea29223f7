"""Run folders that travel over storage: a run goes on elsewhere, with the same bits."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blocklab.errors import InputError, RunError
from blocklab.execution.ray_cluster import _train_with_storage
from blocklab.execution.storage import Storage
from blocklab.execution.worker import Task
from blocklab.training.run_definition import RunDefinition
from blocklab.training.run_folder import load_sealed
from blocklab.training.run_reader import is_finished


def _saved(folder: Path) -> int:
    """Epochs of its checkpoint."""
    return (load_sealed(folder / "last.ckpt") or {}).get("epochs_done", 0)


class Breaking(Storage):
    """Does not answer any more after some files."""

    left = 4  # the first epoch's three files, and one of the second's

    def send(self, folder: Path, names: tuple[str, ...] = ()) -> None:
        deadline = time.monotonic() + 120
        done = (folder / "log.jsonl").read_text().count("\n")
        while _saved(folder) < done and time.monotonic() < deadline:
            time.sleep(0.01)  # it is written aside
        for name in names:
            self.left -= 1
            if self.left < 0:
                raise RunError(f"cannot write to {self.url}: it is gone")
            super().send(folder, (name,))


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_a_run_goes_on_from_what_was_sent(
    kind: str,
    definition: RunDefinition,
    tmp_path: Path,
    bits: Callable[[Path], dict[str, Any]],
    whole_bits: dict[str, Any],
) -> None:
    url = f"file://{tmp_path / 'store'}" if kind == "file" else "memory://store"
    task = Task(definition.to_task(), tmp_path / "unused", "plain", 1, definition.hash)
    ended = _train_with_storage(task, (), Breaking(url))
    assert (ended.kind, ended.text) == ("failed", f"cannot write to {url}: it is gone")
    storage = Storage(url)
    assert [record["epoch"] for record in storage.log(definition.hash)] == [1]
    assert not storage.has_result(definition.hash)
    begun: list[int] = []

    class Noting(Storage):
        def send(self, folder: Path, names: tuple[str, ...] = ()) -> None:
            super().send(folder, *([names] if names else []))
            begun.append(len(self.log(definition.hash)))

    assert _train_with_storage(task, (), Noting(url)).kind == "finished"
    assert begun == [3, 3], "the second epoch's checkpoint had arrived: only the third was left"
    here = tmp_path / "here" / definition.hash
    storage.fetch(here)
    assert is_finished(here) and bits(here) == whole_bits
    assert not (tmp_path / "unused").exists()


def test_storage_that_is_none_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOCKLAB_STORAGE", "nowhere://bucket")
    with pytest.raises(InputError, match="cannot use BLOCKLAB_STORAGE=nowhere://bucket") as said:
        Storage.named()
    assert "\n" not in str(said.value)
    monkeypatch.delenv("BLOCKLAB_STORAGE")
    assert Storage.named() is None
