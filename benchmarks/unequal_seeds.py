"""How often a verdict is wrong where rows have unlike numbers of seeds and spreads go with them.

    python benchmarks/unequal_seeds.py [--studies 2000]

Eight rows that do not differ from their baseline, which has ten seeds; five of the rows have five
seeds and three have three. Prints how many studies call some row better or worse, by how they were
judged. See verdicts.py for rows of as many seeds each.
"""

import argparse
import time
from collections import Counter

import numpy as np

from blocklab.statistics.family import BETTER, WORSE, compare_rows

SEEDS = (10, 5, 5, 5, 5, 5, 3, 3, 3)
SPREADS = {
    "all alike": (1.0,) * 9,
    "those of three seeds scatter 3 times as much": (1.0,) * 6 + (3.0,) * 3,
    "those of three seeds scatter a third as much": (1.0,) * 6 + (1 / 3,) * 3,
}


def main() -> None:
    """Print a line for each of the spreads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=2000)
    studies = parser.parse_args().studies
    for name, spreads in SPREADS.items():
        began, judged, wrong = time.perf_counter(), Counter[str](), Counter[str]()
        for seed in range(studies):
            rng = np.random.default_rng(seed)
            values = {
                str(row): dict(enumerate((sd * rng.normal(size=count)).tolist()))
                for row, (count, sd) in enumerate(zip(SEEDS, spreads, strict=True))
            }
            family = compare_rows(values, "0")
            judged[family.method] += 1
            words = {one.word for one in family.comparisons.values()}
            wrong[family.method] += bool(words & {BETTER, WORSE})
        share = sum(wrong.values()) / studies
        error = 100 * (share * (1 - share) / studies) ** 0.5
        how = ", ".join(f"{wrong[method]} of {count} {method}" for method, count in judged.items())
        seconds = time.perf_counter() - began
        print(f"{name}: {100 * share:.1f} % (± {error:.1f}; {how}; {seconds:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
