"""Which classes a row knows and mistakes, counted from predictions that are made by hand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from blocklab.results.confusion import ClassAccuracy, Mistake, confusion_of
from blocklab.results.ended_run import EndedRun, read_ended_run
from blocklab.training.predictions import pack
from blocklab.training.run_folder import write_result
from blocklab.training.run_reader import RunReader

LABELS = [0, 0, 0, 1, 1, 2]


@pytest.fixture
def ended(make_run: Callable[..., Path], tmp_path: Path) -> Callable[[int, list[int]], EndedRun]:
    """A run over the classes a, b, c and d that names these for images of `LABELS`."""

    def make(seed: int, named: list[int]) -> EndedRun:
        about = {"class_names": [*"abcd"], "test_images": len(LABELS)}
        folder = make_run(tmp_path, seed=seed, images=len(LABELS), run=about)
        top = np.tile(np.arange(4), (len(LABELS), 1))
        top[:, 0] = named
        arrays = {"labels": np.array(LABELS), "top5": top, "loss": np.ones(6, np.float32)}
        (folder / "predictions.npz").write_bytes(pack(arrays))
        write_result(folder, {"status": "finished", "epochs": 5, "test_top1_percent": 50.0})
        run = read_ended_run(RunReader(folder))
        assert run is not None
        return run

    return make


def test_classes_and_mistakes_are_means_over_runs(
    ended: Callable[[int, list[int]], EndedRun],
) -> None:
    found = confusion_of([ended(0, [0, 0, 1, 1, 2, 0]), ended(1, [0, 1, 1, 1, 1, 2])])
    assert found is not None and found.runs == 2
    assert found.classes == (
        ClassAccuracy("a", 3, pytest.approx(50.0), pytest.approx(100 / 3), pytest.approx(200 / 3)),
        ClassAccuracy("c", 1, 50.0, 0.0, 100.0),
        ClassAccuracy("b", 2, 75.0, 50.0, 100.0),
    )  # d has no test image
    assert found.mistakes == (
        Mistake("a", "b", 1.5, 50.0),
        Mistake("b", "c", 0.5, 25.0),
        Mistake("c", "a", 0.5, 50.0),
    )


def test_classes_that_are_not_there_count_for_nothing(
    ended: Callable[[int, list[int]], EndedRun],
) -> None:
    assert confusion_of([ended(0, [0, 0, 0, 1, 1, 9])]) is None
    assert confusion_of([]) is None


def test_a_run_without_predictions_is_left_out(
    ended: Callable[[int, list[int]], EndedRun], make_run: Callable[..., Path], tmp_path: Path
) -> None:
    kept_none = read_ended_run(RunReader(make_run(tmp_path, seed=7)))
    assert kept_none is not None and confusion_of([kept_none]) is None
    found = confusion_of([kept_none, ended(0, LABELS)])
    assert found is not None and (found.runs, found.mistakes) == (1, ())
