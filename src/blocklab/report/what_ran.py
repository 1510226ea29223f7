"""What a page says of the runs themselves: on which machine, how fast, and where they lie."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from blocklab.report.cell_text import ABSENT, accuracy_percent, plain
from blocklab.results.ended_run import EndedRun
from blocklab.results.row_result import RowResult
from blocklab.results.study_results import StudyResults

SETUP_HEADINGS = (
    *("device", "CPU", "cores", "blocklab", "its code", "torch", "timm", "Python"),
    "runs",
)
SPEED_HEADINGS = (
    *("row", "memory format", "precision", "threads", "training (s a run)", "images/s"),
    "peak memory (MB)",
)


def setups(results: StudyResults) -> list[list[str]]:
    """Return the machines and versions in use, each with the number of runs made on it."""
    counts: Counter[tuple[str, ...]] = Counter()
    for _, run in results.runs:
        for part in (*run.run.get("earlier", ()), run.run):  # each that trained some of its epochs
            machine, versions = part.get("machine") or {}, part.get("versions") or {}
            cells = [machine.get(name, ABSENT) for name in ("device", "cpu", "cores")]
            names = ("blocklab", "code", "torch", "timm", "python")
            cells += [versions.get(name, ABSENT) for name in names]
            counts[tuple(map(str, cells))] += 1
    known = {cells: count for cells, count in counts.items() if set(cells) != {ABSENT}}
    return [[*cells, str(count)] for cells, count in Counter(known).most_common()]


def speeds(results: StudyResults) -> list[list[str]]:
    """Return what each row ran on and how fast; rows without any are left out."""
    found = [_speed(row) for row in results.rows if row.finished]
    return [cells for cells in found if set(cells[1:]) != {ABSENT}]


def _speed(row: RowResult) -> list[str]:
    """One cell where a row's runs agree, else all they say."""
    memory = row.over_seeds("peak_memory_bytes")
    seconds, speed = row.over_seeds("train_seconds"), row.over_seeds("images_per_second")
    return [
        row.name,
        *(_distinct(row, name) for name in ("memory_format", "precision", "threads")),
        f"{seconds.mean:,.0f}" if seconds else ABSENT,
        f"{speed.mean:,.0f}" if speed else ABSENT,
        f"{memory.mean / 1e6:,.0f}" if memory else ABSENT,
    ]


def _distinct(row: RowResult, name: str) -> str:
    return ", ".join(sorted({str(run.run.get(name, ABSENT)) for run in row.finished}))


def run_headings(results: StudyResults) -> list[str]:
    """Return the headings of `run_cells`."""
    accuracies = [results.metric.heading, *(["top-5 (%)"] if results.shows_top5 else [])]
    of_ours = [] if results.origin else ["training (s)", "started"]
    where = "from" if results.origin else "folder"
    return ["row", "seed", "status", "epochs", *accuracies, *of_ours, where]


def run_cells(results: StudyResults, row: RowResult, run: EndedRun) -> list[str]:
    """Return what is said of one run."""
    top5 = results.shows_top5
    seconds = run.figure("train_seconds")
    ours = [
        ABSENT if seconds is None else f"{seconds:,.0f}",
        str(run.run.get("started", ABSENT)),
        last_names(run.folder),
    ]
    return [
        row.name,
        str(run.seed),
        run.result["status"],
        str(run.epochs or ABSENT),
        plain(run.figure(row.metric.figure), row.metric),
        *([accuracy_percent(run.figure("test_top5_percent"))] if top5 else []),
        *([run.hash] if results.origin else ours),
    ]


def last_names(folder: Path) -> str:
    """Return a folder's last two names, as far as its path has them: of ``y`` no more than that."""
    return Path(*folder.parts[-2:]).as_posix()


def flat(fields: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested fields as ``a.b`` and their values as text."""
    found = []
    for name, value in fields.items():
        if isinstance(value, dict) and value:
            found += flat(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            found.append((f"{prefix}{name}", {"null": "none"}.get(text, text)))
    return found
