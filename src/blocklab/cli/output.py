"""What commands print: tables for people, JSON for programs."""

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from blocklab.errors import printable

if TYPE_CHECKING:
    from blocklab.results.study_results import StudyResults


MOST_DRAWN = 1000  # lines of a table that rich lays out


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout; nothing else goes there."""
    print(json.dumps(value, indent=2, allow_nan=False))


def print_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    title: str | None = None,
    left: bool = False,
) -> None:
    """Print a table, its first column left and the others right; wide where it is no terminal.

    Args:
        headings: of the columns.
        rows: the cells of each line.
        title: stands above the table.
        left: whether every column stands on the left, as words do.
    """
    headings, *rows = ([printable(cell) for cell in line] for line in (headings, *rows))
    title = printable(title or "")
    if len(rows) > MOST_DRAWN:
        return _print_plain([headings, *rows], title, left)
    table = Table(
        box=box.SIMPLE_HEAD, title=escape(title or "") or None, title_justify="left", pad_edge=False
    )
    for number, heading in enumerate(headings):
        table.add_column(
            escape(heading),
            justify="left" if left or number == 0 else "right",
            no_wrap=number == 0,
        )
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console = output_console()
    console.print(table)


def _print_plain(lines: list[Sequence[str]], title: str | None, left: bool) -> None:
    """Print columns as they are: a table of 10,000 lines is drawn in half a minute."""
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    if title:
        print(title)
    for line in lines:
        cells = []
        for number, (cell, width) in enumerate(zip(line, widths, strict=True)):
            pad = " " * (width - cell_len(cell))
            cells.append(cell + pad if left or number == 0 else pad + cell)
        print("   ".join(cells).rstrip())


def output_console() -> Console:
    """Return the console of stdout, which does not wrap into a file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=240)


def print_results(results: "StudyResults") -> None:
    """Print a study's table as the page has it, then its claims and what else a reader must know.

    That is which rows are one network, and which runs failed, are missing or doubtful.
    """
    from blocklab.report.tables import CLAIM_HEADINGS, claim_lines, main_table

    table = main_table(results)
    print_table(table.headings, table.texts, results.title)
    if judged := claim_lines(results):
        shown = [line[:-1] for line in judged]  # the sentences are on the page
        print_table(CLAIM_HEADINGS[:-1], shown, "claims", left=True)
    for line in results.identical_lines:
        print(printable(line))
    for row, line in results.troubles:
        print(printable(f"{row}: {line}"))
