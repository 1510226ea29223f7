"""What the tests of looks share lies beside them: a crew that makes runs up."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from made_up_crew import FILE, MadeUp, MakeRun

from blocklab.execution import train_studies as training


@pytest.fixture
def file(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    make_run: MakeRun,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A study's file; its runs are made up, but for slow tests."""
    nothing = dict.fromkeys(("dies_at", "fails_from", "meanwhile"))
    for name, value in {"made": 0, "fails": (), "make_run": make_run, **nothing}.items():
        monkeypatch.setattr(MadeUp, name, value, raising=False)
    if "slow" not in request.keywords:
        monkeypatch.setattr(training, "Crew", MadeUp)
    path = tmp_path / "looks.yaml"
    path.write_text(FILE)
    return path
