"""Studies with `seeds: until_decided`, simulated: false verdicts, power, and runs.

    python benchmarks/sequential.py --studies 2000 [--rows 3,10] [--settings t3]

False verdicts: how often a study without any difference calls some row better or worse at some
look; at most 5.5 % is wanted. Runs: those of the sequential design over those of the smallest
fixed design of the same power at a gain of half a point (rows of SD 0.25), every row and the
baseline alike; at most 0.6 is wanted.
"""

import argparse
import math
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from numpy.typing import NDArray

from blocklab.statistics.family import BETTER, WORSE, compare_rows
from blocklab.statistics.planning import power
from blocklab.statistics.sequential import Looks
from blocklab.statistics.sequential_planning import follow_looks

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, int], Array]  # rows, seeds

BASELINE = "0"
SD = 0.25
DEFAULT = Looks((3, 5, 8, 12))
GAINS = {"0": (0.0,), "0.5": (0.5,), "2": (2.0,), "0, 0.5 and 2": (0.0, 0.5, 2.0)}


def _normal(rng: np.random.Generator, rows: int, seeds: int) -> Array:
    return rng.normal(size=(rows, seeds))


def _lognormal(sigma: float) -> Draw:
    """Accuracies with a long tail of bad seeds."""
    mean = math.exp(sigma**2 / 2)
    return lambda rng, rows, seeds: mean - np.exp(rng.normal(scale=sigma, size=(rows, seeds)))


def _failing(rng: np.random.Generator, rows: int, seeds: int) -> Array:
    """A tenth of the seeds lies ten SDs lower."""
    return rng.normal(size=(rows, seeds)) - 10 * (rng.random((rows, seeds)) < 0.1)


def _uneven(log_sd: float) -> Draw:
    def draw(rng: np.random.Generator, rows: int, seeds: int) -> Array:
        return rng.normal(size=(rows, seeds)) * np.exp(rng.normal(scale=log_sd, size=(rows, 1)))

    return draw


SETTINGS: dict[str, Draw] = {
    "normal": _normal,
    "t3": lambda rng, rows, seeds: rng.standard_t(3, (rows, seeds)),
    "lognormal0.5": _lognormal(0.5),
    "lognormal1": _lognormal(1.0),
    "failing": _failing,
    "uneven0.4": _uneven(0.4),
    "uneven0.8": _uneven(0.8),
}


def false_verdict(setting: str, rows: int, seed: int, looks: Looks = DEFAULT) -> bool:
    """Whether a study without any difference says that there is one."""
    values = SETTINGS[setting](np.random.default_rng(seed), rows + 1, looks.of_baseline(-1))
    taken, _ = follow_looks(values, looks)
    return any(one.word in (BETTER, WORSE) for one in taken[-1].family.comparisons.values())


def gained(
    gains: tuple[float, ...], rows: int, seed: int, looks: Looks
) -> tuple[float, int, float]:
    """Return the share of rows called better, runs, and the share called so at the first look."""
    rng = np.random.default_rng(seed)
    values = SD * rng.normal(size=(rows + 1, looks.of_baseline(-1)))
    values[1:] += np.resize(gains, rows)[:, None]
    taken, runs = follow_looks(values, looks)
    shares = [
        sum(one.word == BETTER for one in taken[at].family.comparisons.values()) / rows
        for at in (-1, 0)
    ]
    return shares[0], runs, shares[1]


def fixed_power(gain: float, rows: int, seeds: int, seed: int) -> float:
    """Return the share of rows that a study of fixed size calls better."""
    values = SD * np.random.default_rng(seed).normal(size=(rows + 1, seeds))
    values[1:] += gain
    by_seed = {str(i): dict(enumerate(row.tolist())) for i, row in enumerate(values)}
    found = compare_rows(by_seed, BASELINE).comparisons.values()
    return sum(one.word == BETTER for one in found) / rows


def _errors(task: tuple[str, int, int, int]) -> int:
    setting, rows, first, last = task
    return sum(false_verdict(setting, rows, seed) for seed in range(first, last))


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--rows", default="3,10,40")
    parser.add_argument("--settings", default=",".join(SETTINGS))
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    studies = given.studies
    print(f"runs over those of a fixed design; twelve rows of SD {SD}, {studies // 4} studies")
    for name, looks in {
        "default": DEFAULT,
        "baseline as often": Looks(DEFAULT.seeds, 0.5, 1),
    }.items():
        shown = np.mean([gained((0.5,), 12, seed, looks)[0] for seed in range(studies // 4)])
        few = next(n for n in range(2, 100) if power(SD, 0.5, n, 12) >= shown)  # by Dunnett alone
        fixed = next(
            n
            for n in range(few, 100)
            if np.mean([fixed_power(0.5, 12, n, seed) for seed in range(studies // 4)]) >= shown
        )
        print(f"{name}: shows 0.5 points in {100 * shown:.1f} %, as {fixed} seeds of all do")
        for words, gains in GAINS.items():
            runs = np.mean([gained(gains, 12, seed, looks)[1] for seed in range(studies // 4)])
            print(f"  gains {words}: {runs:.1f} runs, {runs / (13 * fixed):.2f}", flush=True)
        early = np.mean([gained((1.0,), 40, seed, looks)[2] for seed in range(studies // 20)])
        print(f"  a point, forty rows: {100 * early:.1f} % at the first look")
    print(f"false verdicts, {studies} studies")
    with ProcessPoolExecutor(given.workers) as pool:
        for setting in given.settings.split(","):
            for rows in map(int, given.rows.split(",")):
                began, step = time.perf_counter(), -(-studies // given.workers)
                tasks = [
                    (setting, rows, a, min(a + step, studies)) for a in range(0, studies, step)
                ]
                share = sum(pool.map(_errors, tasks)) / studies
                seconds = time.perf_counter() - began
                print(
                    f"  {setting}, {rows} rows: {100 * share:.2f} % ({seconds:.0f} s)", flush=True
                )


if __name__ == "__main__":
    main()
