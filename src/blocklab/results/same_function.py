"""Rows that compute one function: the same bits on every image, from every seed that they share."""

from collections.abc import Mapping, Sequence
from typing import Any

from blocklab.results.row_result import RowResult, identical_seeds

Identical = tuple[tuple[tuple[str, ...], tuple[int, ...]], ...]


def identical_rows(rows: Sequence[RowResult]) -> Identical:
    """Return the names of rows that compute one function, each set with the seeds that show it."""
    by_bits: dict[Any, list[RowResult]] = {}
    for row in rows:
        for run in row.finished:
            if run.per_image is not None:
                by_bits.setdefault((run.seed, run.per_image.bits), []).append(row)
    found: dict[tuple[str, ...], tuple[int, ...]] = {}
    for alike in by_bits.values():
        first, *others = alike
        same = [(row, identical_seeds(first, row)) for row in others]
        if names := tuple(row.name for row, seeds in same if seeds):
            found[first.name, *names] = min((s for _, s in same if s), key=len)
    return tuple(found.items())


def twins(rows: Sequence[RowResult], baseline: str | None) -> Mapping[str, str]:
    """Return rows that compute the function of one before them, each with the first of those.

    Also by way of a third, where no two of them share a seed. The baseline's are none.
    """
    first: dict[str, str] = {}
    places = {row.name: place for place, row in enumerate(rows)}
    for names, _ in identical_rows(rows):
        if baseline not in names:
            joined = {first.get(name, name) for name in names}
            top = min(joined, key=places.__getitem__)
            first |= {row: top for row, one in first.items() if one in joined}
            first |= dict.fromkeys((*names, *joined), top)
    return {row: one for row, one in first.items() if row != one}
