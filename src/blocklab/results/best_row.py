"""The best row, those that tie with it, and what is expected of each when it is trained again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from blocklab.results.row_result import RowResult
from blocklab.results.tested_claims import TestedRows
from blocklab.statistics.shrinkage import Expected, expected_rows


@dataclass(frozen=True)
class BestRow:
    """The row of the best mean.

    Attributes:
        row: it.
        of: how many rows learned.
        tied: all rows whose means are the same as printed, it among them.
        expected: what is expected of it when it is trained again; None where no spread was seen.
    """

    row: RowResult
    of: int
    tied: tuple[RowResult, ...]
    expected: Expected | None = None

    @property
    def sentence(self) -> str:
        """What to make of it, in words; empty where nothing can be said."""
        if self.expected is None or self.of < 2:
            return ""
        probability = self.expected.probability_best
        shown = (
            f"{probability:.2f}"
            if 0.005 <= probability < 0.995
            else ("more than 0.99" if probability > 0.5 else "less than 0.01")
        )
        best = f"the best of {self.of} rows with a probability of {shown}"
        gap = self.row.difference
        if gap is None or self.expected.gain is None or self.row.baseline is None:
            return best
        raw, again = (
            f"{gain:+.{self.row.metric.decimals}f}".replace("-", "\u2212")
            for gain in (gap.mean, self.expected.gain)
        )
        gained = f"{raw} {self.row.metric.difference_unit}".rstrip()
        return (
            f"{gained} on {self.row.baseline.name}, {again} expected when it is trained again; "
            f"{best}"
        )


def expected_of_rows(
    rows: Sequence[RowResult], baseline: str | None, tested: TestedRows
) -> dict[str, Expected]:
    """Return what is expected of each row's mean; rows of one function share it."""
    first = None if baseline is None else tested.first(baseline)
    pool = tested.pool(tested.metric.name, dropped=False)
    higher = tested.metric.higher_is_better
    found = expected_rows(pool, first, higher_is_better=higher)
    of_rows = {row.name: found.get(tested.first(row.name)) for row in rows}
    return {name: one for name, one in of_rows.items() if one is not None}


def best_row(rows: Sequence[RowResult], expected: Mapping[str, Expected]) -> BestRow | None:
    """Return the row of the best mean; None where no run has finished."""
    means = {row.name: row.metric.rank(row.score.mean) for row in rows if row.score}
    if not means:
        return None
    best = max((row for row in rows if row.name in means), key=lambda row: means[row.name])
    tied = tuple(row for row in rows if row.score and _printed(row) == _printed(best))
    learned = sum(row.name in means and not row.at_chance for row in rows)
    return BestRow(best, learned, tied, expected.get(best.name))


def _printed(row: RowResult) -> str:
    return f"{row.score.mean:.{row.metric.decimals}f}" if row.score else ""
