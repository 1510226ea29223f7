"""What commands print: tables for people, JSON for programs."""

import json
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from blocklab.errors import printable

if TYPE_CHECKING:
    from blocklab.measure.answers import Answers
    from blocklab.results.over_datasets import OverDatasets
    from blocklab.results.study_results import StudyResults


UNBOUNDED = 100_000  # letters a line, where no terminal breaks them
MOST_DRAWN = 1000  # lines of a table that rich lays out
MOST_FAULTS = 5  # of a kind, a line each


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout; nothing else goes there."""
    print(json.dumps(value, indent=2, allow_nan=False))


def print_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    title: str | None = None,
    left: bool = False,
) -> None:
    """Print a table, its first column left and the others right; whole where it is no terminal.

    A table wider than the terminal is printed in parts, each with the first column: figures are
    never cut or broken.

    Args:
        headings: of the columns.
        rows: the cells of each line.
        title: stands above the table.
        left: whether every column stands on the left and breaks between words, as words do.
    """
    console, cells = output_console(), [list(row) for row in rows]
    if len(cells) > MOST_DRAWN:
        _print_plain([headings, *cells], title, left)
        return
    if title:  # by itself: a table would break it at its own width
        console.print(terminal_text(title), style="italic", soft_wrap=True)
    width, start = console.width, 1
    while start < max(len(headings), 2):
        end = len(headings)
        part = _table(headings, cells, left, start, end)
        if _least_width(console, part) > width and not left:
            headings = _broken(headings, cells)
            part = _table(headings, cells, left, start, end)
        while end > start + 1 and _least_width(console, part) > width:
            end -= 1
            part = _table(headings, cells, left, start, end)
        # What is too wide by itself runs on into the terminal's next line rather than being cut.
        console.width = max(width, _least_width(console, part))
        console.print(part)
        start = end


def _table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], left: bool, start: int, end: int
) -> Table:
    """Return the first column, and those from `start` up to `end`."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown = [0, *range(start, end)]
    for number in shown:
        whole = number == 0 or not left
        lines = [*headings[number].split("\n"), *(row[number] for row in rows)]
        unbroken = lines if whole else [word for line in lines for word in line.split()]
        table.add_column(
            "\n".join(map(terminal_text, headings[number].split("\n"))),
            justify="left" if left or number == 0 else "right",
            no_wrap=whole,
            min_width=max((cell_len(printable(one)) for one in unbroken), default=0),
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(terminal_text(row[number]) for number in shown))
    return table


def _broken(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Break headings between words into lines as long as the figures below them."""
    widths = [max((cell_len(row[i]) for row in rows), default=0) for i in range(len(headings))]
    return [
        "\n".join(textwrap.wrap(one, max(width, 8), break_long_words=False)) or one
        for one, width in zip(headings, widths, strict=True)
    ]


def _least_width(console: Console, table: Table) -> int:
    return Measurement.get(console, console.options.update(width=UNBOUNDED), table).minimum


def terminal_text(text: str) -> str:
    """Return text as a terminal may show it: no markup of ours, no control characters of others."""
    return escape(printable(text))


def accuracy_cells(
    record: Mapping[str, Any], split: str, class_names: Sequence[str]
) -> dict[str, str]:
    """Return a split's top-1, and its top-5 where there are more than five classes."""
    from blocklab.report.cell_text import accuracy_percent

    tops = (1, 5) if len(class_names) > 5 else (1,)
    return {
        f"{split} top-{top} (%)": accuracy_percent(record.get(f"{split}_top{top}_percent"))
        for top in tops
    }


def print_faults(faults: Sequence[Exception]) -> None:
    """Say on stderr what is wrong with some of many things: of the first each, then how many."""
    for fault in faults[:MOST_FAULTS]:
        print(f"error: {fault}", file=sys.stderr)
    if len(faults) > MOST_FAULTS:
        more = len(faults) - MOST_FAULTS
        print(f"error: and {more:,} more that cannot be read", file=sys.stderr)


def print_answers(answers: "Answers") -> None:
    """Print where a network errs, and how sure it is of what it says."""
    from blocklab.report.answer_tables import answer_tables, calibration_line

    for table in answer_tables(answers):
        print_table(table.headings, table.cells, table.title)
    print(printable(calibration_line(answers)))


def _print_plain(lines: list[Sequence[str]], title: str | None, left: bool) -> None:
    """Print columns as they are: a table of 10,000 lines is drawn in half a minute."""
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    if title:
        print(printable(title))
    for line in lines:
        cells = []
        for number, (cell, width) in enumerate(zip(line, widths, strict=True)):
            pad = " " * (width - cell_len(cell))
            cells.append(cell + pad if left or number == 0 else pad + cell)
        print("   ".join(cells).rstrip())


def output_console(stderr: bool = False) -> Console:
    """Return the console of stdout or stderr, which does not wrap into a file or a pipe."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=UNBOUNDED)


def print_of_all(over: "OverDatasets | None", notes: "Sequence[str]") -> None:
    """Print what the page of all studies has of them together: over data sets, and its notes."""
    if over is not None:
        _print_over_datasets(over)
    for note in notes:
        print(printable(note))


def _print_over_datasets(over: "OverDatasets") -> None:
    from blocklab.report.over_datasets import claim_lines, headings, lines

    print_table(headings(over), lines(over), f"{over.title}: over {len(over.datasets)} data sets")
    if judged := claim_lines(over):
        shown = ("claim", "judgement", "p (Holm)", "numbers (left minus right)")
        print_table(shown, judged, "claims over the data sets", left=True)
    for sentence in over.sentences:
        print(printable(sentence))


def print_results(results: "StudyResults") -> None:
    """Print a study's table as the page has it, then its claims and what else a reader must know.

    That is which rows are one network, what was stated or looked at when, and which runs failed,
    are missing or doubtful.
    """
    from blocklab.report.tables import CLAIM_HEADINGS, claim_lines, main_table

    table = main_table(results)
    print_table(table.headings, table.texts, results.title)
    if judged := claim_lines(results):
        shown = [line[:-1] for line in judged]  # the sentences are on the page
        print_table(CLAIM_HEADINGS[:-1], shown, "claims", left=True)
    for line in (*results.identical_lines, *results.design_notes):
        print(printable(line))
    for row, line in results.troubles:
        print(printable(f"{row}: {line}"))
