"""How often a study over several data sets errs: `python benchmarks/over_datasets.py [STUDIES]`.

Each setting is a study of rows that gain nothing, on three data sets whose spreads are 0.2, 0.5 and
2 points; counted is how many say "better" or "worse" of any row. A claim "on all" is made where it
is true of two of the three data sets. Of studies with looks it is how many say so at any look, and
at the last, at 5 % and at the smallest level of the looks, which blocklab holds them to.
"""

import sys
from collections.abc import Callable

import numpy as np

from blocklab.statistics.datasets import Cell, at_least, mean_gap, weighted_gap
from blocklab.statistics.sequential import Looks, Seen, levels, take_looks
from blocklab.statistics.summary import ALPHA

SPREADS = (0.2, 0.5, 2.0)
DRAWS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "t of 3": lambda rng, n: rng.standard_t(3, n) / 3**0.5,
    "lognormal": lambda rng, n: (rng.lognormal(0, 0.5, n) - np.exp(0.125)) / 0.6039,
}


def cell(values: np.ndarray) -> Cell:
    return Cell(float(values.mean()), float(values.std(ddof=1)), len(values))


def study(rng: np.random.Generator, draw: str, rows: int, seeds: int) -> tuple[bool, bool]:
    """Return whether a verdict, and whether the claim "on all" of a row, is false."""
    cells = [
        [cell(sd * DRAWS[draw](rng, seeds)) for _ in range(rows + 1)] for sd in SPREADS
    ]  # the baseline first
    false_verdict = False
    gaps = []
    for row in range(1, rows + 1):
        gaps = [
            weighted_gap({"row": 1.0, "base": -1.0}, {"row": of[row], "base": of[0]})
            for of in cells
        ]
        p = mean_gap([gap for gap in gaps if gap]).p_against(0.0)
        false_verdict |= p is not None and p * rows < ALPHA
    # The last row is far better on the first two data sets, and no better on the last.
    last = gaps[-1].p_against(0.0) if gaps[-1] else None
    on_all = at_least([0.0, 0.0, 1.0 if last is None else last], 3)
    return false_verdict, on_all < ALPHA


def looked_at(rng: np.random.Generator, draw: str, rows: int, looks: Looks) -> np.ndarray:
    """Return whether a verdict is false: (5 %, the smallest level) x (at any look, at the last)."""
    names = ["plain", *(f"row {row}" for row in range(rows))]
    most = looks.of_baseline(-1)
    drawn = [
        {name: dict(enumerate(sd * DRAWS[draw](rng, most))) for name in names} for sd in SPREADS
    ]
    alphas = np.array([ALPHA, min(levels(looks, rows))])
    at = [dict.fromkeys(names, looks.seeds[0]) for _ in SPREADS]  # how far each row is
    seen: list[list[Seen]] = [[] for _ in SPREADS]
    false = np.zeros((2, 2), dtype=bool)
    for look in range(len(looks.seeds)):
        cells = []
        for place, values in enumerate(drawn):
            sizes = {**at[place], "plain": looks.of_baseline(look)}
            seen[place].append(Seen({name: range(size) for name, size in sizes.items()}))
            taken = list(take_looks(values, "plain", looks, seen[place]))[-1]
            cells.append(
                {n: cell(np.array([values[n][i] for i in range(sizes[n])])) for n in names}
            )
            for name in taken.going if look + 1 < len(looks.seeds) else ():
                at[place][name] = looks.seeds[look + 1]
        smallest = 1.0
        for name in names[1:]:
            gaps = [weighted_gap({name: 1.0, "plain": -1.0}, of) for of in cells]
            p = mean_gap([gap for gap in gaps if gap]).p_against(0.0)
            smallest = min(smallest, 1.0 if p is None else p * rows)
        false[:, 1] = smallest < alphas
        false[:, 0] |= false[:, 1]
    return false


def main() -> None:
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    print('| seeds | rows | spread | false verdicts | false "on all" |\n|---|---|---|---:|---:|')
    for draw in DRAWS:
        for seeds, rows in ((2, 3), (3, 3), (3, 10), (5, 10)):
            rng = np.random.default_rng(1)
            errs = np.mean([study(rng, draw, rows, seeds) for _ in range(studies)], axis=0)
            print(f"| {seeds} | {rows} | {draw} | {100 * errs[0]:.1f} % | {100 * errs[1]:.1f} % |")
    few = max(1, studies // 4)
    print(f"\nWith looks at 3, 5 and 8 seeds, {few} studies each:\n")
    print("| rows | spread | 5 %, any look | the last | smallest level, any look | the last |")
    print("|---|---|---:|---:|---:|---:|")
    for draw in DRAWS:
        for rows in (3, 10):
            rng, looks = np.random.default_rng(1), Looks((3, 5, 8))
            errs = np.mean([looked_at(rng, draw, rows, looks) for _ in range(few)], axis=0)
            shown = " | ".join(f"{100 * err:.1f} %" for err in errs.ravel())
            print(f"| {rows} | {draw} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
