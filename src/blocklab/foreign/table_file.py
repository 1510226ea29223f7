"""Tables of text as records: CSV, TSV and JSON Lines, each with the line it is from."""

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blocklab.errors import InputError, did_you_mean, error_line, shortened
from blocklab.files import read_regular

ENDINGS = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson")
LARGEST_TABLE = 500_000_000  # bytes
MOST_NAMED = 30  # columns in a message
# What MLflow's export puts before a name.
PREFIXES = ("params.", "metrics.", "tags.")
_DECIMAL_COMMA = re.compile(r"-?\d+,\d+")


@dataclass(frozen=True)
class Record:
    """One line of a table: its cells by column, and where it stands."""

    cells: Mapping[str, Any]
    place: str


@dataclass(frozen=True)
class TextTable:
    """A table that was read: its columns in order, and its records."""

    path: Path
    columns: tuple[str, ...]
    records: tuple[Record, ...]

    def column(self, given: str, what: str) -> str:
        """Return the column that is so called, also without MLflow's ``params.`` before it.

        Raises:
            InputError: if there is none, naming those that there are.
        """
        found = find_name(given, self.columns)
        if found is None:
            raise InputError(f"{self.path} has no column '{given}'{choices(given, self.columns)}")
        if self.columns.count(found) > 1:
            raise InputError(
                f"{self.path} has {self.columns.count(found)} columns '{found}', and {what} is to "
                "be one of them; rename the others"
            )
        return found


def find_name(given: str, names: Sequence[str]) -> str | None:
    """Return the name that is meant: as it stands, after MLflow's prefixes, or in other letters."""
    for one in (given, *(f"{prefix}{given}" for prefix in PREFIXES)):
        if one in names:
            return one
    alike = [name for name in names if name.casefold() == given.casefold()]
    return alike[0] if len(alike) == 1 else None


def choices(given: str, names: Sequence[str]) -> str:
    """Say what there is in place of a name that there is not."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{did_you_mean(given, names) or '.'} There: {', '.join(names[:MOST_NAMED])}{more}"


def read_table(path: Path, lines: bool = False, log: bool = False) -> TextTable:
    """Read a CSV, TSV or JSON Lines file; with `lines` it is JSON Lines, whatever it is called.

    A `log` is another program's: a line that does not fit the others is passed over, since timm
    leaves out what an epoch has not measured, and a run that was killed ends in half a line.

    Raises:
        InputError: if it is none, or a line does not fit the others.
    """
    try:
        text = read_regular(path, LARGEST_TABLE).decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the path") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text in UTF-8; save it as that") from None
    except ValueError as error:
        raise InputError(f"cannot read {path}: {error}") from None
    if lines or path.suffix.lower() in (".jsonl", ".ndjson"):
        table = _json_lines(path, text, log)
    else:
        table = _separated(path, text, log)
    if not table.records:
        raise InputError(f"{path} has no line under its heading; nothing is to be compared")
    return table


def _separated(path: Path, text: str, log: bool) -> TextTable:
    heading = text.partition("\n")[0]
    tabs = path.suffix.lower() in (".tsv", ".tab")
    delimiter = "\t" if tabs else max(",;\t", key=heading.count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
    records: list[Record] = []
    columns: tuple[str, ...] = ()
    try:
        for line in reader:
            if not any(cell.strip() for cell in line):
                continue
            if not columns:
                columns = tuple(cell.strip() for cell in line)
                continue
            place = f"{path}, line {reader.line_num}"
            if tuple(cell.strip() for cell in line) == columns:
                continue  # timm writes its heading again where training goes on
            if len(line) != len(columns):
                if log:
                    continue
                raise InputError(
                    f"{place} has {len(line)} cells, and the heading {len(columns)}; mend the line"
                )
            cells = [cell.strip() for cell in line]
            if delimiter == ";":  # as spreadsheets write it where 0,5 is a half
                cells = [c.replace(",", ".") if _DECIMAL_COMMA.fullmatch(c) else c for c in cells]
            records.append(Record(dict(zip(columns, cells, strict=True)), place))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}; is it a CSV file?") from None
    return TextTable(path, columns, tuple(records))


def _json_lines(path: Path, text: str, log: bool) -> TextTable:
    records: list[Record] = []
    columns: dict[str, None] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            if log:
                continue
            raise InputError(f"{place} is no JSON ({error_line(error, kind=False)})") from None
        if not isinstance(value, dict):
            raise InputError(f'{place} is no JSON object, such as {{"row": "se", "seed": 0}}')
        cells = flat(value)
        columns |= dict.fromkeys(cells)
        records.append(Record(cells, place))
    return TextTable(path, tuple(columns), tuple(records))


MOST_FIELDS = 10_000  # of one run's configuration


def flat(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested fields as ``a.b``; lists are values."""
    found: dict[str, Any] = {}
    waiting: list[tuple[str, Any]] = [("", value)]
    for _ in range(MOST_FIELDS):  # however a file's aliases fold one mapping into another
        if not waiting:
            break
        name, one = waiting.pop(0)
        if isinstance(one, Mapping):
            inner = [(f"{name}.{key}" if name else str(key), item) for key, item in one.items()]
            waiting = inner + waiting
        else:
            found[name] = one
    return found


def number(cell: Any, place: str, column: str) -> float | None:
    """Return what a cell says; None of an empty one. NaN and infinities are numbers here.

    Raises:
        InputError: if it is no number.
    """
    if cell is None or cell == "":
        return None
    try:
        if isinstance(cell, str) and "_" not in cell:  # which Python reads over: 1_0 is its 10
            return float(cell.rstrip("% "))
        if isinstance(cell, int | float) and not isinstance(cell, bool):
            return float(cell)
    except (ValueError, OverflowError):
        pass
    raise InputError(
        f"{place}: {column} is {shortened(cell)}, which is no number; mend or empty it"
    )


def whole_number(cell: Any, place: str, column: str) -> int:
    """Return a seed.

    Raises:
        InputError: if it is no whole number from 0.
    """
    try:
        value = number(cell, place, column)
    except InputError:
        value = None
    if value is None or not math.isfinite(value) or value < 0 or value != int(value):
        said = "is empty" if cell in (None, "") else f"is {shortened(cell)}"
        raise InputError(f"{place}: the seed, {column}, {said}; a seed is a whole number from 0")
    return int(value)
