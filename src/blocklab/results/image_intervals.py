"""Per-image results: the uncertainty that a finite test set brings, and networks that are one.

A study has two sources of chance. Training again from other seeds is the one that verdicts are
about. The other is which images happen to be in the test set: it is there with any number of seeds,
and is seen from how a comparison varies between images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from blocklab.statistics.summary import ALPHA, PERCENT, POINTS, is_rounding
from blocklab.training.predictions import PerImage


@dataclass(frozen=True)
class ImageInterval:
    """A mean over images and seeds, in percent or points, with what it would be on other images.

    `low` to `high` is the 95 % interval over test images like these, of these trained networks.
    `both_low` to `both_high` is the one over other images and other seeds together; None of one
    seed. All are None where nothing varies, and cut at what an accuracy can be. `images` says how
    many.
    """

    mean: float
    low: float | None
    high: float | None
    images: int
    both_low: float | None = None
    both_high: float | None = None


def over_images(
    ours: Sequence[PerImage],
    theirs: Sequence[PerImage] | None = None,
    *,
    at_once: int = 1,
    of_seeds: tuple[float, float] | None = None,
) -> ImageInterval | None:
    """Return the mean accuracy, or with `theirs` the paired difference, with its intervals.

    `theirs` are the baseline's runs from the same seeds, in the same order. None where there are
    no runs, or they were not tested on the same images. The intervals hold `at_once` for so many
    rows (Bonferroni). `of_seeds` is the middle and half of the interval over seeds, in points,
    where the study has judged it; else it is Student's of these runs.

    With d[s, i] the result of seed s on image i (times 100), S seeds and N images: the interval
    over images is that of the mean of the N means over seeds, by Student's t, since N independent
    images make it normal. For both sources, with the mean squares MS of a two-way table without
    repetition: MS_seeds / (S N) is the variance from training again, the rest included, and
    (MS_images - MS_rest) / (S N) what other images add. Each has its own quantile of t, and
    their squared half-widths add up; a pooled number of degrees of freedom (Satterthwaite's)
    covers 91 % instead of 95 for two seeds, whose spread is too often small by chance. The
    interval over both is at least the one over images, and the one over seeds.
    """
    runs = [*ours, *(theirs or ())]
    if not ours or len({(run.order, len(run.correct)) for run in runs}) != 1:
        return None
    table = np.stack([run.correct for run in ours]).astype(np.float32)  # (S, N)
    if theirs is not None:
        table -= np.stack([run.correct for run in theirs])
    seeds, images = table.shape
    if images < 2:
        return None
    by_image = table.mean(0, dtype=np.float64)  # (N,)
    mean = float(by_image.mean())
    square_images = seeds * float(by_image.var(ddof=1))  # the mean square between images
    tail = ALPHA / 2 / at_once
    half = _half(math.sqrt(square_images / (seeds * images)), images - 1, tail)
    bounds = PERCENT if theirs is None else POINTS
    low, high = _around(mean, half, bounds)
    if seeds == 1:
        return ImageInterval(100 * mean, low, high, images)
    square_seeds = images * float(table.mean(1, dtype=np.float64).var(ddof=1))
    total = float(np.square(table, dtype=np.float64).sum()) - seeds * images * mean**2
    rest = total - (seeds - 1) * square_seeds - (images - 1) * square_images
    square_rest = max(0.0, rest) / ((seeds - 1) * (images - 1))
    middle, half_seeds = mean, _half(math.sqrt(square_seeds / (seeds * images)), seeds - 1, tail)
    if of_seeds is not None:
        middle, half_seeds = (part / 100 for part in of_seeds)
    added = max(0.0, square_images - square_rest)
    half_images = _half(math.sqrt(added / (seeds * images)), images - 1, tail)
    # Never narrower than either part: the estimate of what images add may come out at zero.
    both = _around(middle, max(half, math.hypot(half_seeds, half_images)), bounds)
    return ImageInterval(100 * mean, low, high, images, *both)


def _around(
    mean: float, half: float, bounds: tuple[float, float]
) -> tuple[float, float] | tuple[None, None]:
    """Return the ends of an interval in percent, cut at `bounds`; none where nothing varies."""
    if is_rounding(half, 1.0):  # of shares
        return None, None
    return max(100 * (mean - half), bounds[0]), min(100 * (mean + half), bounds[1])


def _half(standard_error: float, df: float, tail: float) -> float:
    return float(stats.t.isf(tail, df)) * standard_error
