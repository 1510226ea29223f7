"""The names of a study file's rows, before anything of it is built: no model is looked at."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from blocklab.study.schema import find_study, is_collection, study_names

FULL, BASE = "full", "base"  # rows of an ablation


@dataclass(frozen=True)
class ShippedStudy:
    """A study that comes with blocklab; a collection has the rows of all its studies."""

    study: str
    title: str
    rows: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {**asdict(self), "rows": list(self.rows)}


def shipped_studies() -> list[ShippedStudy]:
    """List what is shipped, collections included."""
    return [_shipped(name) for name in study_names()]


def _shipped(name: str) -> ShippedStudy:
    content: Any = find_study(name).value
    parts = content["studies"] if is_collection(content) else [name]
    rows = tuple(row for part in parts for row in row_names(find_study(part).value))
    return ShippedStudy(name, content["title"], rows)


def row_names(content: object) -> list[str]:
    """Return the names of the rows of a study file's content, as far as it has any."""
    if not isinstance(content, Mapping):
        return []
    ablate, rows = content.get("ablate"), content.get("rows")
    if isinstance(ablate, Mapping) and isinstance(ablate.get("full"), Mapping):
        rows = list(ablated_parts([change for change in ablate["full"] if isinstance(change, str)]))
    return [row for row in rows if isinstance(row, str)] if isinstance(rows, list | dict) else []


def ablated_parts(changes: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return the changes of each row of an ablation; see `blocklab.study.ablation`."""
    everything = tuple(changes)
    rows = {FULL: everything}
    if len(everything) > 1:
        for left_out in everything:
            kept = tuple(change for change in everything if change != left_out)
            rows[f"without-{left_out}"] = kept
    rows[BASE] = ()
    if len(everything) > 2:
        rows |= {f"with-{change}": (change,) for change in everything}
    return rows
