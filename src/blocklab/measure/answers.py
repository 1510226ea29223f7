"""What a network said of labelled images: accuracy a class, confusions, calibration, ensembles.

All of it is of arrays that were kept, so nothing is computed with a network again.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blocklab.errors import InputError

BINS = 15  # of confidence, as in Guo et al.


@dataclass(frozen=True)
class ClassAccuracy:
    """How many of a class's images are known; `percent` is None of a class without images."""

    name: str
    images: int
    correct: int

    @property
    def percent(self) -> float | None:
        """Top-1 accuracy on this class's images."""
        return 100 * self.correct / self.images if self.images else None


@dataclass(frozen=True)
class Confusion:
    """How many of a class's images are taken for another class, and which share of them that is."""

    label: str
    predicted: str
    images: int
    percent: float


@dataclass(frozen=True)
class Bin:
    """Images whose largest probability lies above `low`, up to `high`; means over them."""

    low: float
    high: float
    images: int
    confidence_percent: float | None
    top1_percent: float | None


@dataclass(frozen=True)
class Calibration:
    """Whether a network is right as often as it says it is.

    `ece_percent` is the expected calibration error (Guo et al., ICML 2017, arXiv:1706.04599,
    equation 3): the gap between accuracy and confidence of each bin, weighted by its images.
    """

    ece_percent: float
    confidence_percent: float
    top1_percent: float
    bins: tuple[Bin, ...]

    def __str__(self) -> str:
        """One line for a person."""
        gap = self.confidence_percent - self.top1_percent
        how = "too sure" if gap > 0 else "too unsure"
        return (
            f"calibration error (ECE, {len(self.bins)} bins) {self.ece_percent:.2f} points: it "
            f"says {self.confidence_percent:.2f} %, and is right in {self.top1_percent:.2f} % "
            f"({how} by {abs(gap):.2f})"
        )


@dataclass(frozen=True, eq=False)
class Answers:
    """What a network said of each of N labelled images.

    `top` is (N, 5), or of fewer classes: the highest ones, best first. `loss` is (N,). `logits`
    are (N, C), each image's up to a constant; None where they were not kept, and `missing` then
    says why.
    """

    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    top: NDArray[np.int64]
    loss: NDArray[np.float32]
    logits: NDArray[np.floating[Any]] | None = None
    missing: str | None = None

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The class that was named first, (N,)."""
        return self.top[:, 0]

    @property
    def top1_percent(self) -> float:
        """Accuracy over all images."""
        return 100 * float((self.predicted == self.labels).mean())

    @cached_property
    def per_class(self) -> tuple[ClassAccuracy, ...]:
        """The accuracy on each class, in the classes' order."""
        classes = len(self.class_names)
        images = np.bincount(self.labels, minlength=classes)
        correct = np.bincount(self.labels[self.predicted == self.labels], minlength=classes)
        counts = zip(self.class_names, images.tolist(), correct.tolist(), strict=True)
        return tuple(ClassAccuracy(*each) for each in counts)

    def confusions(self, most: int = 10) -> tuple[Confusion, ...]:
        """Return the commonest mistakes, a class taken for another, the most images first."""
        wrong = self.predicted != self.labels
        pairs = np.stack([self.labels[wrong], self.predicted[wrong]], 1)  # (mistakes, 2)
        kinds, counts = np.unique(pairs, axis=0, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:most]
        return tuple(
            Confusion(
                self.class_names[label],
                self.class_names[named],
                images,
                100 * images / self.per_class[label].images,
            )
            for (label, named), images in zip(
                kinds[order].tolist(), counts[order].tolist(), strict=True
            )
        )

    @cached_property
    def calibration(self) -> Calibration | None:
        """Confidence held against accuracy; None without logits."""
        if self.logits is None:
            return None
        return calibration_of(probabilities(self.logits).max(1), self.predicted == self.labels)

    def to_dict(self, most: int = 10) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "per_class": [asdict(one) | {"percent": one.percent} for one in self.per_class],
            "confusions": [asdict(one) for one in self.confusions(most)],
            "calibration": asdict(self.calibration) if self.calibration else None,
            "missing": self.missing,
        }


def probabilities(logits: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return softmax of logits (N, C)."""
    shifted = logits.astype(np.float32)
    shifted = np.exp(shifted - shifted.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def calibration_of(
    confidence: NDArray[np.floating[Any]], correct: NDArray[np.bool_], bins: int = BINS
) -> Calibration:
    """Compare confidences (N,), from 0 to 1, with what was right, in bins of equal width."""
    place = np.clip(np.ceil(confidence * bins) - 1, 0, bins - 1).astype(int)
    images = np.bincount(place, minlength=bins)
    said = np.bincount(place, confidence, bins)
    right = np.bincount(place, correct, bins)
    found = tuple(
        Bin(
            one / bins,
            (one + 1) / bins,
            int(images[one]),
            100 * float(said[one] / images[one]) if images[one] else None,
            100 * float(right[one] / images[one]) if images[one] else None,
        )
        for one in range(bins)
    )
    total = len(confidence)
    return Calibration(
        100 * float(np.abs(said - right).sum()) / total,
        100 * float(said.sum()) / total,
        100 * float(right.sum()) / total,
        found,
    )


@dataclass(frozen=True)
class Ensemble:
    """Several networks whose probabilities are averaged: its accuracy beside its members'."""

    members: int
    top1_percent: float
    members_top1_percent: tuple[float, ...]
    calibration: Calibration

    @property
    def gain_points(self) -> float:
        """Its top-1 minus the mean of its members'."""
        return self.top1_percent - float(np.mean(self.members_top1_percent))


def ensemble(answers: Sequence[Answers]) -> Ensemble:
    """Average the probabilities of networks that saw the same images in the same order.

    Raises:
        InputError: if there are none, one kept no logits, or their images differ.
    """
    if not answers:
        raise InputError("an ensemble takes the answers of one network or more")
    first, total = answers[0], np.float32(0)
    for one in answers:
        if one.logits is None:
            raise InputError(f"an ensemble needs the logits of each: {one.missing}")
        if not np.array_equal(one.labels, first.labels) or one.class_names != first.class_names:
            raise InputError("an ensemble needs networks that were tested on the same images")
        total = total + probabilities(one.logits)
    mean = total / len(answers)
    correct = mean.argmax(1) == first.labels
    return Ensemble(
        len(answers),
        100 * float(correct.mean()),
        tuple(one.top1_percent for one in answers),
        calibration_of(mean.max(1), correct),
    )
