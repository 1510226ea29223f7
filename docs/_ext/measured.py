"""What the committed records of studies say of a block: a table for its page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blocklab.measure.amounts import counted
from blocklab.report.cell_text import ABSENT, difference
from blocklab.report.tables import verdict
from blocklab.results.row_result import RowResult
from blocklab.results.study_file import STUDY
from blocklab.results.study_folder import read_study_folder
from blocklab.results.study_results import StudyResults

_SKELETON = ("family", "block", "depths", "widths")
_HEAD = (
    "| study | row | network | data | recipe | seeds | difference to the baseline | verdict "
    "| MACs (G) | params (M) |\n|---|---|---|---|---|---:|---|---|---:|---:|"
)


@dataclass(frozen=True)
class Record:
    """A committed study: its folder's name and its results."""

    name: str
    results: StudyResults

    @property
    def baseline(self) -> RowResult | None:
        """The row that the others are compared with."""
        return next((row for row in self.results.rows if row.name == self.results.baseline), None)


def records(folder: Path) -> list[Record]:
    """Read every study below a folder that `blocklab records` has written, of collections too.

    Raises:
        RunError: if a study.json is damaged.
    """
    found = sorted(path.parent for path in folder.rglob(STUDY))
    return [Record(path.relative_to(folder).as_posix(), read_study_folder(path)) for path in found]


def measured(
    kept: Sequence[Record], kind: str, name: str, models: Mapping[str, dict[str, Any]]
) -> str:
    """Return the table of the rows that have a block which their baseline has not.

    Args:
        kept: the committed studies.
        kind, name: of the block.
        models: specifications of named models, by which a row's network is named.
    """
    lines, within = list[str](), list[str]()
    for record in kept:
        baseline = record.baseline
        if baseline is None:
            continue
        if has_block(baseline.model, kind, name):
            within.append(f"[{record.name}](../results.md)")
            continue
        rows = [row for row in record.results.rows if has_block(row.model, kind, name)]
        lines += [_line(record, row, baseline, models) for row in rows]
    parts = ["\n".join([_HEAD, *lines])] if lines else []
    if within:
        parts.append(f"It is part of the baseline of {', '.join(within)}.")
    return "\n\n".join(parts) or "No committed record has this block in a row."


def has_block(spec: object, kind: str, name: str, under: str = "") -> bool:
    """Whether a model's specification has the block in it, in a slot of its kind."""
    if isinstance(spec, list):
        return any(has_block(item, kind, name, under) for item in spec)
    if not isinstance(spec, dict):
        return False
    called = str(spec.get("type", "")).partition("@")[0]  # without the digest of a user's file
    if called == name and (under == "ffn_mixer") == (kind == "ffn_mixer"):
        return True
    return any(has_block(value, kind, name, str(key)) for key, value in spec.items())


def _line(
    record: Record, row: RowResult, baseline: RowResult, models: Mapping[str, dict[str, Any]]
) -> str:
    results = record.results
    gap = difference(row, results.baseline)
    unit = results.metric.difference_unit or ""
    cells = [
        f"[{record.name}](../results.md)",
        f"`{row.name}`",
        _network(baseline.model, models),
        _data(results.data),
        results.recipe_name,
        str(len(row.finished)),
        f"{gap} {unit}".strip() if gap != ABSENT else ABSENT,
        verdict(results, row),
        _against(row.macs, baseline.macs, 1e9),
        _against(row.params, baseline.params, 1e6),
    ]
    return f"| {' | '.join(cells)} |"


def _network(spec: Mapping[str, Any], models: Mapping[str, dict[str, Any]]) -> str:
    """Return the shortest name of a model of these depths and widths; else its family."""
    alike = [
        name
        for name, other in models.items()
        if all(other.get(key) == spec.get(key) for key in _SKELETON)
    ]
    return min(alike, key=lambda name: (len(name), name), default=str(spec.get("family", ABSENT)))


def _data(data: Mapping[str, Any]) -> str:
    images = data.get("train_images")
    return f"{data.get('source')}{f', {images:,} images' if images else ''}"


def _against(count: int | None, other: int | None, unit: float) -> str:
    if count is None:
        return ABSENT
    share = f" (×{count / other:.2f})" if other else ""
    return f"{counted(count / unit)}{share}"
