"""One spread for all rows of a study, and whether it may be used.

Seeds of three rows say little about each row's spread, and those of forty rows together a lot. Yet
where rows' spreads differ, a test with one spread for all errs in up to a third of studies. So the
spreads are looked at first (`unevenness_p`), and where they are more uneven than rows of one spread
would show them, what chance does is taken from the study's own residuals (`null_maxima`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_SIMULATED = 9_999  # studies of normal seeds that the unevenness is compared with
RESAMPLED = 3_999  # studies made of a study's own residuals
_AT_ONCE = 4_000_000  # numbers in memory while studies are made
_SEED = 1955


@dataclass(frozen=True)
class Layout:
    """How many seeds each row has, the baseline's first; whether seeds are blocks.

    With `blocks` all rows have the same seeds, and what a seed adds to every row is taken out.
    """

    counts: tuple[int, ...]
    blocks: bool = False

    @property
    def df(self) -> int:
        """Degrees of freedom of the spread."""
        if self.blocks:
            return (len(self.counts) - 1) * (self.counts[0] - 1)
        return sum(self.counts) - len(self.counts)

    @property
    def row_df(self) -> Array:
        """Degrees of freedom of each row's own spread: they add up to `df`."""
        counts = np.asarray(self.counts, dtype=float)
        if self.blocks:
            return (counts - 1) * (counts.size - 1) / counts.size
        return counts - 1

    def residuals(self, values: Array) -> Array:
        """Return what rows' and seeds' means leave of `values`, shape (..., rows, seeds).

        Seeds beyond a row's count are masked: they come back as 0.
        """
        mask = self.mask
        means = (values * mask).sum(-1) / mask.sum(-1)
        left = (values - means[..., None]) * mask
        return left - left.mean(-2, keepdims=True) if self.blocks else left

    @property
    def mask(self) -> Array:
        """1 for a seed that a row has, else 0; shape (rows, seeds)."""
        width = max(self.counts)
        return (np.arange(width) < np.asarray(self.counts)[:, None]).astype(float)


def pooled_variance(layout: Layout, values: Array) -> Array:
    """Return the variance of one run that all rows share, from shape (..., rows, seeds)."""
    return (layout.residuals(values) ** 2).sum((-2, -1)) / layout.df


def unevenness_p(layout: Layout, values: Array) -> float:
    """Return how often rows of one spread show spreads as uneven as those of `values`.

    The statistic is the squared coefficient of variation of the rows' variances, weighted by their
    degrees of freedom; what it does among normal seeds is simulated, from a fixed seed. It looks at
    residuals alone, so that it may be computed before any difference is.
    """
    return float(unevenness_of_each(layout, values[None])[0])


def unevenness_of_each(layout: Layout, values: Array) -> Array:
    """Return `unevenness_p` of each of many studies of one layout, shape (studies, rows, seeds)."""
    null = _null_unevenness(layout)
    # Rounding must not tell apart two studies that are equally uneven, as all of one row are.
    seen = _unevenness(layout, values) * (1 - 1e-9)
    return (1 + null.size - np.searchsorted(null, seen)) / (1 + null.size)


def _unevenness(layout: Layout, values: Array) -> Array:
    return _of_squares(layout, (layout.residuals(values) ** 2).sum(-1))


def _of_squares(layout: Layout, squares: Array) -> Array:
    ratios = squares / layout.row_df / (squares.sum(-1, keepdims=True) / layout.df)
    return (layout.row_df * (ratios - 1) ** 2).sum(-1) / layout.df


@lru_cache(maxsize=512)
def _null_unevenness(layout: Layout) -> Array:
    rng = np.random.default_rng(_SEED)
    if not layout.blocks:
        squares = rng.chisquare(layout.row_df, (_SIMULATED, len(layout.counts)))
        return np.sort(_of_squares(layout, squares))
    shape = (len(layout.counts), max(layout.counts))
    made = _in_parts(_SIMULATED, shape, lambda n: _unevenness(layout, rng.normal(size=(n, *shape))))
    return np.sort(made)


def null_maxima(layout: Layout, values: Array) -> Array:
    """Return the largest |t| of each of many studies made of these residuals, from small to large.

    Each t is a row's against the baseline, the first. In a made study each row is some row of this
    one, its seeds drawn with replacement from that row's residuals; so rows differ in spread and in
    shape as those of this study do, and none differs from the baseline.
    """
    return _of_made_studies(layout, values, _largest_t)


def null_ranges(layout: Layout, values: Array) -> Array:
    """Return what no |t| of any two rows passes in each of such studies, from small to large.

    Where all rows have as many seeds, it is the largest of these t.
    """
    return _of_made_studies(layout, values, _range_t)


def _of_made_studies(
    layout: Layout, values: Array, statistic: Callable[[Layout, Array], Array]
) -> Array:
    rng = np.random.default_rng(_SEED)
    counts = np.asarray(layout.counts)
    # Residuals are smaller than errors are, by the degrees of freedom that the means have taken.
    residuals = layout.residuals(values) * np.sqrt(counts / layout.row_df)[:, None]
    shape = (counts.size, int(counts.max()))

    def made(studies: int) -> Array:
        rows = rng.integers(0, counts.size, (studies, counts.size, 1))
        seeds = (rng.random((studies, *shape)) * counts[rows]).astype(np.int64)
        return statistic(layout, residuals[rows, seeds])

    return np.sort(_in_parts(RESAMPLED, shape, made))


def _largest_t(layout: Layout, values: Array) -> Array:
    mask = layout.mask
    counts = mask.sum(-1)
    means = (values * mask).sum(-1) / counts
    scale = np.sqrt(1 / counts[1:] + 1 / counts[0])
    gaps = np.abs(means[..., 1:] - means[..., :1]) / scale
    return _over_spread(gaps.max(-1), layout, values)


def _range_t(layout: Layout, values: Array) -> Array:
    mask = layout.mask
    means = (values * mask).sum(-1) / mask.sum(-1)
    return _over_spread(np.ptp(means, axis=-1) / math.sqrt(2 / max(layout.counts)), layout, values)


def _over_spread(gaps: Array, layout: Layout, values: Array) -> Array:
    spread = np.sqrt(pooled_variance(layout, values))
    # A made study may be of one value: no spread, no difference.
    return np.divide(gaps, spread, out=np.zeros_like(spread), where=spread > 0)


def _in_parts(count: int, shape: tuple[int, int], made: Callable[[int], Array]) -> Array:
    part = max(1, _AT_ONCE // math.prod(shape))
    return np.concatenate([made(min(part, count - done)) for done in range(0, count, part)])


def as_array(rows: Sequence[Sequence[float]]) -> Array:
    """Return rows of different length as one array, with 0 where a row has ended."""
    values = np.zeros((len(rows), max(map(len, rows))))
    for row, given in zip(values, rows, strict=True):
        row[: len(given)] = given
    return values
