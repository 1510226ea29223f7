"""Runs that are half trained and then ended, as trackers see them come and go."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

MakeRun = Callable[..., Path]


class Growing:
    """The folder of a run that has done some of its five epochs, and later all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = (folder / "log.jsonl").read_text().splitlines(keepends=True)
        self.result = (folder / "result.json").read_bytes()
        (folder / "result.json").unlink()
        self.grow(0)

    def grow(self, epochs: int) -> None:
        (self.folder / "log.jsonl").write_text("".join(self.log[:epochs]))

    def end(self) -> None:
        self.grow(len(self.log))
        (self.folder / "result.json").write_bytes(self.result)

    def losses(self) -> list[float]:
        return [json.loads(line)["train_loss"] for line in self.log]


@pytest.fixture
def growing(make_run: MakeRun, tmp_path: Path) -> Growing:
    """A run named "plain" of seed 3, with none of its epochs so far."""
    return Growing(make_run(tmp_path / "runs", "plain", 3, 70.0))
