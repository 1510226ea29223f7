"""Images in parquet files, as Hugging Face stores them."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from blocklab.data.parquet_file import (
    chunks,
    find_column,
    metadata_names,
    open_parquet,
    read_schema,
    readable,
)
from blocklab.data.pictures import Contents, Picture, Pictures, Source
from blocklab.data.split import TEST_SEED, stratified_split
from blocklab.data.table_files import Tables, identify, list_parquet
from blocklab.errors import InputError

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("fine_label", "label")
TEST_FRACTION = 0.2  # as of class folders
ROWS_AT_ONCE = 256
_HIDDEN = -1  # the label of a row that is not told
BYTES_AT_ONCE = 1 << 30

Labels = list[int] | list[str]


@dataclass(frozen=True)
class Columns:
    """The columns to read, where the user names them; else the first that is there."""

    image: str | None = None
    label: str | None = None


AS_USUAL = Columns()


def parquet_source(root: Path, columns: Columns = AS_USUAL, measure: bool = False) -> Source:
    """Describe a folder with train*.parquet and test*.parquet (or validation*.parquet).

    Without test files, or with ones whose labels are hidden (-1 of every row, as competitions
    publish them), the validation files are the test split; without those too, a fixed stratified
    20 % of the rows is; with `measure`, all of them are.

    Raises:
        InputError: if it is not such a folder, or a file of a sharded split is missing.
    """
    tables = list_parquet(root, measure)
    return tables_source(root.resolve().name, tables, columns, measure)


def tables_source(
    name: str, tables: Tables, columns: Columns = AS_USUAL, measure: bool = False
) -> Source:
    """Describe parquet files by split; see `parquet_source`."""
    identity: list[Any] = [*identify([path for paths in tables.values() for path in paths])]
    tables, notes = _without_hidden_test(name, tables, columns)
    if columns != AS_USUAL:
        identity.append([columns.image, columns.label])
    if _by_name(tables, columns):
        identity.append("labels joined by name")
    if measure and "test" not in tables:
        tables = {"test": tables["train"]}
        identity.append("measured whole")
    tables = {"train": [], **tables}
    return Source(name, identity, lambda _: table_contents(tables, columns), notes=notes)


def _without_hidden_test(
    name: str, tables: Tables, columns: Columns
) -> tuple[Tables, tuple[str, ...]]:
    """Leave out a test split whose labels are all -1; the validation split is one then."""
    tested = tables.get("test", [])
    if not tested or not tables.get("train"):
        return tables, ()
    for path in tested:
        column = find_column(path, read_schema(path), columns.label, LABEL_COLUMNS, "label")
        if not _begins_hidden(path, column) or set(_labels(path, column)) != {_HIDDEN}:
            return tables, ()
    kept = {split: paths for split, paths in tables.items() if split != "test"}
    instead = "a fifth of the rows is set aside for the test"
    if "validation" in kept:
        kept["test"] = kept.pop("validation")
        instead = "the test is on its validation images"
    return kept, (f"{name} hides the labels of its test images ({_HIDDEN}), so {instead}",)


def _begins_hidden(path: Path, column: str) -> bool:
    """Whether a file's first label is hidden, which tells nearly always without the others."""
    with readable(path):
        batches = open_parquet(path).iter_batches(1, columns=[column])
        first = next(batches, None)
    return first is not None and first.column(0).to_pylist() == [_HIDDEN]


def table_contents(tables: Tables, columns: Columns = AS_USUAL) -> Contents:
    """Read labels and class names now; images when asked for.

    Class names are those of the Hugging Face metadata, else the sorted labels of the training
    split. Where files give the same numbers different names, labels are joined by their names.

    Raises:
        InputError: if a file is no parquet, or its columns or labels are not usable.
    """
    leading = tables.get("train") or tables["test"]
    label_column = find_column(
        leading[0], read_schema(leading[0]), columns.label, LABEL_COLUMNS, "label"
    )
    raw = {
        split: [_labels(path, label_column) for path in paths] for split, paths in tables.items()
    }
    for split, read in raw.items():
        if tables[split] and not any(read):
            raise InputError(f"{tables[split][0]} has no rows; replace it")
    names, numbers = _classes(tables, raw, label_column, _by_name(tables, columns))
    pictures = {}
    for split, paths in tables.items():
        labels = [
            _numbered(path, column, numbers) for path, column in zip(paths, raw[split], strict=True)
        ]
        pictures[split] = Pictures(
            np.concatenate([np.empty(0, np.int64), *labels]),
            lambda paths=paths: _items(paths, columns.image),
        )
    if "test" not in pictures:
        pictures |= _fixed_test(leading[0], pictures["train"])
    return Contents(names, pictures["train"], pictures["test"], pictures.get("validation"))


def _by_name(tables: Tables, columns: Columns) -> bool:
    """Say whether labels mean the same only by their names: files differ in names, or in kind."""
    paths = [path for paths in tables.values() for path in paths]
    schema = read_schema(paths[0])
    column = find_column(paths[0], schema, columns.label, LABEL_COLUMNS, "label")
    schemas = [schema, *map(read_schema, paths[1:])]
    kinds = {_is_text(schema.field(column).type) for schema in schemas if column in schema.names}
    names = {metadata_names(schema, column) for schema in schemas} - {None}
    return len(kinds) > 1 or (len(names) > 1 and kinds == {False})


def _classes(
    tables: Tables, raw: dict[str, list[Labels]], column: str, by_name: bool
) -> tuple[tuple[str, ...], dict[Any, int]]:
    """Return the classes' names, and the number of each label; `raw` gets names if `by_name`."""
    split = "train" if tables.get("train") else "test"
    known = {
        path: metadata_names(read_schema(path), column)
        for paths in tables.values()
        for path in paths
    }
    if by_name:
        for of_split, paths in tables.items():
            raw[of_split] = [
                _with_names(path, labels, known, column)
                for path, labels in zip(paths, raw[of_split], strict=True)
            ]
    names = known[tables[split][0]]
    first = next(value for labels in raw[split] for value in labels)
    if names is not None and not isinstance(first, str):
        return names, {number: number for number in range(len(names))}
    given = [known[path] for path in tables[split]]
    if by_name and all(given):  # in the order of the first file's
        classes: list[Any] = list(dict.fromkeys(name for some in given for name in some or ()))
    else:
        classes = sorted({value for labels in raw[split] for value in labels})
    return tuple(map(str, classes)), {value: number for number, value in enumerate(classes)}


def _with_names(
    path: Path, labels: Labels, known: dict[Path, tuple[str, ...] | None], column: str
) -> list[str]:
    """Write a file's labels as names: its own, else those of the other files that agree."""
    if isinstance(labels[0] if labels else "", str):
        return cast("list[str]", labels)
    others = {names for names in known.values() if names}
    names = known[path] or (others.pop() if len(others) == 1 else None)
    if names is None:
        raise InputError(
            f"column '{column}' of {path} holds numbers without names, and that of other files "
            "text or other names; write all labels as text, or all as the same numbers"
        )
    if len(set(names)) < len(names):
        raise InputError(f"{path} gives two labels the same name, and other files other names")
    odd = next((row for row, label in enumerate(labels) if not 0 <= int(label) < len(names)), None)
    if odd is not None:
        raise InputError(
            f"{path}, row {odd}: label {labels[odd]} has no name among its {len(names)}; remove "
            "the row or mend its label"
        )
    return [names[int(label)] for label in labels]


def _fixed_test(path: Path, train: Pictures) -> dict[str, Pictures]:
    """Set the same fifth of the rows aside, as of class folders."""
    kept, held = stratified_split(train.labels, TEST_FRACTION, TEST_SEED)
    if not len(held):
        raise InputError(f"{path} has too few rows for a test split; add more, or a test.parquet")

    def some(rows: np.ndarray) -> Pictures:
        chosen = np.zeros(len(train.labels), bool)
        chosen[rows] = True
        return Pictures(train.labels[rows], lambda: compress(train.items(), chosen))

    return {"train": some(kept), "test": some(held)}


def _items(paths: list[Path], image_column: str | None) -> Iterator[Picture]:
    for path in paths:
        row = 0
        schema = read_schema(path)
        column = find_column(path, schema, image_column, IMAGE_COLUMNS, "image")
        _check_image_type(path, column, schema.field(column).type)
        with readable(path):
            file = open_parquet(path)
            batches = file.iter_batches(_rows_at_once(file, column), columns=[column])
        while True:
            with readable(path):
                batch = next(batches, None)
                values = pa.array([]) if batch is None else batch.column(0)
                if pa.types.is_struct(values.type):
                    values = values.field("bytes")
                pictures = values.to_pylist()
            if batch is None:
                break
            for content in pictures:
                yield Picture(f"{path}, row {row}", content)
                row += 1


def _rows_at_once(file: pq.ParquetFile, column: str) -> int:
    """Fewer rows at once where a dictionary could make each of them as large as all of it."""
    rows = ROWS_AT_ONCE
    for chunk in chunks(file):
        if chunk.path_in_schema.split(".")[0] == column and chunk.has_dictionary_page:
            rows = min(rows, BYTES_AT_ONCE // max(1, chunk.total_uncompressed_size))
    return max(1, rows)


def _check_image_type(path: Path, column: str, kind: pa.DataType) -> None:
    if pa.types.is_struct(kind):
        kind = next((field.type for field in kind if field.name == "bytes"), pa.null())
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise InputError(
            f"column '{column}' of {path} holds {kind}; it must hold encoded images, as binary or "
            "as a struct with bytes"
        )


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _labels(path: Path, column: str) -> Labels:
    schema = read_schema(path)
    kind = schema.field(find_column(path, schema, column, (), "label")).type
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_integer(plain) or _is_text(plain)):
        raise InputError(f"column '{column}' of {path} holds {kind}; it must hold integers or text")
    values: list[Any] = []
    with readable(path):
        # As a dictionary, a text that a million rows share is there once.
        shared = [column] if _is_text(plain) else None
        for chunk in (
            open_parquet(path, read_dictionary=shared).read(columns=[column]).column(0).chunks
        ):
            if pa.types.is_dictionary(chunk.type):
                texts = chunk.dictionary.to_pylist()
                values += [None if i is None else texts[i] for i in chunk.indices.to_pylist()]
            else:
                values += chunk.to_pylist()
    if None in values:
        more = values.count(None) - 1
        also = f", nor have {more:,} more rows" if more else ""
        raise InputError(
            f"{path}, row {values.index(None)} has no label{also}; remove the row{'s' * bool(more)}"
        )
    return values


def _numbered(path: Path, column: Labels, numbers: dict[Any, int]) -> np.ndarray:
    odd = [row for row, value in enumerate(column) if value not in numbers]
    if odd:
        also = f" (and of {len(odd) - 1:,} more rows)" if len(odd) > 1 else ""
        raise InputError(
            f"{path}, row {odd[0]}: label {column[odd[0]]!r} is none of the {len(numbers)} classes "
            f"of the training split{also}; remove the row or mend its label"
        )
    return np.array([numbers[value] for value in column], np.int64)
