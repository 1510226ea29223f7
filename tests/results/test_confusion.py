"""Which classes a row knows and mistakes, counted from answers that are made by hand."""

import numpy as np
import pytest

from blocklab.measure.answers import Answers
from blocklab.results.confusion import ClassAccuracy, Mistake, confusion_of


def answers(named: list[int], labels: tuple[int, ...] = (0, 0, 0, 1, 1, 2)) -> Answers:
    """What a network of the classes a, b, c and d said, best first."""
    top = np.stack([named, [3] * len(named)], 1)
    return Answers((*"abcd",), np.array(labels), top, np.ones(len(labels), np.float32))


def test_classes_and_mistakes_are_means_over_runs() -> None:
    found = confusion_of([answers([0, 0, 1, 1, 2, 0]), answers([0, 1, 1, 1, 1, 2])])
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


def test_runs_over_other_images_are_not_averaged() -> None:
    one = answers([0] * 6)
    assert confusion_of([one, answers([0] * 6, (0, 0, 0, 1, 1, 1))]) is None
    assert confusion_of([]) is None
