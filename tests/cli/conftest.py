"""A command line that is called as a user types it, and a study small enough for a test."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from blocklab.cli.app import run
from blocklab.study.study import Study
from blocklab.training.run import execute_run

TINY_STUDY = """\
title: Two tiny networks
data: {source: digits, train_images: 48, test_images: 60}
recipe: {base: quick, epochs: 2, batch_size: 16}
seeds: 2
varies: [attention]
model: {widths: [4, 4, 8], depths: [1, 1, 1]}
rows:
  plain: resnet20
  se: resnet20_se
"""


@dataclass(frozen=True)
class Said:
    """What a command came to."""

    status: int
    out: str
    err: str


Blocklab = Callable[..., Said]


@pytest.fixture
def blocklab(capsys: pytest.CaptureFixture[str], undrawn: None) -> Blocklab:
    """Run one command line in this process."""

    def call(*arguments: object) -> Said:
        capsys.readouterr()
        status = run([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Said(status, said.out, said.err)

    return call


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of that study's runs, trained once."""
    folder = tmp_path_factory.mktemp("trained")
    path = folder / "tiny.yaml"
    path.write_text(TINY_STUDY)
    for one in Study.load(path).plan():
        execute_run(one.definition, folder / "runs", threads=1)
    return folder / "runs"


@pytest.fixture
def trained(_trained: Path, tmp_path: Path) -> Path:
    """`runs`, where all runs of the study have ended: it trains nothing there."""
    return Path(shutil.copytree(_trained, tmp_path / "runs"))


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    """A study that takes seconds."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_STUDY)
    return path
