"""What holds over several data sets, as a table, files and the diagram of mean ranks."""

from pathlib import Path
from typing import Any

import altair as alt

from blocklab.files import remove_file, write_atomically
from blocklab.report.cell_text import (
    ABSENT,
    accuracy_percent,
    chance,
    signed,
    signed_ends,
)
from blocklab.report.drawing import Figure, data, specification
from blocklab.report.figures import save_figures
from blocklab.report.table_files import csv_text, rounded
from blocklab.results.over_datasets import OverDatasets, RowOverDatasets
from blocklab.statistics.datasets import Ranks

RANKS = "mean_ranks"
TABLE = "over_datasets.csv"


def headings(over: OverDatasets) -> list[str]:
    """Return the headings of `lines`."""
    return [
        "row",
        *(f"top-1 on {name}" for name in over.datasets),
        f"mean gain on {over.baseline} (points)",
        "other data sets",
        *(["mean rank"] if over.ranks else []),
        "p",
        "verdict",
    ]


def lines(over: OverDatasets) -> list[list[str]]:
    """Return the cells of a line a row."""
    return [_line(row, over) for row in over.rows]


def _line(row: RowOverDatasets, over: OverDatasets) -> list[str]:
    if row.name == over.baseline:
        gain, elsewhere = "baseline", ABSENT
    else:
        gain = ABSENT if row.gain is None else signed(row.gain)
        gain += f" {signed_ends(*row.interval)}" if row.interval else ""
        elsewhere = signed_ends(*row.elsewhere) if row.elsewhere else ABSENT
    rank = ABSENT if row.rank is None else f"{row.rank:.2f}"
    why = f" ({row.reason})" if row.reason else ""
    return [
        row.name,
        *map(accuracy_percent, row.means),
        gain,
        elsewhere,
        *([rank] if over.ranks else []),
        chance(row.p),
        f"{row.word}{why}" if row.word else ABSENT,
    ]


def _numbers(row: RowOverDatasets, over: OverDatasets) -> dict[str, Any]:
    """Return what a line says as numbers, by name."""
    low, high = row.interval or (None, None)
    low_elsewhere, high_elsewhere = row.elsewhere or (None, None)
    means = zip(over.datasets, row.means, strict=True)
    return {
        "row": row.name,
        **{f"test_top1_percent_mean on {name}": mean for name, mean in means},
        "gain_top1_points_mean": row.gain,
        "gain_top1_points_low": low,
        "gain_top1_points_high": high,
        "gain_top1_points_other_datasets_low": low_elsewhere,
        "gain_top1_points_other_datasets_high": high_elsewhere,
        "mean_rank": row.rank,
        "p": row.p,
        "verdict": row.word or None,
        "verdict_reason": row.reason or None,
    }


def claim_lines(over: OverDatasets) -> list[tuple[str, str, str, str]]:
    """Return each claim over data sets with its judgement, p (Holm) and numbers."""
    return [(one.claim, one.word, chance(one.p_holm), one.numbers) for one in over.judgements]


def write_over_datasets(over: OverDatasets, folder: Path) -> Figure | None:
    """Write over_datasets.csv and figures/mean_ranks to `folder`; return the figure.

    Raises:
        RunError: if the folder cannot be written.
    """
    table = [
        {name: rounded(name, cell) for name, cell in _numbers(row, over).items()}
        for row in over.rows
    ]
    write_atomically(folder / TABLE, csv_text(table))
    figure = None if over.ranks is None else rank_diagram(over.ranks)
    if figure is not None:
        save_figures((figure,), folder / "figures")
    else:
        for ending in ("svg", "png"):
            remove_file(folder / "figures" / f"{RANKS}.{ending}")
    return figure


def rank_diagram(ranks: Ranks) -> Figure:
    """Draw mean ranks, best first; rows that one bar joins are not shown to differ."""
    width = len(ranks.rows)
    points = [{"row": row, "rank": rank, "text": f"{rank:.2f}"} for row, rank in ranks.rows.items()]
    apart = 0.04 * width  # of the bars, right of the last rank
    bars = [
        {"row": group[0], "to": group[-1], "rank": width + apart * number}
        for number, group in enumerate(ranks.groups, 2)
    ]
    axis = alt.Axis(grid=False, ticks=False, domain=False, labelPadding=10)
    y = alt.Y("row:N", title=None, sort=None, axis=axis)
    end = width + apart * (len(bars) + 3)
    x = alt.X(
        "rank:Q",
        title=f"Mean rank over {ranks.datasets} data sets (1 is best)",
        scale=alt.Scale(domain=[1, end], nice=False, padding=12),
        axis=alt.Axis(values=list(range(1, width + 1)), format="d"),
    )
    shown = alt.Chart(data(points))
    layers = [
        shown.mark_point(filled=True, size=70, opacity=1).encode(x=x, y=y),
        shown.mark_text(align="left", dx=10, baseline="middle").encode(x=x, y=y, text="text:N"),
    ]
    for bar in bars:
        rule = alt.Chart(data([bar])).mark_rule(strokeWidth=5, strokeCap="round")
        layers.append(rule.encode(x=x, y=y, y2="to:N"))
    caption = (
        f"Rows joined by a bar are not shown to differ: their mean ranks are less than "
        f"{ranks.critical:.2f} apart (Nemenyi's critical difference at 0.05)."
    )
    return Figure(RANKS, "Mean ranks", caption, specification(layers, alt.Step(30)))
