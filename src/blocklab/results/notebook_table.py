"""What a study's results look like in a notebook."""

from collections.abc import Iterable, Mapping, Sequence

from blocklab.notebook import table_html, text_html
from blocklab.results.row_result import RowResult
from blocklab.study.metric import TOP1, Metric

MOST_ROWS = 60  # more are said, not shown
_ABSENT = "\u2013"


def rows_html(
    title: str,
    rows: Sequence[RowResult],
    baseline: str | None,
    words: Mapping[str, str],
    troubles: Iterable[tuple[str, str]],
    metric: Metric = TOP1,
) -> str:
    """Show rows: cost, the metric over seeds, gain, verdict; then what went wrong."""
    headings = ["row", "seeds", "MACs (G)", "params (M)", metric.heading, "95 % interval"]
    if baseline:
        unit = f" ({metric.difference_unit})" if metric.difference_unit else ""
        headings += [f"minus {baseline}{unit}", "verdict"]
    cells = [_cells(row, metric) for row in rows[:MOST_ROWS]]
    if baseline:
        for row, line in zip(rows, cells, strict=False):
            word = "baseline" if row.name == baseline else words.get(row.name, _ABSENT)
            gap = row.difference
            line += [f"{gap.mean:+.{metric.decimals}f}" if gap else _ABSENT, word]
    lines = [f"{row}: {line}" for row, line in troubles]
    if more := max(0, len(rows) - MOST_ROWS):
        lines.append(f"{more} more rows: see to_frame(), summary_frame(), or the page")
    below = "".join(f"<div>{text_html(line)}</div>" for line in lines)
    return f"<b>{text_html(title)}</b>{table_html(headings, cells)}{below}"


def _cells(row: RowResult, metric: Metric) -> list[str]:
    score, decimals = row.score, metric.decimals
    costs = ((row.macs, 1e9), (row.params, 1e6))
    shown = [_ABSENT if cost is None else f"{cost / unit:.4g}" for cost, unit in costs]
    cells = [row.name, str(len(row.finished)), *shown]
    if score is None:
        return [*cells, _ABSENT, _ABSENT]
    sd = "" if score.sd is None else f" \u00b1 {score.sd:.{decimals}f}"
    known = score.low is not None and score.high is not None
    between = f"[{score.low:.{decimals}f}, {score.high:.{decimals}f}]" if known else _ABSENT
    return [*cells, f"{score.mean:.{decimals}f}{sd}", between]
