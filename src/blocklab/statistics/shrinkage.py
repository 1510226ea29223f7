r"""The best of many rows: what it will gain when it is trained again, and whether it is the best.

The highest of many means is more often lucky than unlucky. With rows' means :math:`\bar x_i \sim
N(\theta_i, v_i)` and their true values :math:`\theta_i \sim N(\mu, \tau^2)`, what is expected of a
row is its mean drawn towards that of all, by :math:`B_i = v_i / (v_i + \tau^2)` (Efron and Morris,
JASA 70, 1975). The baseline was not chosen for its mean and stays where it is: a shrunken gain is
measured from it. How much rows truly differ is itself uncertain: B of a middling row is taken as
likely from 0 to 1 before the means are seen (the uniform shrinkage prior of Daniels, Canadian
Journal of Statistics 27, 1999), weighed by the restricted likelihood of the means, and averaged
over, so that rows of which nothing is known are not drawn together whole.

Where the guard of `blocklab.statistics.spread` finds spreads uneven, each row's is its own, drawn
from around those of all rows, and as uncertain as few seeds leave it; then how much rows differ,
and what they truly are. Spreads are drawn from the seeds alone ("cut" from what follows, as
Plummer, Statistics and Computing 25, 2015, has it).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.optimize import brentq

from blocklab.statistics.contrasts import Pool
from blocklab.statistics.spread import Array

_STEPS = 200  # of B, from 0 to 1
_DRAWS, _LARGEST = 8_000, 4_000_000  # draws, and numbers in memory
_COARSE, _TOGETHER, _TURNS = 60, 60, 60  # of own spreads: steps of B, draws at once, and turns
_MOST_DF = 1e4  # as good as one spread
_SEED = 1975
_LEAST_SHARE = 1e-3  # of the pooled variance: seeds of one value may be a matter of rounding


@dataclass(frozen=True)
class Expected:
    """What is expected of a row when it is trained again.

    Attributes:
        mean: drawn towards the mean of all rows; the baseline's own for the baseline.
        gain: `mean` minus the baseline's; None without a baseline, and for it.
        probability_best: of its being the best of all rows, the baseline among them.
    """

    mean: float
    gain: float | None
    probability_best: float


def expected_rows(
    pool: Pool, baseline: str | None, *, higher_is_better: bool = True
) -> dict[str, Expected]:
    """Return what is expected of each row of a pool; of none where no spread was seen.

    Probabilities are shares of draws from a fixed seed.
    """
    rows = [row for row, seeds in pool.values.items() if seeds]
    if pool.paired:  # a row of one seed is in no block of the others
        most = max(map(len, pool.values.values()), default=0)
        rows = [row for row in rows if len(pool.values[row]) == most]
    if not pool.sd or not rows:
        return {}
    means = np.array([math.fsum(pool.values[row].values()) / len(pool.values[row]) for row in rows])
    others = np.array([row != baseline for row in rows])
    rng = np.random.default_rng(_SEED)
    sampled = _of_one_spread if pool.even else _of_own_spreads
    expected, draws = sampled(pool, rows, means, others, rng)
    best = (draws if higher_is_better else -draws).argmax(1)
    shares = np.bincount(best, minlength=len(rows)) / len(draws)
    start = None if others.all() else float(expected[~others][0])
    return {
        row: Expected(mean, None if start is None or row == baseline else mean - start, share)
        for row, mean, share in zip(rows, expected.tolist(), shares.tolist(), strict=True)
    }


def _of_one_spread(
    pool: Pool, rows: list[str], means: Array, others: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return what is expected of each row, and draws of what it truly is: (draws, rows)."""
    assert pool.sd is not None
    counts = np.array([len(pool.values[row]) for row in rows])
    variances = pool.sd**2 / counts
    count = max(100, min(_DRAWS, _LARGEST // len(rows)))
    # The spread itself is uncertain: its draws widen those of all rows together.
    wider = np.sqrt(pool.df / rng.chisquare(pool.df, (count, 1)))
    draws = means + np.sqrt(variances) * rng.normal(size=(count, len(rows))) * wider
    expected = means.copy()
    if not others.any():
        return expected, draws
    means, variances = means[others], variances[others]
    between, prior = _between(variances, _STEPS)
    weights, centre, precision = _likely(means, variances[None], between[None], prior)
    pull = variances / (variances + between[:, None])  # B of each step and row
    expected[others] = weights[0] @ (pull * centre[0][:, None] + (1 - pull) * means)
    step = rng.choice(_STEPS, count, p=weights[0])
    # The mean of all rows is uncertain too, and moves a row by its B.
    middle = centre[0][step] + rng.normal(size=count) / np.sqrt(precision[0][step]) * wider[:, 0]
    noise = np.sqrt(variances * (1 - pull[step])) * rng.normal(size=(count, means.size))
    draws[:, others] = pull[step] * middle[:, None] + (1 - pull[step]) * means + noise * wider
    return expected, draws


def _of_own_spreads(
    pool: Pool, rows: list[str], means: Array, others: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return the same as `_of_one_spread`, with a spread for each row.

    A row's spread is drawn from what its seeds and those of all rows say of it, and not from how
    far its mean is off: a row that truly differs would pass for one that scatters.
    """
    counts = np.array([len(pool.values[row]) for row in rows], dtype=float)
    squares, df = _squares(pool, rows)
    several = df > 0
    prior, prior_df = _prior_variance(squares[several] / df[several], df[several])
    together = int(max(4, min(_TOGETHER, _TOGETHER * 50 // len(rows))))
    middling = np.full(int(others.sum()) or 1, prior) / counts.mean()
    between, likely = _between(middling, _COARSE)
    all_draws, all_means = [], []
    for _ in range(_TURNS):
        chi = rng.chisquare(prior_df + df, (together, len(rows)))
        variances = (prior_df * prior + squares) / chi / counts
        expected, noise = np.broadcast_to(means, chi.shape).copy(), np.sqrt(variances)
        if others.any():
            v = variances[:, others]
            weights, centre, precision = _likely(means[others], v, between[None], likely)
            step = (weights.cumsum(1) < rng.random((together, 1))).sum(1).clip(max=_COARSE - 1)
            of_draw = np.arange(together), step
            middle = centre[of_draw] + rng.normal(size=together) / np.sqrt(precision[of_draw])
            pull = v / (v + between[step][:, None])
            expected[:, others] = pull * middle[:, None] + (1 - pull) * means[others]
            noise[:, others] = np.sqrt(v * (1 - pull))
        all_draws.append(expected + noise * rng.normal(size=chi.shape))
        all_means.append(expected.mean(0))
    return np.mean(all_means, axis=0), np.concatenate(all_draws)


def _between(variances: Array, steps: int) -> tuple[Array, Array]:
    """Return tau squared at steps of B of a middling row, and how likely each is beforehand.

    The steps are close where B is near 0: rows may differ by a hundred times what their means
    vary by, and steps that end short of it would have the row furthest off vary so much instead.
    """
    root = (np.arange(steps) + 0.5) / steps
    pull = root**3
    return (1 - pull) / pull / np.mean(1 / variances), root**2 / (root**2).sum()


def _likely(
    means: Array, variances: Array, between: Array, prior: Array
) -> tuple[Array, Array, Array]:
    """Return how likely each tau squared is, and the mean of all rows given it: (sets, steps).

    `variances` are sets of those of the rows' means, (sets, rows), `between` is (1, steps), and
    `prior` how likely each step is before the means are seen. The third are the precisions of the
    mean of all rows.
    """
    total = variances[:, None, :] + between[..., None]
    precision = (1 / total).sum(-1)
    centre = (means / total).sum(-1) / precision
    away = ((means - centre[..., None]) ** 2 / total).sum(-1)
    log_likelihood = np.log(prior) - 0.5 * (np.log(total).sum(-1) + np.log(precision) + away)
    weights = np.exp(log_likelihood - log_likelihood.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True), centre, precision


def _squares(pool: Pool, rows: list[str]) -> tuple[Array, Array]:
    """Return the squares of each row's residuals, added up, and their degrees of freedom."""
    assert pool.sd is not None
    if pool.paired:
        table = np.array([list(pool.values[row].values()) for row in rows])
        left = table - table.mean(1, keepdims=True)
        found = ((left - left.mean(0)) ** 2).sum(1)
        df = np.full(len(rows), (table.shape[1] - 1) * (len(rows) - 1) / len(rows))
    else:
        seeds = [np.array(list(pool.values[row].values())) for row in rows]
        found = np.array([((one - one.mean()) ** 2).sum() for one in seeds])
        df = np.array([one.size - 1.0 for one in seeds])
    return np.maximum(found, df * _LEAST_SHARE * pool.sd**2), df


def _prior_variance(own: Array, df: Array) -> tuple[float, float]:
    """Return the variance around which rows' own lie, and how many degrees of freedom it is worth.

    Moments of log variances, as Smyth has them (Statistical Applications in Genetics and Molecular
    Biology 3, 2004, section 6.2).
    """
    logs = np.log(own) - special.digamma(df / 2) + np.log(df / 2)
    scatter = float(np.var(logs, ddof=1)) if own.size > 1 else 0.0
    beyond = scatter - float(np.mean(special.polygamma(1, df / 2)))
    most = _MOST_DF / 2
    if beyond <= float(special.polygamma(1, most)):
        half = most
    else:
        root: Any = brentq(lambda d: float(special.polygamma(1, d)) - beyond, 1e-3, most)
        half = float(root)
    centre = float(logs.mean()) + float(special.digamma(half)) - math.log(half)
    return math.exp(centre), 2 * half
