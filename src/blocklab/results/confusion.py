"""Which classes a row's networks know, and which they take for which others.

From the predictions of finished runs: each network's first choice on each test image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from blocklab.results.ended_run import EndedRun
from blocklab.training.run_reader import RunReader

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


def confusion_of(runs: Sequence[EndedRun]) -> Confusion | None:
    """Count over those of a row's runs that kept predictions; None where none did."""
    tables, names = [], None
    for run in runs:
        if run.per_image is None:
            continue
        own = tuple(run.run["class_names"])
        if names not in (None, own):
            return None  # a row has one set of classes, unless somebody moved its files
        names = own
        table = _table(run, len(own))
        if table is not None:
            tables.append(table)
    if not tables or names is None:
        return None
    return _confusion(np.stack(tables), names)


def _table(run: EndedRun, classes: int) -> np.ndarray | None:
    """Count a run's images by their class and by the one that it names: (classes, classes)."""
    arrays = RunReader(run.folder).arrays()
    labels, first = arrays["labels"], arrays["top5"][:, 0]
    if min(labels.min(), first.min()) < 0 or max(labels.max(), first.max()) >= classes:
        return None
    places = labels.astype(np.int64) * classes + first
    return np.bincount(places, minlength=classes**2).reshape(classes, classes)


def _confusion(tables: np.ndarray, names: Sequence[str]) -> Confusion:
    images = tables[0].sum(1)  # (classes,): the same images in each run
    shares = 100 * np.diagonal(tables, axis1=1, axis2=2) / np.maximum(images, 1)  # (runs, classes)
    classes = [
        ClassAccuracy(name, int(images[i]), float(of.mean()), float(of.min()), float(of.max()))
        for i, name in enumerate(names)
        if images[i] and (of := shares[:, i]) is not None
    ]
    mean = tables.mean(0)
    np.fill_diagonal(mean, 0.0)
    worst = np.argsort(-mean, axis=None, kind="stable")[:MOST_PAIRS]
    mistakes = [
        Mistake(names[i], names[j], float(mean[i, j]), float(100 * mean[i, j] / images[i]))
        for i, j in (divmod(int(place), len(names)) for place in worst)
        if mean[i, j] > 0
    ]
    classes.sort(key=lambda one: one.top1)
    return Confusion(len(tables), tuple(classes), tuple(mistakes))
