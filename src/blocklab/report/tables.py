"""The results table, once as columns and then as Markdown, LaTeX, CSV or the page's HTML."""

import csv as csv_format
import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from blocklab.study.results import Reported, RowResult, StudyResults
from blocklab.study.statistics import Summary

ABSENT = "\u2013"  # an en dash: not measured, which is not zero
MINUS = "\u2212"
TIMES = "\u00d7"


@dataclass(frozen=True)
class Column:
    """A column: what its cells say, under a heading that may share a group with its neighbours."""

    heading: str
    text: Callable[[RowResult], str]
    group: str = ""

    @property
    def full_heading(self) -> str:
        """The heading where there is no line of groups above it."""
        return f"{self.group} {self.heading}" if self.group == "reported" else self.heading


def columns(results: StudyResults) -> tuple[Column, ...]:
    """Return the columns that these results can fill, from left to right."""
    sizes = {row.input_size for row in results.rows}
    at = f" at {square(*sizes)}" if len(sizes) == 1 else ""
    accuracy = "test accuracy (%)"
    found = [
        Column("row", lambda row: row.name),
        Column(f"MACs (G){at}", lambda row: counted(row.macs / 1e9), "cost"),
        Column("params (M)", lambda row: counted(row.params / 1e6), "cost"),
        Column("seeds", _seeds),
        Column("top-1", lambda row: mean_and_sd(row.top1), accuracy),
        Column("95 % interval", lambda row: interval(row.top1), accuracy),
        Column("top-5", lambda row: mean_and_sd(row.top5), accuracy),
    ]
    if not at:
        found.insert(2, Column("counted at", lambda row: square(row.input_size), "cost"))
    if any(row.best_top1 for row in results.rows):
        found.append(Column("top-1, best test epoch (optimistic)", _best, accuracy))
    if results.baseline and len(results.rows) > 1:
        heading = f"top-1 minus {results.baseline} (points)"
        found.append(Column(heading, lambda row: difference(row, results.baseline)))
    for heading, name, shown in (
        ("MACs (G)", "macs_g", counted),
        ("params (M)", "params_m", counted),
        ("top-1 (%)", "top1", accuracy_percent),
        ("top-5 (%)", "top5", accuracy_percent),
    ):
        if any(_reported(row, name) is not None for row in results.rows):
            found.append(Column(heading, _reported_cell(name, shown), "reported"))
    return tuple(found)


def markdown(results: StudyResults) -> str:
    """Return the table as GitHub's Markdown."""
    shown = columns(results)
    rule = ["---", *(["---:"] * (len(shown) - 1))]
    lines = [
        [_escape_markdown(column.full_heading) for column in shown],
        rule,
        *([_escape_markdown(column.text(row)) for column in shown] for row in results.rows),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex(results: StudyResults) -> str:
    """Return the table as a LaTeX tabular for the booktabs package."""
    shown = columns(results)
    heading = " & ".join(_escape_latex(column.full_heading) for column in shown)
    body = [" & ".join(_escape_latex(column.text(row)) for column in shown) for row in results.rows]
    # A line that starts with [ or * would be read as an option of the \\ or \midrule before it.
    lines = [rf"{{}}{line} \\" if line[:1] in "[*" else rf"{line} \\" for line in [heading, *body]]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            rf"\begin{{tabular}}{{l{'r' * (len(shown) - 1)}}}",
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
    lines = results.summary_lines()
    return csv_text([{name: _rounded(name, cell) for name, cell in line.items()} for line in lines])


def csv_text(lines: Iterable[dict[str, Any]], names: Iterable[str] = ()) -> str:
    """Write lines of named cells as CSV; None is empty, and text never starts a formula."""
    lines = list(lines)
    names = list(names) or (list(lines[0]) if lines else [])
    out = io.StringIO()
    writer = csv_format.writer(out, lineterminator="\n")
    writer.writerow([_harmless(name) for name in names])
    writer.writerows([_harmless(line[name]) for name in names] for line in lines)
    return out.getvalue()


def square(size: int) -> str:
    """Show a size of images, a side by a side."""
    return f"{size}{TIMES}{size}"


def counted(value: float | None) -> str:
    """Show G or M with 3 decimals; a model too small for them gets 2 significant digits."""
    if value is None:
        return ABSENT
    return f"{value:.3f}" if value >= 0.01 or value == 0 else f"{value:.2g}"


def accuracy_percent(value: float | None) -> str:
    """Show a percentage with 2 decimals."""
    return ABSENT if value is None else f"{value:.2f}"


def mean_and_sd(summary: Summary | None) -> str:
    """Show the mean and SD, or the one value that there is."""
    if summary is None:
        return ABSENT
    sd = "" if summary.sd is None else f" \u00b1 {summary.sd:.2f}"
    return f"{summary.mean:.2f}{sd}"


def interval(summary: Summary | None) -> str:
    """Show ``[low, high]``."""
    if summary is None or summary.low is None or summary.high is None:
        return ABSENT
    return f"[{summary.low:.2f}, {summary.high:.2f}]"


def difference(row: RowResult, baseline: str | None) -> str:
    """Show a row's gain on the baseline in points, signed, with its interval."""
    if row.name == baseline:
        return "baseline"
    gap = row.difference
    if gap is None:
        return ABSENT
    if gap.low is None or gap.high is None:
        return signed(gap.mean)
    return f"{signed(gap.mean)} [{signed(gap.low)}, {signed(gap.high)}]"


def signed(value: float) -> str:
    """Show points with their sign; what rounds to zero has none."""
    text = f"{value:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", MINUS)


def _seeds(row: RowResult) -> str:
    finished, planned = len(row.finished), len(row.planned_seeds)
    return str(finished) if finished == planned else f"{finished} of {planned}"


def _best(row: RowResult) -> str:
    return mean_and_sd(row.best_top1)


def _reported(row: RowResult, name: str) -> float | None:
    return getattr(row.reported or Reported(), name)


def _reported_cell(name: str, shown: Callable[[float | None], str]) -> Callable[[RowResult], str]:
    return lambda row: shown(_reported(row, name))


def _escape_markdown(text: str) -> str:
    text = re.sub(r"\s+", " ", text)
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
    **{character: rf"\{character}" for character in "&%$#_{}"},
}


def _escape_latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in re.sub(r"\s+", " ", text))


def _rounded(name: str, cell: Any) -> Any:
    if not isinstance(cell, float):
        return cell
    if "_percent" in name or "_points" in name:
        return round(cell, 2)
    return float(f"{cell:.4g}") if name.startswith("difference_p") else round(cell, 3)


def _harmless(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    starts_formula = cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    one_line = re.sub(r"[\r\n]+", " ", cell)
    return f"'{one_line}" if starts_formula else one_line
