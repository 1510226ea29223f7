"""One parquet file, opened with care: its schema, its columns, and what it says of itself."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from blocklab.errors import InputError, did_you_mean, error_line

# What a file may unpack to. An image takes bytes, so a file of a few bytes has few rows; and images
# are packed already, so that parquet's own packing gains little.
MOST_ROWS_OF_A_SMALL_FILE = 1_000_000
BYTES_A_ROW = 4
LARGEST_UNPACKED = 256 << 20
MOST_UNPACKED_SHARE = 200


def open_parquet(path: Path, **options: Any) -> pq.ParquetFile:
    """Open a file whose pages are checked against their checksums, where it has them.

    Raises:
        ValueError: if it says that it unpacks to more than its bytes could hold.
    """
    file = pq.ParquetFile(path, page_checksum_verification=True, **options)
    rows = file.metadata.num_rows
    if rows > max(MOST_ROWS_OF_A_SMALL_FILE, path.stat().st_size // BYTES_A_ROW):
        raise ValueError(f"it says that it has {rows:,} rows, more than its bytes could hold")
    for chunk in chunks(file):
        unpacked, packed = chunk.total_uncompressed_size, chunk.total_compressed_size
        if unpacked > max(LARGEST_UNPACKED, MOST_UNPACKED_SHARE * packed):
            raise ValueError(f"{chunk.path_in_schema} unpacks to {unpacked / 1e9:.1f} GB")
    return file


def read_schema(path: Path) -> pa.Schema:
    """Return the schema that a file says it has.

    Raises:
        InputError: if it is no whole parquet file.
    """
    with readable(path):
        return open_parquet(path).schema_arrow


def chunks(file: pq.ParquetFile) -> Iterator[Any]:
    """Yield what a file says of each column of each group of rows."""
    for group in range(file.metadata.num_row_groups):
        described = file.metadata.row_group(group)
        yield from (described.column(number) for number in range(described.num_columns))


def find_column(
    path: Path, schema: pa.Schema, wanted: str | None, choices: tuple[str, ...], what: str
) -> str:
    """Return the column that is wanted, else the first of `choices` that is there.

    Raises:
        InputError: if there is none; `what` names it.
    """
    for choice in (wanted,) if wanted else choices:
        if choice in schema.names:
            return choice
    found = ", ".join(schema.names) or "none"
    if wanted:
        raise InputError(
            f"{path} has no column '{wanted}'{did_you_mean(wanted, schema.names) or ';'} "
            f"found: {found}"
        )
    raise InputError(
        f"{path} has no {what} column: it must be named {' or '.join(choices)}; found: {found} "
        f"(data.{what}_column names another)"
    )


def metadata_names(schema: pa.Schema, column: str) -> tuple[str, ...] | None:
    """Names that Hugging Face's metadata give the labels; None if there are none to be had."""
    try:
        note = json.loads((schema.metadata or {})[b"huggingface"])
        names = note["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) and names else None


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise whatever goes wrong with a file's bytes as the user's to mend."""
    try:
        yield
    except PermissionError as error:
        raise InputError(f"no permission to read {path}; change its mode") from error
    except Exception as error:  # damaged bytes raise nearly anything
        raise InputError(
            f"{path} is not a whole parquet file ({error_line(error, kind=False)}); fetch it again"
        ) from error
