"""What rows cost: a table of its own, or columns beside the figures."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from blocklab.errors import InputError, did_you_mean
from blocklab.foreign.foreign_run import Wanted, cost
from blocklab.foreign.table_file import PREFIXES, TextTable, number, read_table
from blocklab.foreign.table_runs import ROW_COLUMNS
from blocklab.study.schema import in_list

# What names say of MACs and parameters, without what is no letter. FLOPs are not MACs: some count
# them as two and some as one, so they stand under their own name.
_MACS = {"macs": 1.0, "macsm": 1e6, "mmacs": 1e6, "macsg": 1e9, "gmacs": 1e9, "infergmacs": 1e9}
_PARAMS = {"params": 1.0, "parameters": 1.0, "numparams": 1.0, "paramsm": 1e6, "mparams": 1e6}
_PARAMS |= {"paramcount": 1e6}  # timm's tables count in millions
_COUNTED = re.compile(r"macs|flops|multadds|madds|param")
_FEWEST_COUNTED = 1000  # a network with fewer MACs or parameters is counted in G or M
_MOST_MILLIONS = 1e5  # a column that counts in millions holds no more; what does is plain counts


@dataclass(frozen=True)
class RowCosts:
    """What a row costs: plain counts of MACs and parameters, None if unknown, and anything else."""

    macs: int | None = None
    params: int | None = None
    others: Mapping[str, float] = field(default_factory=dict)


def read_costs(path: Path, rows: Sequence[str], row: str | None) -> dict[str, RowCosts]:
    """Read a table of one line a row; `row` is the column with their names.

    Raises:
        InputError: if none of the rows is in it, one is there twice, or a cell says no cost.
    """
    table = read_table(path)
    names = [row] if row else [*ROW_COLUMNS]
    column = next((name for name in names if name in table.columns), table.columns[0])
    found: dict[str, dict[str, float]] = {}
    for record in table.records:
        name = str(record.cells.get(column) or "").strip()
        if name not in rows:
            continue
        if name in found:
            raise InputError(f"{record.place}: row '{name}' is there twice; remove one line")
        told = {
            each: cost(record.cells.get(each), record.place, each)
            for each in table.columns
            if each != column
        }
        found[name] = {each: value for each, value in told.items() if value is not None}
    if not found:
        first = str(table.records[0].cells.get(column))
        raise InputError(
            f"{path} has the cost of no row: its column '{column}' says '{first}', the rows are "
            f"{', '.join(map(in_list, rows))}{did_you_mean(first, rows)}"
        )
    return sorted_costs(found, str(path))


def sorted_costs(found: Mapping[str, Mapping[str, float]], place: str) -> dict[str, RowCosts]:
    """Tell MACs and parameters, by their names, from other costs.

    Raises:
        InputError: if a column of counts has numbers that must be millions.
    """
    units = {name: _unit(name) for costs in found.values() for name in costs}
    for name, (what, unit) in units.items():
        most = max((costs[name] for costs in found.values() if name in costs), default=0.0)
        if unit == 1e6 and what == "params" and most >= _MOST_MILLIONS:
            units[name] = what, 1.0
        if what and unit == 1 and most < _FEWEST_COUNTED:
            letter = "g" if what == "macs" else "m"
            raise InputError(
                f"{place}: '{name}' are plain counts, and the largest is {most:g}; call the column "
                f"'{what}_{letter}' if they are {'G' if letter == 'g' else 'M'}"
            )
    costs = {}
    for row, values in found.items():
        known: dict[str, int] = {}
        others = {}
        for name, value in values.items():
            what, unit = units[name]
            if what:
                known[what] = round(value * unit)
            else:
                others[name] = value
        costs[row] = RowCosts(known.get("macs"), known.get("params"), others)
    return costs


def counted_columns(table: TextTable, wanted: Wanted) -> tuple[str, ...]:
    """Return the columns that are MACs and parameters by their names and their numbers.

    Nobody named them, so one that holds text, or numbers that its name does not fit, is left alone.

    Raises:
        InputError: if one says something infinite or below zero.
    """
    others = {wanted.row, wanted.seed, wanted.metric, wanted.epoch}
    found = []
    for column in table.columns:
        name = next(
            (column.removeprefix(one) for one in PREFIXES if column.startswith(one)), column
        )
        what, unit = _unit(name)
        if not what or name in others or table.columns.count(column) > 1:
            continue
        try:
            for record in table.records:
                number(record.cells.get(column), record.place, name)
        except InputError:
            continue
        values = [cost(record.cells.get(column), record.place, name) for record in table.records]
        most = max((one for one in values if one is not None), default=0.0)
        if most >= (_FEWEST_COUNTED if unit == 1 else 0) and most > 0:
            found.append(name)
    return tuple(found)


def is_count(name: str) -> bool:
    """Whether a cost of that name is of operations or parameters, which one network has once."""
    return bool(_COUNTED.search(re.sub(r"[^a-z]", "", name.lower())))


def _unit(name: str) -> tuple[str, float]:
    plain = re.sub(r"[^a-z]", "", name.lower())
    for what, units in (("macs", _MACS), ("params", _PARAMS)):
        if plain in units:
            return what, units[plain]
    return "", 1.0
