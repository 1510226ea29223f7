"""Rows whose seeds scatter far beyond those of the others: one failed seed does that to a row.

Pooled with the rest, such a row would hide what the other rows show; so it is set apart, by its
residuals alone, and the rest share a spread. Spreads are compared with their median, which up to
half of the rows can fail without moving far.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from blocklab.statistics.spread import Array, Layout

_OUTLYING_BELOW = 1e-4  # how often some row of one spread is called outlying
_SIMULATED = 99_999  # studies of normal seeds
_MOST_NUMBERS = 10_000_000  # in them; of very many rows fewer studies do
_SEED = 1941  # of Cochran, "The distribution of the largest of a set of estimated variances"


def outlying_rows(layout: Layout, values: Array) -> NDArray[np.bool_]:
    """Return which rows scatter too far to belong to the others, from shape (..., rows, seeds).

    A row is outlying where its variance is so many times the rows' median that rows of one spread
    reach it in one study of 10,000.
    """
    squares = (layout.residuals(values) ** 2).sum(-1)
    return _ratios(squares, layout.row_df) > _critical_ratio(layout.counts)


def chance_of_failed_row(layout: Layout, apart: int) -> float:
    """Return about how often all seeds of some row fail, where `apart` rows have one that did.

    Such a row scatters no more than others, and no test can tell it from one that is worse.
    """
    share = apart / sum(layout.counts)
    return math.fsum(share**n for n in layout.counts)


def _ratios(squares: Array, df: Array) -> Array:
    variances = squares / df
    middle = np.median(variances, axis=-1, keepdims=True)
    # Where half of the rows show no spread, it is not known what a spread far beyond theirs is.
    return np.divide(variances, middle, out=np.zeros_like(variances), where=middle > 0)


@lru_cache(maxsize=512)
def _critical_ratio(counts: tuple[int, ...]) -> float:
    rng = np.random.default_rng(_SEED)
    df = np.asarray(counts, dtype=float) - 1
    studies = max(_SIMULATED // 10, min(_SIMULATED, _MOST_NUMBERS // len(counts)))
    largest = np.sort(_ratios(rng.chisquare(df, (studies, len(counts))), df).max(-1))
    return float(largest[math.ceil((1 - _OUTLYING_BELOW) * studies) - 1])
