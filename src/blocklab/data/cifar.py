"""CIFAR-10 and CIFAR-100 in whichever layout they lie.

Below the data folder, for `cifar100` (and likewise `cifar10`), the first of:
  cifar100/train.parquet and test.parquet, or Hugging Face's shards, also as the hub nests them
  cifar-100-python/{train,test,meta}, as torchvision unpacks Toronto's archive
  cifar-100-python.tar.gz, read in place
  cifar100/train/CLASS/* and cifar100/test/CLASS/*
"""

import io
import pickle
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from blocklab.data.folders import folder_source
from blocklab.data.pictures import Contents, Picture, Pictures, Source
from blocklab.data.tables import Tables, find_tables, table_contents
from blocklab.errors import InputError

MAX_MEMBER_BYTES = 1 << 30


@dataclass(frozen=True)
class Cifar:
    """Names of one data set: on the hub, and in Toronto's archive."""

    name: str
    num_classes: int
    hub_folder: str  # of the parquet files, in the hub's repository uoft-cs/NAME
    archive_folder: str
    train_files: tuple[str, ...]
    test_files: tuple[str, ...]
    meta_file: str
    names_key: str
    labels_key: str

    @property
    def archive(self) -> str:
        """File name of Toronto's archive."""
        return {10: "cifar-10-python.tar.gz", 100: "cifar-100-python.tar.gz"}[self.num_classes]


CIFAR10 = Cifar(
    name="cifar10",
    num_classes=10,
    hub_folder="plain_text",
    archive_folder="cifar-10-batches-py",
    train_files=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test_files=("test_batch",),
    meta_file="batches.meta",
    names_key="label_names",
    labels_key="labels",
)
CIFAR100 = Cifar(
    name="cifar100",
    num_classes=100,
    hub_folder="cifar100",
    archive_folder="cifar-100-python",
    train_files=("train",),
    test_files=("test",),
    meta_file="meta",
    names_key="fine_label_names",
    labels_key="fine_labels",
)
CIFARS = {cifar.name: cifar for cifar in (CIFAR10, CIFAR100)}


def find_cifar(cifar: Cifar, root: Path) -> Source | None:
    """Find the data set below `root`, in any layout; None if it is not there.

    Raises:
        InputError: if it is there but damaged.
    """
    for folder in _table_folders(cifar, root):
        tables = find_tables(folder)
        if all(tables.values()):
            return _table_source(cifar, tables)
    for place in (root, root / cifar.name):
        unpacked = place / cifar.archive_folder
        if (unpacked / cifar.meta_file).is_file():
            return _pickle_source(cifar, unpacked)
        if (place / cifar.archive).is_file():
            return _archive_source(cifar, place / cifar.archive)
    folder = root / cifar.name
    if (folder / "train").is_dir():
        source = folder_source(folder)
        return Source(cifar.name, source.identity, lambda size: _checked(cifar, source.read(size)))
    return None


def _table_folders(cifar: Cifar, root: Path) -> Iterator[Path]:
    snapshots = root.glob(f"datasets--uoft-cs--{cifar.name}/snapshots/*")  # the hub's own cache
    for place in (root / cifar.name, root / "uoft-cs" / cifar.name, *sorted(snapshots)):
        yield place
        yield place / cifar.hub_folder
        yield place / "data"


def _table_source(cifar: Cifar, tables: Tables) -> Source:
    paths = [path for split in tables.values() for path in split]
    return Source(cifar.name, _identity(paths), lambda _: _checked(cifar, table_contents(tables)))


def _pickle_source(cifar: Cifar, folder: Path) -> Source:
    names = (*cifar.train_files, *cifar.test_files, cifar.meta_file)
    for name in names:
        if not (folder / name).is_file():
            raise InputError(f"{folder} has no file {name}; unpack the archive again")

    def read(_: int | None) -> Contents:
        return _pickled_contents(cifar, lambda name: (str(folder / name), _bytes(folder / name)))

    return Source(cifar.name, _identity([folder / name for name in names]), read)


def _archive_source(cifar: Cifar, archive: Path) -> Source:
    def read(_: int | None) -> Contents:
        try:
            with tarfile.open(archive) as opened:
                return _pickled_contents(cifar, lambda name: _member(cifar, archive, opened, name))
        except (tarfile.TarError, EOFError, OSError) as error:
            raise InputError(
                f"{archive} is not a whole archive ({error}); delete it and fetch it again"
            ) from error

    return Source(cifar.name, _identity([archive]), read)


def _member(cifar: Cifar, archive: Path, opened: tarfile.TarFile, name: str) -> tuple[str, bytes]:
    """Read one member by its exact name: nothing is unpacked, no link or `..` is followed."""
    path = f"{cifar.archive_folder}/{name}"
    try:
        member = opened.getmember(path)
    except KeyError:
        raise InputError(f"{archive} has no {path}; delete it and fetch it again") from None
    content = opened.extractfile(member) if member.isfile() else None
    if content is None or member.size > MAX_MEMBER_BYTES:
        raise InputError(f"{path} in {archive} is no ordinary file; delete it and fetch it again")
    return f"{archive}:{path}", content.read()


def _pickled_contents(cifar: Cifar, fetch: Callable[[str], tuple[str, bytes]]) -> Contents:
    where, meta = fetch(cifar.meta_file)
    names = _unpickle(where, meta).get(cifar.names_key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{where} has no list {cifar.names_key}; fetch the data again")

    def pictures(files: tuple[str, ...]) -> Pictures:
        batches = [_batch(cifar, len(names), *fetch(file)) for file in files]

        def items() -> Iterator[Picture]:
            for (where, pixels, _), file in zip(batches, files, strict=True):
                for row, image in enumerate(pixels):
                    yield Picture(f"{file} ({where}), row {row}", image)

        return Pictures(np.concatenate([labels for _, _, labels in batches]), items)

    contents = Contents(tuple(names), pictures(cifar.train_files), pictures(cifar.test_files))
    return _checked(cifar, contents)


def _batch(
    cifar: Cifar, num_classes: int, where: str, content: bytes
) -> tuple[str, np.ndarray, np.ndarray]:
    """Return where it came from, uint8 (N, 32, 32, 3) and int64 (N,)."""
    batch = _unpickle(where, content)
    pixels, labels = batch.get("data"), batch.get(cifar.labels_key)
    if not (
        isinstance(pixels, np.ndarray)
        and pixels.dtype == np.uint8
        and pixels.ndim == 2
        and pixels.shape[1] == 3 * 32 * 32
        and isinstance(labels, list)
        and len(labels) == len(pixels) > 0
        and all(isinstance(label, int) and 0 <= label < num_classes for label in labels)
    ):
        raise InputError(
            f"{where} does not hold images as CIFAR's archive stores them "
            f"(data: N x 3072 bytes, {cifar.labels_key}: N numbers); fetch it again"
        )
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # (N, 3, 32, 32) -> NHWC
    return where, images, np.array(labels, np.int64)


def _checked(cifar: Cifar, contents: Contents) -> Contents:
    found = len(contents.class_names)
    if found != cifar.num_classes:
        raise InputError(
            f"the data found as {cifar.name} has {found} classes instead of {cifar.num_classes}; "
            "give other data as folder:PATH or parquet:PATH"
        )
    return Contents(contents.class_names, contents.train, contents.test, order_by_content=True)


def _identity(paths: list[Path]) -> Any:
    stats = [(str(path.resolve()), path.stat()) for path in paths]
    return [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check its mode") from error


def _unpickle(where: str, content: bytes) -> dict[str, Any]:
    try:
        value = _DataUnpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a damaged or hostile pickle can raise anything
        raise InputError(f"{where} is not a CIFAR file ({error}); fetch it again") from error
    if not isinstance(value, dict):
        raise InputError(f"{where} is not a CIFAR file (it holds no dict); fetch it again")
    return {k.decode("latin1") if isinstance(k, bytes) else str(k): v for k, v in value.items()}


def _encode_latin1(text: str, encoding: str) -> bytes:
    """How pickles of Python 3 in protocol 2 hold bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes text as {encoding}")
    return text.encode("latin1")


class _DataUnpickler(pickle.Unpickler):
    """Admits numpy arrays and plain values; a pickle may otherwise call any function."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _encode_latin1
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        if module in {"numpy.core.multiarray", "numpy._core.multiarray"} and (
            name == "_reconstruct"
        ):
            return np.ndarray.__reduce__(np.empty(0))[0]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no image data needs")
