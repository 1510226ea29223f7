"""Which classes a row's networks know, and which they take for which others, over its runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from blocklab.measure.answers import Answers

MOST_PAIRS = 10


@dataclass(frozen=True)
class ClassAccuracy:
    """A class, how many test images it has, and how many percent of them are named so.

    `top1` is the mean over runs, `lowest` and `highest` those of single runs.
    """

    name: str
    images: int
    top1: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Mistake:
    """A class that is taken for another: so many of its images a run, and in percent of them."""

    truth: str
    named: str
    images: float
    percent: float


@dataclass(frozen=True)
class Confusion:
    """All classes that have test images, the worst known first, and the commonest mistakes.

    `runs` says over how many.
    """

    runs: int
    classes: tuple[ClassAccuracy, ...]
    mistakes: tuple[Mistake, ...]


def confusion_of(answers: Sequence[Answers]) -> Confusion | None:
    """Average what a row's runs said of the same test images; None of none, or of others."""
    if not answers or any(
        one.class_names != answers[0].class_names
        or not np.array_equal(one.labels, answers[0].labels)
        for one in answers
    ):
        return None
    runs, first = len(answers), answers[0]
    classes = []
    for of_runs in zip(*(one.per_class for one in answers), strict=True):
        shares = [one.percent for one in of_runs if one.percent is not None]
        if shares:
            mean = sum(shares) / runs
            name, images = of_runs[0].name, of_runs[0].images
            classes.append(ClassAccuracy(name, images, mean, min(shares), max(shares)))
    together = Answers(
        first.class_names,
        np.concatenate([one.labels for one in answers]),
        np.concatenate([one.top[:, :1] for one in answers]),
        np.concatenate([one.loss for one in answers]),
    )
    mistakes = tuple(
        Mistake(one.label, one.predicted, one.images / runs, one.percent)
        for one in together.confusions(MOST_PAIRS)
    )
    return Confusion(runs, tuple(sorted(classes, key=lambda one: one.top1)), mistakes)
