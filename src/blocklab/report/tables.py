"""The tables as columns, of which each format and the page make theirs."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from blocklab.report.cell_text import (
    ABSENT,
    MINUS,
    accuracy_percent,
    chance,
    counted,
    difference,
    interval,
    mean_and_sd,
    signed,
    signed_interval,
    square,
)
from blocklab.results.row_result import COST_TOLERANCE_PERCENT, RowResult
from blocklab.results.statistics import BETTER, FEWEST_FOR_SIGN_FLIPS, GAIN, SAME, WORSE, Comparison
from blocklab.results.study_results import StudyResults
from blocklab.study.reported import Reported

COST, ACCURACY = "cost", "test accuracy (%)"
CLAIM_HEADINGS = ("claim", "judgement", "p (Holm)", "numbers (left minus right)", "in words")
CLEAR_GROUPS = (COST, ACCURACY)  # whose headings are clear without them


@dataclass(frozen=True)
class Column:
    """A column: what its cells say, under a heading that may share a group with its neighbours.

    `look` names how a cell is drawn on the page, where that depends on what it says; `left` is for
    words, which line up on the left.
    """

    heading: str
    text: Callable[[RowResult], str]
    group: str = ""
    look: Callable[[RowResult], str] | None = None
    left: bool = False

    @property
    def full_heading(self) -> str:
        """The heading where there is no line of groups above it."""
        plain = not self.group or self.group in CLEAR_GROUPS
        return self.heading if plain else f"{self.group}: {self.heading}"


@dataclass(frozen=True)
class Cell:
    """What a cell says, and how its column and it are drawn on the page."""

    text: str
    look: str
    left: bool


@dataclass(frozen=True)
class Table:
    """A table: the name of its file, its title, its columns and the rows that it has."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[RowResult, ...]

    @property
    def headings(self) -> list[str]:
        """The headings where there is no line of groups above them."""
        return [column.full_heading for column in self.columns]

    @cached_property
    def cells(self) -> list[list[Cell]]:
        """The cells, a list a row."""
        return [
            [
                Cell(column.text(row), column.look(row) if column.look else "", column.left)
                for column in self.columns
            ]
            for row in self.rows
        ]

    @property
    def texts(self) -> list[list[str]]:
        """What the cells say, a list a row."""
        return [[cell.text for cell in line] for line in self.cells]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The headings that span columns, and how many each spans."""
        same = groupby(self.columns, lambda one: one.group)
        return [(name, len(list(spanned))) for name, spanned in same]


def tables(results: StudyResults) -> tuple[Table, ...]:
    """Return the tables that these results can fill, the main one first."""
    found = [main_table(results)]
    compared = tuple(row for row in results.rows if row.name in results.comparisons)
    if any(row.difference for row in compared):
        found.append(Table("verdicts", "Verdicts", _verdict_columns(results), compared))
    if any(row.over_images for row in results.rows):
        shown = _uncertainty_columns(results)
        found.append(Table("uncertainty", "Two uncertainties", shown, results.rows))
    reported = tuple(row for row in results.rows if row.reported)
    if shown := _reported_columns(reported):
        found.append(Table("reported", "Reported against measured", shown, reported))
    return tuple(found)


def main_table(results: StudyResults) -> Table:
    """Return the table of costs and accuracies."""
    return Table("table", "Results", columns(results), results.rows)


def claim_lines(results: StudyResults) -> list[tuple[str, ...]]:
    """Return each claim, its judgement, p, numbers and sentence, under CLAIM_HEADINGS."""
    return [
        (
            one.claim,
            one.word,
            chance(one.p_holm),
            one.numbers,
            results.claim_notes.get(one.claim, ""),
        )
        for one in results.judgements
    ]


def columns(results: StudyResults) -> tuple[Column, ...]:
    """Return the main table's columns that these results can fill, from left to right."""
    sizes = {row.input_size for row in results.rows}
    at = f" at {square(*sizes)}" if len(sizes) == 1 else ""
    found = [
        Column("row", lambda row: row.name),
        Column(f"MACs (G){at}", lambda row: counted(row.macs / 1e9), COST),
        Column("params (M)", lambda row: counted(row.params / 1e6), COST),
        Column("seeds", _seeds),
        Column("top-1", lambda row: mean_and_sd(row.top1), ACCURACY),
        Column("95 % interval", lambda row: interval(row.top1), ACCURACY),
        Column("top-5", lambda row: mean_and_sd(row.top5), ACCURACY),
    ]
    if not at:
        found.insert(2, Column("counted at", lambda row: square(row.input_size), COST))
    if any(row.tuned and "lr" in row.tuned for row in results.rows):
        found.insert(found.index(_named(found, "seeds")), Column("tuned lr", _tuned_rate))
    if any(row.best_top1 for row in results.rows):
        found.append(Column("top-1, best test epoch (optimistic)", _best, ACCURACY))
    if any(row.zeros_percent for row in results.rows):
        found.append(Column("zeros after the last block (%)", _zeros))
    if results.comparisons:
        heading = f"top-1 minus {results.baseline} (points)"
        found.append(Column(heading, lambda row: difference(row, results.baseline)))
        found.append(
            Column("verdict", lambda row: verdict(results, row), look=_look_of(results), left=True)
        )
    return tuple(found)


def _verdict_columns(results: StudyResults) -> tuple[Column, ...]:
    compared = results.comparisons
    flips = any(one.p_sign_flip is not None for one in compared.values())
    test, needed = "paired t test", f"seeds that show {GAIN:g} points"
    found = [
        Column("row", lambda row: row.name),
        Column("shared seeds", lambda row: str(row.difference.n if row.difference else 0)),
        Column("points [95 % interval]", lambda row: difference(row, results.baseline), test),
        Column("p", lambda row: chance(row.difference.p if row.difference else None), test),
        Column("p (Holm)", lambda row: chance(compared[row.name].p_holm), test),
        Column("alone", lambda row: _whole(compared[row.name].seeds_alone), needed),
        Column("among all rows", lambda row: _whole(compared[row.name].seeds_among_all), needed),
        Column("verdict", lambda row: verdict(results, row), look=_look_of(results), left=True),
        Column("because", lambda row: compared[row.name].reason or ABSENT, left=True),
    ]
    if flips:
        cell = Column("p (sign flips)", lambda row: _flips(compared[row.name]))
        found.insert(5, cell)
    if not any(one.reason for one in compared.values()):
        found.pop()
    return tuple(found)


def _uncertainty_columns(results: StudyResults) -> tuple[Column, ...]:
    top1 = "top-1 (%), 95 % interval"
    found = [
        Column("row", lambda row: row.name),
        Column("other seeds", lambda row: interval(row.top1), top1),
        Column("other test images", lambda row: interval(row.over_images), top1),
    ]
    if any(row.difference_over_images for row in results.rows):
        gap = f"top-1 minus {results.baseline} (points), 95 % interval"
        found += [
            Column("other seeds", lambda row: signed_interval(row.difference), gap),
            Column(
                "other test images", lambda row: signed_interval(row.difference_over_images), gap
            ),
            Column("both", lambda row: _both(row), gap),
        ]
    return tuple(found)


def _reported_columns(rows: Sequence[RowResult]) -> tuple[Column, ...]:
    found: list[Column] = []
    for name, field, group, unit in (
        ("macs", "macs_g", "MACs (G)", 1e9),
        ("params", "params_m", "params (M)", 1e6),
    ):
        if any(_reported(row, field) is not None for row in rows):
            found.append(Column("reported", _reported_cell(field, counted), group))
            if any(row.reported_cost for row in rows):
                found.append(Column("ours", _our_cost(name, unit), group))
                found.append(Column("gap (%)", _gap(name), group, _far(name)))
    for name in ("top1", "top5"):
        group = f"top-{name[-1]} (%)"
        if any(_reported(row, name) is not None for row in rows):
            found.append(Column("reported", _reported_cell(name, accuracy_percent), group))
            found.append(Column("ours", _our_accuracy(name), group))
            if any(getattr(row, f"best_{name}") for row in rows):
                found.append(Column("ours, best test epoch", _our_accuracy(f"best_{name}"), group))
    if any(_reported(row, "top1") is not None for row in rows):
        found.append(Column("reported epoch", _epoch, left=True))
    if any(_reported(row, "zeros") is not None for row in rows):
        group = "zeros after the last block"
        found.append(Column("reported", _reported_cell("zeros", _whole), group))
        found.append(Column("ours", _our_zeros, group))
    if any(row.cost_gaps_percent for row in rows):
        found.append(Column("cost explained by", explanation, left=True))
    if any(row.reported and row.reported.see for row in rows):
        found.append(Column("see", _see, left=True))
    return (Column("row", lambda row: row.name), *found) if found else ()


def explanation(row: RowResult) -> str:
    """Say which erratum explains a cost that is more than 3 % from ours, or that none does."""
    far = [name for name, gap in row.cost_gaps_percent.items() if abs(gap) > COST_TOLERANCE_PERCENT]
    if not far:
        return f"within {COST_TOLERANCE_PERCENT:g} %" if row.cost_gaps_percent else ABSENT
    errata = row.reported.errata if row.reported else ()
    return _errata(errata) if errata else "unexplained"


def _errata(errata: Sequence[str]) -> str:
    """Name errata by number, or say them where one has none."""
    named = [text.partition(":")[0] for text in errata if re.match(r"\d+:", text)]
    if len(named) < len(errata):
        return "; ".join(errata)
    return f"errat{'um' if len(named) == 1 else 'a'} {', '.join(named)}"


def verdict(results: StudyResults, row: RowResult) -> str:
    """Show the one word for a row; the baseline has none."""
    comparison = results.comparisons.get(row.name)
    return ABSENT if comparison is None else comparison.word


def _seeds(row: RowResult) -> str:
    finished, planned = len(row.finished), len(row.planned_seeds)
    count = str(finished) if finished == planned else f"{finished} of {planned}"
    return f"{count}, {len(row.diverged)} diverged" if row.diverged else count


def _best(row: RowResult) -> str:
    return mean_and_sd(row.best_top1)


def _named(found: Sequence[Column], heading: str) -> Column:
    return next(column for column in found if column.heading == heading)


def _tuned_rate(row: RowResult) -> str:
    return f"{row.tuned['lr']:g}" if row.tuned and "lr" in row.tuned else ABSENT


def _zeros(row: RowResult) -> str:
    return ABSENT if row.zeros_percent is None else mean_and_sd(row.zeros_percent)


def _look_of(results: StudyResults) -> Callable[[RowResult], str]:
    looks = {BETTER: "better", WORSE: "worse", SAME: "same"}
    return lambda row: looks.get(verdict(results, row), "open")


def _whole(number: float | None) -> str:
    return ABSENT if number is None else f"{number:,.0f}"


def _flips(one: Comparison) -> str:
    few = one.difference is not None and one.difference.n < FEWEST_FOR_SIGN_FLIPS
    return f"needs {FEWEST_FOR_SIGN_FLIPS} seeds or more" if few else chance(one.p_sign_flip)


def _both(row: RowResult) -> str:
    gap = row.difference_over_images
    if gap is None or gap.both_low is None or gap.both_high is None:
        return ABSENT
    return f"[{signed(gap.both_low)}, {signed(gap.both_high)}]"


def _our_cost(name: str, unit: float) -> Callable[[RowResult], str]:
    return lambda row: (
        counted(getattr(row.reported_cost, name) / unit) if row.reported_cost else ABSENT
    )


def _our_accuracy(name: str) -> Callable[[RowResult], str]:
    return lambda row: mean_and_sd(getattr(row, name))


def _gap(name: str) -> Callable[[RowResult], str]:
    def cell(row: RowResult) -> str:
        gap = row.cost_gaps_percent.get(name)
        if gap is None:
            return ABSENT
        text = f"{gap:+.1f}"
        return "0.0" if float(text) == 0 else text.replace("-", MINUS)

    return cell


def _far(name: str) -> Callable[[RowResult], str]:
    return lambda row: (
        "far" if abs(row.cost_gaps_percent.get(name, 0)) > COST_TOLERANCE_PERCENT else ""
    )


def _see(row: RowResult) -> str:
    return _errata(row.reported.see) if row.reported and row.reported.see else ABSENT


def _epoch(row: RowResult) -> str:
    if _reported(row, "top1") is None or row.reported is None:
        return ABSENT
    known = row.reported.epoch
    return "best or last: unknown" if known == "unknown" else known


def _our_zeros(row: RowResult) -> str:
    counts = row.over_seeds("zeros")
    if counts is None:
        return ABSENT
    spread = "" if counts.sd is None else f" \u00b1 {counts.sd:,.0f}"
    return f"{counts.mean:,.0f}{spread}"


def _reported(row: RowResult, name: str) -> float | None:
    return getattr(row.reported or Reported(), name)


def _reported_cell(name: str, shown: Callable[[float | None], str]) -> Callable[[RowResult], str]:
    return lambda row: shown(_reported(row, name))
