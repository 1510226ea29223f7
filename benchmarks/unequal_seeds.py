"""How often a verdict is wrong where rows have unlike numbers of seeds and spreads go with them.

    python benchmarks/unequal_seeds.py [--studies 2000]

Rows that do not differ from their baseline: eight of which three have lost seeds, and those that a
study until decided has at its first look, or adds later. Prints how many studies call some row
better or worse, by how they were judged; then how many decide a claim about two rows, of which one
scatters more. See verdicts.py for rows of as many seeds each.
"""

import argparse
import time
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy import stats

from blocklab.statistics.contrasts import pool_rows
from blocklab.statistics.family import BETTER, WORSE, compare_rows

LOST = (10, 5, 5, 5, 5, 5, 3, 3, 3)
FIRST_LOOK = (6, *[3] * 8)
SETTINGS = {
    "three rows lost seeds, all scatter alike": (LOST, (1.0,) * 9),
    "three rows lost seeds and scatter 3 times as much": (LOST, (1.0,) * 6 + (3.0,) * 3),
    "three rows lost seeds and scatter a third as much": (LOST, (1.0,) * 6 + (1 / 3,) * 3),
    "eight rows of 3, baseline of 6, all scatter alike": (FIRST_LOOK, (1.0,) * 9),
    "eight rows of 3, baseline of 6, one scatters twice as much": (FIRST_LOOK, (1.0,) * 8 + (2.0,)),
    "eight rows of 3, baseline of 6, one scatters 3 times as much": (
        FIRST_LOOK,
        (1.0,) * 8 + (3.0,),
    ),
    "eight rows of 3, baseline of 3, one scatters 3 times as much": ((3,) * 9, (1.0,) * 8 + (3.0,)),
    "three rows of 3, baseline of 16, all scatter alike": ((16, 3, 3, 3), (1.0,) * 4),
    "three rows of 3, baseline of 16, all scatter twice as much": (
        (16, 3, 3, 3),
        (1.0, 2.0, 2.0, 2.0),
    ),
    "one row of 3, baseline of 16, scatters alike": ((16, 3), (1.0, 1.0)),
    "one row of 3, baseline of 16, scatters twice as much": ((16, 3), (1.0, 2.0)),
}


CLAIMS = {
    "twelve rows of 3, all scatter alike": ((3,) * 12, (1.0,) * 12),
    "twelve rows of 3, one of its two scatters twice as much": ((3,) * 12, (1.0, 2.0, *[1.0] * 10)),
    "twelve rows of 3, one of its two scatters 3 times as much": (
        (3,) * 12,
        (1.0, 3.0, *[1.0] * 10),
    ),
    "twelve rows of 5, one of its two scatters 3 times as much": (
        (5,) * 12,
        (1.0, 3.0, *[1.0] * 10),
    ),
}


def made_up(
    seeds: Sequence[int], spreads: Sequence[float], seed: int
) -> dict[str, dict[int, float]]:
    """Return rows, the baseline `0` first, that do not differ but in how they scatter."""
    rng = np.random.default_rng(seed)
    return {
        str(row): dict(enumerate((sd * rng.normal(size=count)).tolist()))
        for row, (count, sd) in enumerate(zip(seeds, spreads, strict=True))
    }


def main() -> None:
    """Print a line for each of the settings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=2000)
    studies = parser.parse_args().studies
    for name, (seeds, spreads) in SETTINGS.items():
        began, judged, wrong = time.perf_counter(), Counter[str](), Counter[str]()
        for seed in range(studies):
            family = compare_rows(made_up(seeds, spreads, seed), "0")
            judged[family.method] += 1
            words = {one.word for one in family.comparisons.values()}
            wrong[family.method] += bool(words & {BETTER, WORSE})
        share = sum(wrong.values()) / studies
        error = 100 * (share * (1 - share) / studies) ** 0.5
        how = ", ".join(f"{wrong[method]} of {count} {method}" for method, count in judged.items())
        seconds = time.perf_counter() - began
        print(f"{name}: {100 * share:.1f} % (± {error:.1f}; {how}; {seconds:.0f} s)", flush=True)
    claims(studies)


def claims(studies: int) -> None:
    """Print a line for each of CLAIMS: `1 > 2` by p below 5 %, where no rows differ."""
    for name, (seeds, spreads) in CLAIMS.items():
        decided = 0
        for seed in range(studies):
            found = pool_rows(made_up(seeds, spreads, seed)).contrast({"1": 1.0, "2": -1.0})
            if found is not None and found.error:
                decided += 2 * stats.t.sf(abs(found.mean) / found.error, found.df) < 0.05
        print(f"a claim, {name}: {100 * decided / studies:.1f} %", flush=True)


if __name__ == "__main__":
    main()
