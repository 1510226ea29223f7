"""Rows that ran and were taken out of a study's file: they count in its tests as they did before.

Who takes rows out has seen their runs. Left out of the spread, or of what says whether spreads are
even, they would choose the test of the rows that stay.
"""

from collections.abc import Mapping

from blocklab.statistics.judging import FEWEST_SEEDS

Figures = Mapping[str, Mapping[int, float]]  # row -> seed -> figure


def counted_figures(figures: Figures, dropped: Figures, paired: bool) -> Figures:
    """Return the figures of dropped rows that can stand beside those of a study's rows.

    Those with fewer seeds than any row, or where seeds are blocks without some that all rows have,
    can not: they count in the number of tests alone, as do those whose runs are gone.
    """
    tested = [by_seed for by_seed in figures.values() if len(by_seed) >= FEWEST_SEEDS]
    if not tested:
        return {}
    shared = set.intersection(*(set(by_seed) for by_seed in tested)) if paired else set[int]()
    fewest = min(map(len, tested))
    return {
        row: by_seed
        for row, by_seed in dropped.items()
        if len(by_seed) >= fewest and shared <= by_seed.keys()
    }
