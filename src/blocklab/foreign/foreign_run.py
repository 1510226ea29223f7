"""A run that was trained elsewhere, and what tables and folders of runs have in common."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from blocklab.errors import InputError, shortened
from blocklab.foreign.table_file import Record, choices, find_name, number
from blocklab.study.schema import is_row_name

Signed = Literal["none", "some", "all"]
EPOCH, STEP = "epoch", "step"
_STEPS = re.compile(r"(?<![a-z])(step|iter)", re.IGNORECASE)


def counted_by(column: str | None) -> str:
    """Return what a column that orders a run's figures counts, by its name."""
    if column is None or EPOCH in column.lower():
        return EPOCH
    return STEP if _STEPS.search(column) else column


@dataclass(frozen=True)
class Wanted:
    """What a person named: columns or fields, or None; and how a run's `name` tells row and seed.

    `costs` are columns or fields that say what a row costs.
    """

    row: str | None = None
    seed: str | None = None
    metric: str | None = None
    epoch: str | None = None
    name: str | None = None
    costs: tuple[str, ...] = ()


@dataclass(frozen=True)
class ForeignRun:
    """A run: its figure after each epoch, in order; one without epochs has one, of epoch None.

    NaN is the figure of a run that diverged. `empty` are the epochs that it tells of after its last
    figure, without one. `trouble` says why a run has no figure at all. `settings` are what it was
    trained with, as far as that is told.
    """

    row: str
    seed: int
    source: str
    figures: tuple[tuple[float | None, float], ...] = ()
    costs: Mapping[str, float] = field(default_factory=dict)
    trouble: str | None = None
    empty: tuple[float, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ForeignRuns:
    """All runs that were read, in order, what they are measured by, and what a reader must know.

    `by` is what a run's figures are told after each of: an epoch, a step, or what its column says;
    `signed` which figures are written with a percent sign.
    """

    runs: tuple[ForeignRun, ...]
    metric: str
    origin: str
    notes: tuple[str, ...] = ()
    by: str = EPOCH
    signed: Signed = "none"


def named(pattern: str, name: str, place: str) -> tuple[str, int]:
    """Return the row and the seed that a run's name tells, by a pattern: ``{row}_s{seed}``.

    The pattern is of the name's end; ``*`` stands for anything but a slash.

    Raises:
        InputError: if the pattern is none, or the name is not of it.
    """
    if pattern.count("{row}") != 1 or pattern.count("{seed}") != 1:
        raise InputError(f"--name has {{row}} and {{seed}} in it, each once, not '{pattern}'")
    form = re.escape(pattern).replace(r"\*", "[^/]*")
    form = form.replace(re.escape("{row}"), "(?P<row>.+?)")
    form = form.replace(re.escape("{seed}"), r"(?P<seed>\d{1,10})")
    found = re.fullmatch(form, name) or re.fullmatch(f"(?:.*/){form}", name)
    if found is None:
        raise InputError(f"{place}: the name '{name}' is not of --name '{pattern}'")
    return row_name(found["row"], place), int(found["seed"])


def row_name(value: Any, place: str) -> str:
    name = "" if value is None else str(value).strip()
    if not is_row_name(name):
        raise InputError(f"{place}: the row's name is {shortened(value)}; give it one on one line")
    return name


def epoch_number(record: Record, column: str) -> float | None:
    """Return the epoch of a line; None where that is empty.

    Raises:
        InputError: if it is no finite number.
    """
    found = number(record.cells.get(column), record.place, column)
    if found is not None and not math.isfinite(found):
        raise InputError(
            f"{record.place}: {column} is {found:g}, which is no epoch; mend or empty it"
        )
    return found


def by_epoch(
    records: Sequence[Record], metric: str, epoch: str | None
) -> tuple[tuple[float | None, float], ...]:
    """Return a run's figures in the order of its epochs; of an epoch told twice, the later one."""
    found: dict[float | None, float] = {}
    for order, record in enumerate(records):
        value = number(record.cells.get(metric), record.place, metric)
        if value is None:
            continue
        when = order if epoch is None else epoch_number(record, epoch)
        found[when] = value
    return tuple(sorted(found.items(), key=lambda pair: -math.inf if pair[0] is None else pair[0]))


def empty_after(
    records: Sequence[Record],
    figures: Sequence[tuple[float | None, float]],
    epoch: str | None,
) -> tuple[float, ...]:
    """Return the epochs that a run tells of after its last figure: NaN may stand there empty."""
    last = figures[-1][0] if figures else None
    if epoch is None or last is None:
        return ()
    told = (epoch_number(record, epoch) for record in records)
    return tuple(sorted({one for one in told if one is not None and one > last}))


def cost(cell: Any, place: str, column: str) -> float | None:
    """Return what a cell says of a cost; None of an empty one, which NaN is here.

    Raises:
        InputError: if it is no number, infinite, or below zero.
    """
    value = number(cell, place, column)
    if value is None or math.isnan(value):
        return None
    if not 0 <= value < math.inf:
        raise InputError(
            f"{place}: {column} is {value:g}, which is no cost; mend or empty it, or leave "
            "the column out"
        )
    return value


def costs_of(cells: Mapping[str, Any], wanted: Wanted, place: str) -> dict[str, float]:
    """Return what a run says of the costs that were asked for; those that it lacks are left out.

    Raises:
        InputError: if there is no such column or field, or it says something else than a cost.
    """
    costs = {}
    for given in wanted.costs:
        name = find_name(given, list(cells))
        if name is None:
            raise InputError(f"{place} has no '{given}' for --costs{choices(given, list(cells))}")
        value = cost(cells[name], place, given)
        if value is not None:
            costs[given] = value
    return costs
