"""Tables as Markdown, LaTeX and CSV, where text stays text."""

import csv as csv_format
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

from blocklab.errors import printable
from blocklab.report.cell_text import ABSENT, MINUS, TIMES
from blocklab.report.columns import Table
from blocklab.report.tables import CLAIM_HEADINGS, claim_lines
from blocklab.results.study_results import StudyResults
from blocklab.study.metric import TOP1, Metric


def markdown(table: Table) -> str:
    """Return a table as GitHub's Markdown."""
    rule = ["---", *(["---:"] * (len(table.columns) - 1))]
    return _markdown_lines(table.headings, rule, table.texts)


def markdown_of_all(results: StudyResults, made: Sequence[Table]) -> str:
    """Return all tables, the claims and the remarks as one Markdown file."""
    first, *others = made
    parts = [markdown(first), *(f"\n## {one.title}\n\n{markdown(one)}" for one in others)]
    if judged := claim_lines(results):
        rule = ["---"] * len(CLAIM_HEADINGS)
        parts.append(f"\n## Claims\n\n{_markdown_lines(CLAIM_HEADINGS, rule, judged)}")
    if results.remarks:
        remarks = "".join(f"- {_escape_markdown(remark)}\n" for remark in results.remarks)
        parts.append(f"\n## Remarks\n\n{remarks}")
    return "".join(parts)


def _markdown_lines(
    headings: Sequence[str], rule: Sequence[str], rows: Iterable[Sequence[str]]
) -> str:
    lines = [list(map(_escape_markdown, headings)), rule]
    lines += [list(map(_escape_markdown, row)) for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex(table: Table) -> str:
    """Return a table as a LaTeX tabular for the booktabs package."""
    rows = [" & ".join(map(_escape_latex, cells)) for cells in [table.headings, *table.texts]]
    # A line that starts with [ or * would be read as an option of the \\ or \midrule before it.
    lines = [rf"{{}}{row} \\" if row[:1] in "[*" else rf"{row} \\" for row in rows]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def csv(results: StudyResults) -> str:
    """Return one line a row, numbers as numbers: counts whole, the rest to the table's decimals.

    No text cell can start a spreadsheet formula.
    """
    lines, metric = results.summary_lines, results.metric
    return csv_text(
        [{name: rounded(name, cell, metric) for name, cell in line.items()} for line in lines]
    )


def csv_text(lines: Iterable[dict[str, Any]], names: Iterable[str] = ()) -> str:
    """Write lines of named cells as CSV; None is empty, and text never starts a formula."""
    lines = list(lines)
    names = list(names) or (list(lines[0]) if lines else [])
    out = io.StringIO()
    writer = csv_format.writer(out, lineterminator="\n")
    writer.writerow([_harmless(name) for name in names])
    writer.writerows([_harmless(line[name]) for name in names] for line in lines)
    return out.getvalue()


def _escape_markdown(text: str) -> str:
    text = printable(re.sub(r"\s+", " ", text))
    text = re.sub(r"([\\|`*])", r"\\\1", text).replace("](", r"]\(")
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)  # inside a word it is only itself
    return re.sub(r"&(?=#?\w+;)", "&amp;", text).replace("<", "&lt;")


LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "\u00b1": r"$\pm$",
    TIMES: r"$\times$",
    MINUS: "$-$",
    ABSENT: "--",
    "\u2264": r"$\leq$",
    "\u2265": r"$\geq$",
    **{character: rf"\{character}" for character in "&%$#_{}"},
}


def _escape_latex(text: str) -> str:
    return "".join(
        LATEX.get(character, character) for character in printable(re.sub(r"\s+", " ", text))
    )


def rounded(name: str, cell: Any, metric: Metric = TOP1) -> Any:
    """Round a number to the decimals that a table shows of it; anything else stays."""
    if not isinstance(cell, float):
        return cell
    of = re.sub(r"^(difference_|expected_(gain_)?)", "", name)
    if metric != TOP1 and of.startswith((metric.figure, metric.name)):
        return round(cell, metric.decimals)
    if "_percent" in name or "_points" in name:
        return round(cell, 2)
    small = abs(cell) < 1 or name.startswith("difference_p")
    return float(f"{cell:.4g}") if small else round(cell, 3)


def _harmless(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    starts_formula = cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    one_line = re.sub(r"[\r\n]+", " ", cell)
    return f"'{one_line}" if starts_formula else one_line
