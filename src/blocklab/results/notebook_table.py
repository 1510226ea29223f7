"""What a study's results look like in a notebook."""

from collections.abc import Iterable, Mapping, Sequence

from blocklab.notebook import table_html, text_html
from blocklab.results.row_result import RowResult

MOST_ROWS = 60  # more are said, not shown
_ABSENT = "\u2013"


def rows_html(
    title: str,
    rows: Sequence[RowResult],
    baseline: str | None,
    words: Mapping[str, str],
    troubles: Iterable[tuple[str, str]],
) -> str:
    """Show rows: cost, accuracy over seeds, what each gains, its verdict; then what went wrong."""
    headings = ["row", "seeds", "MACs (G)", "params (M)", "top-1 (%)", "95 % interval"]
    if baseline:
        headings += [f"minus {baseline} (points)", "verdict"]
    cells = [_cells(row) for row in rows[:MOST_ROWS]]
    if baseline:
        for row, line in zip(rows, cells, strict=False):
            word = "baseline" if row.name == baseline else words.get(row.name, _ABSENT)
            line += [f"{row.difference.mean:+.2f}" if row.difference else _ABSENT, word]
    lines = [f"{row}: {line}" for row, line in troubles]
    if more := max(0, len(rows) - MOST_ROWS):
        lines.append(f"{more} more rows: see to_frame(), summary_frame(), or the page")
    below = "".join(f"<div>{text_html(line)}</div>" for line in lines)
    return f"<b>{text_html(title)}</b>{table_html(headings, cells)}{below}"


def _cells(row: RowResult) -> list[str]:
    top1 = row.top1
    costs = ((row.macs, 1e9), (row.params, 1e6))
    shown = [_ABSENT if cost is None else f"{cost / unit:.4g}" for cost, unit in costs]
    cells = [row.name, str(len(row.finished)), *shown]
    if top1 is None:
        return [*cells, _ABSENT, _ABSENT]
    sd = "" if top1.sd is None else f" \u00b1 {top1.sd:.2f}"
    known = top1.low is not None and top1.high is not None
    between = f"[{top1.low:.2f}, {top1.high:.2f}]" if known else _ABSENT
    return [*cells, f"{top1.mean:.2f}{sd}", between]
