"""What the row with the highest mean is expected to gain, beside what it truly gains.

python benchmarks/best_row.py [--studies 100]

Made-up studies: rows' true gains on the baseline, an SD of one run that differs from row to row by
a log-normal factor, and seeds. A line a setting, of studies that have spread even or uneven, as it
comes: means over studies of the highest row's raw gain, of what is expected of it, and of its true
gain; its probability of being the best, and the share of studies in which it is.
"""

import argparse
from collections.abc import Callable

import numpy as np

from blocklab.statistics.contrasts import pool_rows
from blocklab.statistics.shrinkage import expected_rows

Gains = Callable[[np.random.Generator], np.ndarray]


def normal(rows: int, sd: float) -> Gains:
    return lambda rng: rng.normal(0, sd, rows)


def one(rows: int, gain: float) -> Gains:
    return lambda rng: np.append(gain, np.zeros(rows - 1))


# What rows truly gain, SD of a run, SD of its logarithm over rows, seeds.
SETTINGS: dict[str, tuple[Gains, float, float, int]] = {
    "40 rows gain N(0, 0.2)": (normal(40, 0.2), 0.25, 0.0, 3),
    "the same, spreads differ": (normal(40, 0.2), 0.25, 0.6, 3),
    "10 rows gain N(0, 0.2), spreads differ": (normal(10, 0.2), 0.25, 0.6, 5),
    "1 of 10 gains 0.6, spreads differ": (one(10, 0.6), 0.1, 0.6, 3),
    "1 of 20 gains 0.6, spreads differ": (one(20, 0.6), 0.1, 0.6, 5),
    "10 rows gain nothing, spreads differ": (normal(10, 0.0), 0.25, 0.6, 5),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--studies", type=int, default=100)
    studies = parser.parse_args().studies
    print(f"{'setting':<40} seeds    raw  expected   true  probability  is the best")
    for name, (gains, sd, log_sd, seeds) in SETTINGS.items():
        rng, found = np.random.default_rng(1975), []
        for _ in range(studies):
            truth = np.append(0.0, gains(rng))
            spread = sd * np.exp(log_sd * rng.normal(size=(len(truth), 1)))
            table = rng.normal(truth[:, None], spread, (len(truth), seeds))
            values = {f"{i}": dict(enumerate(row.tolist())) for i, row in enumerate(table)}
            expected = expected_rows(pool_rows(values), "0")
            best = int(table[1:].mean(1).argmax()) + 1
            of = expected[f"{best}"]
            raw = table[best].mean() - table[0].mean()
            hit = best == int(truth.argmax()) and truth[best] > 0
            found.append((raw, of.gain, truth[best], of.probability_best, hit))
        means = np.array(found, dtype=float).mean(0)
        print(
            f"{name:<40} {seeds:5} {means[0]:6.2f} {means[1]:9.2f} {means[2]:6.2f} "
            f"{means[3]:12.2f} {means[4]:12.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
