"""What a table is made of: columns that say something of each row."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from blocklab.results.row_result import RowResult

COST, ACCURACY = "cost", "test accuracy (%)"
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
