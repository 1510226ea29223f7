"""What a publication printed, beside what is measured here, and what is known of the gap."""

import re
from collections.abc import Callable, Sequence

from blocklab.measure.amounts import counted
from blocklab.report.cell_text import ABSENT, MINUS, accuracy_percent, mean_and_sd, whole
from blocklab.report.columns import Column
from blocklab.results.row_result import COST_TOLERANCE_PERCENT, RowResult
from blocklab.study.reported import Reported


def reported_columns(rows: Sequence[RowResult]) -> tuple[Column, ...]:
    """Return the columns that what is reported of these rows can fill; none where nothing is."""
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
        found.append(Column("reported", _reported_cell("zeros", whole), group))
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


def _reported_cell(name: str, shown: Callable[[float], str]) -> Callable[[RowResult], str]:
    def cell(row: RowResult) -> str:
        value = _reported(row, name)
        return ABSENT if value is None else shown(value)

    return cell
