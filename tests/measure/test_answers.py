"""Figures of kept answers, held against torchmetrics and slow loops."""

from collections import Counter

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
)

from blocklab.errors import InputError
from blocklab.measure.answers import Answers, ensemble, probabilities

CLASSES, IMAGES = 7, 500


def answers(seed: int = 0, sharpness: float = 3.0) -> Answers:
    """A network that is right more often than not, and too sure where it is sharp."""
    rng = np.random.default_rng(seed)
    labels = np.random.default_rng(99).integers(0, CLASSES - 1, IMAGES)  # none of the last class
    logits = sharpness * rng.normal(size=(IMAGES, CLASSES))
    logits[np.arange(IMAGES), labels] += 4
    top = np.argsort(-logits, 1)[:, :5]
    loss = -np.log(probabilities(logits)[np.arange(IMAGES), labels])
    return Answers(tuple("abcdefg"), labels, top, loss, logits)


def test_accuracy_a_class_is_torchmetrics() -> None:
    one = answers()
    theirs = multiclass_accuracy(
        torch.tensor(one.logits), torch.tensor(one.labels), CLASSES, average=None
    )
    ours = [each.percent for each in one.per_class]
    assert ours[-1] is None and one.per_class[-1].images == 0  # which torchmetrics calls 0
    assert ours[:-1] == pytest.approx((100 * theirs[:-1]).tolist(), rel=1e-5)
    assert sum(each.images for each in one.per_class) == IMAGES


@pytest.mark.parametrize("sharpness", [0.3, 3.0])
def test_calibration_is_torchmetrics(sharpness: float) -> None:
    one = answers(sharpness=sharpness)
    found = one.calibration
    assert found is not None
    theirs = multiclass_calibration_error(
        torch.tensor(probabilities(one.logits)), torch.tensor(one.labels), CLASSES, n_bins=15
    )
    assert found.ece_percent == pytest.approx(100 * theirs.item(), rel=1e-4)
    assert found.top1_percent == pytest.approx(one.top1_percent)
    assert sum(each.images for each in found.bins) == IMAGES
    assert ("too sure" in str(found)) == (found.confidence_percent > found.top1_percent)
    assert ("too sure" in str(found)) == (sharpness > 1)


def test_confusions_are_counted_pair_by_pair() -> None:
    one = answers()
    counted = Counter(
        (one.class_names[label], one.class_names[named])
        for label, named in zip(one.labels, one.predicted, strict=True)
        if label != named
    )
    found = one.confusions(4)
    assert [pair.images for pair in found] == [n for _, n in counted.most_common(4)]
    for pair in found:
        assert counted[pair.label, pair.predicted] == pair.images
        of_class = int((one.labels == one.class_names.index(pair.label)).sum())
        assert pair.percent == pytest.approx(100 * pair.images / of_class)


def test_an_ensemble_averages_probabilities() -> None:
    members = [answers(seed) for seed in range(4)]
    found = ensemble(members)
    right = 0
    for image in range(IMAGES):
        mean = sum(probabilities(one.logits[image : image + 1])[0] for one in members)
        right += int(np.argmax(mean) == members[0].labels[image])
    assert found.top1_percent == pytest.approx(100 * right / IMAGES)
    assert found.gain_points > 1 and found.members == 4
    assert ensemble(members[:1]).top1_percent == members[0].top1_percent


def test_what_is_no_ensemble_is_refused() -> None:
    one = answers()
    lacking = Answers(one.class_names, one.labels, one.top, one.loss, None, "an old run")
    with pytest.raises(InputError, match="an old run"):
        ensemble([one, lacking])
    shuffled = Answers(one.class_names, one.labels[::-1], one.top, one.loss, one.logits)
    with pytest.raises(InputError, match="same images"):
        ensemble([one, shuffled])
    with pytest.raises(InputError, match="one network or more"):
        ensemble([])
