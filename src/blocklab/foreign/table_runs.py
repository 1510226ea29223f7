"""Runs in a table: a line each, or a line for each of their epochs; W&B's and MLflow's exports."""

from collections.abc import Sequence

from blocklab.errors import InputError, shortened
from blocklab.foreign.foreign_run import (
    ForeignRun,
    ForeignRuns,
    Wanted,
    by_epoch,
    costs_of,
    counted_by,
    empty_after,
    epoch_number,
    named,
    row_name,
)
from blocklab.foreign.settings import settings_of_cells
from blocklab.foreign.table_file import (
    Record,
    TextTable,
    choices,
    find_name,
    whole_number,
)

# Of these a table's first one is taken where nothing else is said.
ROW_COLUMNS, SEED_COLUMN, EPOCH_COLUMN = ("row", "model"), "seed", "epoch"
# Exports that list runs which have not ended: the column that shows it, that says it, and how.
STATES = (("Name", "State", "finished"), ("run_id", "status", "FINISHED"))


def runs_of_table(table: TextTable, wanted: Wanted) -> ForeignRuns:
    if wanted.metric is None:
        raise InputError(
            f"name what the runs in {table.path} are compared by with --metric"
            f"{choices('', table.columns)}"
        )
    if wanted.name and wanted.seed:
        raise InputError("--name tells a run's seed; leave --seed out")
    metric = table.column(wanted.metric, "--metric")
    row = _column(table, wanted.row, ROW_COLUMNS, "--row")
    if row is None:
        raise InputError(
            f"{table.path} has no column '{ROW_COLUMNS[0]}'; name the one that tells rows apart "
            f"with --row{choices('', table.columns)}"
        )
    seed = None if wanted.name else _column(table, wanted.seed, (SEED_COLUMN,), "--seed")
    epoch = _column(table, wanted.epoch, (EPOCH_COLUMN,), "--epoch")
    columns = set(table.columns)
    state = next((one for one in STATES if {one[0], one[1]} <= columns), None)
    names = [record.cells.get(state[0]) for record in table.records] if state else []
    whole = state is not None and len(set(names)) == len(names)  # a line a run, else of its epochs
    found: dict[tuple[str, int], list[Record]] = {}
    counts: dict[str, int] = {}
    for record in table.records:
        if wanted.name:
            key = named(wanted.name, str(record.cells.get(row) or ""), record.place)
        else:
            name = row_name(record.cells.get(row), record.place)
            counts[name] = counts.get(name, 0) + 1
            given = counts[name] - 1 if seed is None else record.cells.get(seed)
            key = name, whole_number(given, record.place, seed or "its number")
        found.setdefault(key, []).append(record)
    notes: list[str] = []
    if state is not None and whole:  # whatever epoch it tells of
        for key, records in found.items():
            found[key] = _ended(records, key, state, notes)
    if seed is None and not wanted.name:
        if epoch is not None and not whole:
            raise InputError(
                f"{table.path} has a column '{epoch}' but none of seeds, so that runs cannot be "
                f"told apart; name it with --seed{choices('', table.columns)}"
            )
        notes.append(f"{table.path.name} has no seeds: a row's runs are numbered as they come")
    runs = tuple(
        _of_records(key, records, metric, epoch, state, wanted) for key, records in found.items()
    )
    figures = [
        one for record in table.records if (one := record.cells.get(metric)) not in (None, "")
    ]
    signs = {isinstance(one, str) and one.rstrip().endswith("%") for one in figures}
    signed = "some" if len(signs) > 1 else "all" if True in signs else "none"
    by = counted_by(epoch)
    return ForeignRuns(runs, wanted.metric, table.path.name, tuple(notes), by, signed)


def _column(table: TextTable, given: str | None, usual: Sequence[str], what: str) -> str | None:
    if given is not None:
        return table.column(given, what)
    return next((found for name in usual if (found := find_name(name, table.columns))), None)


def _ended(
    records: list[Record], key: tuple[str, int], state: tuple[str, str, str], notes: list[str]
) -> list[Record]:
    """Return a run's one line of an export: of several the one that says that it has ended.

    Raises:
        InputError: if several do.
    """
    ended = [one for one in records if one.cells.get(state[1]) == state[2]]
    if len(ended) > 1:
        raise InputError(
            f"row '{key[0]}' has seed {key[1]} twice: {ended[0].place} and {ended[1].place}; "
            "remove one, or name the column that tells them apart (--row, --seed)"
        )
    for one in records if ended else records[:-1]:
        if one not in ended:
            said = f"its {state[1].lower()} is {shortened(one.cells.get(state[1]))}"
            notes.append(f"{key[0]}, seed {key[1]}: a run is left out, {said} ({one.place})")
    return ended or records[-1:]


def _of_records(
    key: tuple[str, int],
    records: Sequence[Record],
    metric: str,
    epoch: str | None,
    state: tuple[str, str, str] | None,
    wanted: Wanted,
) -> ForeignRun:
    """Read one run's lines of a table, of which each is another epoch."""
    (name, seed), first, last = key, records[0], records[-1]
    seen: dict[float | None, Record] = {}
    for record in records:
        when = epoch_number(record, epoch) if epoch else None
        if (other := seen.setdefault(when, record)) is not record:
            at = "" if when is None else f", epoch {when:g},"
            remedy = "" if epoch else ", or name the epochs' column by --epoch"
            raise InputError(
                f"row '{name}' has seed {seed}{at} twice: {other.place} and {record.place}; "
                f"remove one{remedy}"
            )
    source = first.place if first is last else f"{first.place} and below"
    if state and last.cells.get(state[1]) != state[2]:
        said = f"its {state[1].lower()} is {shortened(last.cells.get(state[1]))}"
        return ForeignRun(name, seed, source, trouble=f"{said} ({source})")
    figures = by_epoch(records, metric, epoch)
    if epoch is None:
        figures = tuple((None, value) for _, value in figures)
    trouble = None if figures else f"no {metric} in {source}"
    empty = empty_after(records, figures, epoch)
    costs = costs_of(last.cells, wanted, last.place)
    settings = settings_of_cells(last.cells)
    return ForeignRun(name, seed, source, figures, costs, trouble, empty, settings)
