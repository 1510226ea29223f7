"""Images in parquet files, as Hugging Face stores them."""

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from blocklab.data.pictures import Contents, Picture, Pictures, Source
from blocklab.errors import InputError, error_line

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("fine_label", "label")
SPLITS = {"train": ("train",), "test": ("test", "validation")}
ROWS_AT_ONCE = 256
_SHARD = re.compile(r"-(\d+)-of-(\d+)\.parquet$")

Tables = dict[str, list[Path]]


def parquet_source(root: Path) -> Source:
    """Describe a folder with train*.parquet and test*.parquet (or validation*.parquet).

    Raises:
        InputError: if it is not such a folder, or a file of a sharded split is missing.
    """
    tables = list_parquet(root)
    identity = identify([path for paths in tables.values() for path in paths])
    return Source(root.resolve().name, identity, lambda _: table_contents(tables))


def identify(paths: list[Path]) -> list[tuple[str, int, int]]:
    """Return where each file really lies, its size and its time of change.

    Raises:
        InputError: if one is no ordinary file, or a link to nothing.
    """
    found = []
    for path in paths:
        try:
            facts = path.stat()
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}; mend or remove it") from error
        if not stat.S_ISREG(facts.st_mode):
            raise InputError(f"{path} is no ordinary file; put the data's own file there")
        found.append((os.path.realpath(path), facts.st_size, facts.st_mtime_ns))
    return found


def list_parquet(root: Path) -> Tables:
    """List the files of "train" and "test", in `root` or in `root`/data.

    Raises:
        InputError: as `parquet_source`.
    """
    if not os.path.isdir(root):  # unlike Path.is_dir, never raises
        what = "is a file" if os.path.isfile(root) else "does not exist"
        raise InputError(f"the data folder {root} {what}; give the folder of the parquet files")
    for folder in (root, root / "data"):
        tables = find_tables(folder)
        if all(tables.values()):
            return tables
        if any(tables.values()):
            absent = next(split for split, paths in tables.items() if not paths)
            raise InputError(f"{folder} has no {absent}*.parquet; put it beside the other split")
    raise InputError(f"{root} has no train*.parquet and test*.parquet; put them there")


def find_tables(folder: Path) -> Tables:
    """Find the parquet files of "train" and "test"; a list is empty where there are none.

    Raises:
        InputError: if shards are missing, or a split is there both whole and in shards.
    """
    return {split: _find_split(folder, prefixes) for split, prefixes in SPLITS.items()}


def table_contents(tables: Tables, order_by_content: bool = False) -> Contents:
    """Read labels and class names now; images when asked for.

    Class names are those of the Hugging Face metadata, else the sorted labels of the training
    split.

    Raises:
        InputError: if a file is no parquet, or its columns or labels are not usable.
    """
    schema = _schema(tables["train"][0])
    label_column = _column(tables["train"][0], schema, LABEL_COLUMNS, "label")
    raw = {
        split: [_labels(path, label_column) for path in paths] for split, paths in tables.items()
    }
    for split, columns in raw.items():
        if not any(columns):
            raise InputError(f"{tables[split][0]} has no rows; replace it")
    names = _metadata_names(schema, label_column)
    first = next(value for column in raw["train"] for value in column)
    if names is None or isinstance(first, str):
        classes = sorted({value for column in raw["train"] for value in column})
        numbers = {value: number for number, value in enumerate(classes)}
        names = tuple(str(value) for value in classes)
    else:
        numbers = {number: number for number in range(len(names))}
    pictures = {}
    for split, paths in tables.items():
        labels = [
            _numbered(path, column, numbers) for path, column in zip(paths, raw[split], strict=True)
        ]
        pictures[split] = Pictures(np.concatenate(labels), lambda paths=paths: _items(paths))
    return Contents(names, pictures["train"], pictures["test"], order_by_content)


def _find_split(folder: Path, prefixes: tuple[str, ...]) -> list[Path]:
    for prefix in prefixes:
        paths = sorted(folder.glob(f"{prefix}*.parquet"))
        if not paths:
            continue
        if folder / f"{prefix}.parquet" in paths and len(paths) > 1:
            raise InputError(
                f"{folder} holds both {prefix}.parquet and {paths[0].name}; keep one of the two"
            )
        if shard := _SHARD.search(paths[0].name):
            total = int(shard[2])
            if len(paths) != total:
                raise InputError(
                    f"{folder} has {len(paths)} of the {total} {prefix} parquet files; "
                    "add the missing ones"
                )
        return paths
    return []


def _items(paths: list[Path]) -> Iterator[Picture]:
    for path in paths:
        row = 0
        schema = _schema(path)
        column = _column(path, schema, IMAGE_COLUMNS, "image")
        _check_image_type(path, column, schema.field(column).type)
        with _readable(path):
            batches = _open(path).iter_batches(ROWS_AT_ONCE, columns=[column])
        while True:
            with _readable(path):
                batch = next(batches, None)
                values = pa.array([]) if batch is None else batch.column(0)
                if pa.types.is_struct(values.type):
                    values = values.field("bytes")
                pictures: list[bytes | None] = values.to_pylist()
            if batch is None:
                break
            for content in pictures:
                if content is None:
                    raise InputError(f"{path}, row {row} has no image; remove the row")
                yield Picture(f"{path}, row {row}", content)
                row += 1


def _schema(path: Path) -> pa.Schema:
    with _readable(path):
        return _open(path).schema_arrow


def _open(path: Path) -> pq.ParquetFile:
    """Open a file whose pages are checked against their checksums, where it has them."""
    return pq.ParquetFile(path, page_checksum_verification=True)


def _column(path: Path, schema: pa.Schema, choices: tuple[str, ...], what: str) -> str:
    for choice in choices:
        if choice in schema.names:
            return choice
    raise InputError(
        f"{path} has no {what} column: it must be named {' or '.join(choices)}; "
        f"found: {', '.join(schema.names) or 'none'}"
    )


def _check_image_type(path: Path, column: str, kind: pa.DataType) -> None:
    if pa.types.is_struct(kind):
        kind = next((field.type for field in kind if field.name == "bytes"), pa.null())
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise InputError(
            f"column '{column}' of {path} holds {kind}; it must hold encoded images, as binary or "
            "as a struct with bytes"
        )


def _labels(path: Path, column: str) -> list[int] | list[str]:
    schema = _schema(path)
    if column not in schema.names:
        _column(path, schema, (column,), "label")
    kind = schema.field(column).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (
        pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
    ):
        raise InputError(f"column '{column}' of {path} holds {kind}; it must hold integers or text")
    with _readable(path):
        values: list[Any] = _open(path).read(columns=[column]).column(0).to_pylist()
    if None in values:
        raise InputError(f"{path}, row {values.index(None)} has no label; remove the row")
    return values


def _numbered(path: Path, column: list[Any], numbers: dict[Any, int]) -> np.ndarray:
    odd = next((row for row, value in enumerate(column) if value not in numbers), None)
    if odd is not None:
        raise InputError(
            f"{path}, row {odd}: label {column[odd]!r} is none of the {len(numbers)} classes of "
            "the training split; remove the row or mend its label"
        )
    return np.array([numbers[value] for value in column], np.int64)


def _metadata_names(schema: pa.Schema, column: str) -> tuple[str, ...] | None:
    """Names that Hugging Face's metadata give the labels; None if there are none to be had."""
    try:
        note = json.loads((schema.metadata or {})[b"huggingface"])
        names = note["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) and names else None


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise InputError(f"no permission to read {path}; change its mode") from error
    except Exception as error:  # damaged bytes raise nearly anything
        raise InputError(
            f"{path} is not a whole parquet file ({error_line(error, kind=False)}); fetch it again"
        ) from error
