"""A tiny run, trained once, and what of it must repeat to the bit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blocklab.execution.verify import untimed
from blocklab.study.study import Study
from blocklab.training.checkpoints import SECONDS_VARIABLE, Checkpoints
from blocklab.training.run import execute_run
from blocklab.training.run_definition import RunDefinition
from blocklab.training.run_reader import RunReader

TINY = {"backbone": "resnet20", "widths": [4, 8, 8], "depths": [1, 1, 1]}

Bits = Callable[[Path], dict[str, Any]]


@pytest.fixture(autouse=True)
def _a_checkpoint_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the files of a run written as often as they can be, so that each can be damaged."""
    monkeypatch.setenv(SECONDS_VARIABLE, "0")


@pytest.fixture(scope="session")
def make_study() -> Callable[..., Study]:
    """A function that makes a study of tiny networks on digits; fields may be changed."""

    def make(name: str = "tiny", **changes: Any) -> Study:
        fields = {
            "title": "Tiny",
            "data": {"source": "digits", "train_images": 60, "test_images": 50},
            "recipe": {"base": "quick", "epochs": 3, "batch_size": 20},
            "varies": ["attention", "recipe"],
            "rows": {"plain": TINY},
        }
        return Study.parse({**fields, **changes}, name)

    return make


@pytest.fixture(scope="session")
def definition(make_study: Callable[..., Study]) -> RunDefinition:
    """What defines the tiny run."""
    return next(make_study().plan()).definition


@pytest.fixture(scope="session")
def _finished(definition: RunDefinition, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kept = Checkpoints(seconds=0.0, keep=True)
    return execute_run(definition, tmp_path_factory.mktemp("whole"), threads=1, checkpoints=kept)


@pytest.fixture
def finished(_finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run's folder, to be damaged."""
    return Path(shutil.copytree(_finished, tmp_path / "copy" / _finished.name))


@pytest.fixture(scope="session")
def bits() -> Bits:
    """A function that reads all of a run that must repeat to the bit."""

    def read(folder: Path) -> dict[str, Any]:
        lines = (folder / "log.jsonl").read_text().splitlines()
        result = untimed(RunReader(folder).result or {})
        result.pop("files", None)
        arrays = [(folder / name).read_bytes() for name in ("predictions.npz", "model.safetensors")]
        return {"log": [untimed(json.loads(line)) for line in lines], "result": result, "a": arrays}

    return read


@pytest.fixture(scope="session")
def whole_bits(_finished: Path, bits: Bits) -> dict[str, Any]:
    """Those of the run that nothing disturbed."""
    return bits(_finished)
