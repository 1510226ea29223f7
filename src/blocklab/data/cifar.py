"""CIFAR-10 and CIFAR-100 in whichever layout they lie.

Below the data folder, for `cifar100` (and likewise `cifar10`), the first of:
  cifar100/train.parquet and test.parquet, or Hugging Face's shards, also as the hub nests them
  cifar-100-python/{train,test,meta}, as torchvision unpacks Toronto's archive
  cifar-100-python.tar.gz, read in place
  cifar100/train/CLASS/* and cifar100/test/CLASS/*
"""

import gzip
import io
import pickle
import pickletools
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from blocklab.data.folders import folder_source
from blocklab.data.pictures import Contents, Picture, Pictures, Source
from blocklab.data.table_files import Tables, find_tables, identify
from blocklab.data.tables import table_contents
from blocklab.errors import InputError, error_line

# The largest file of the data, CIFAR-100's `train`, has 155 MB, and all of it 187 MB.
MAX_MEMBER_BYTES = 200_000_000
MAX_ARCHIVE_BYTES = 400_000_000


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
    found = _found(cifar, root)
    if found is None:
        return None
    # Once its images were ordered by their pixels as stored, another order at each size.
    return replace(found, identity={"of": found.identity, "ordered by": "pixels as they come"})


def _found(cifar: Cifar, root: Path) -> Source | None:
    for folder in _table_folders(cifar, root):
        tables = find_tables(folder)
        if tables["train"] and tables["test"]:  # the data set has no images for validation
            return _table_source(cifar, {split: tables[split] for split in ("train", "test")})
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
    identity = identify([path for split in tables.values() for path in split])
    return Source(cifar.name, identity, lambda _: _checked(cifar, table_contents(tables)))


def _pickle_source(cifar: Cifar, folder: Path) -> Source:
    names = (*cifar.train_files, *cifar.test_files, cifar.meta_file)
    for name in names:
        if not (folder / name).is_file():
            raise InputError(f"{folder} has no file {name}; unpack the archive again")

    def read(_: int | None) -> Contents:
        return _pickled_contents(cifar, lambda name: (str(folder / name), _bytes(folder / name)))

    return Source(cifar.name, identify([folder / name for name in names]), read)


def _archive_source(cifar: Cifar, archive: Path) -> Source:
    def read(_: int | None) -> Contents:
        try:
            members = _members(cifar, archive)
        except InputError:
            raise
        except Exception as error:  # damaged bytes raise nearly anything
            raise InputError(
                f"{archive} is not a whole archive ({error_line(error, kind=False)}); "
                "delete it and fetch it again"
            ) from error
        return _pickled_contents(cifar, lambda name: (f"{archive}:{name}", members.pop(name)))

    return Source(cifar.name, identify([archive]), read)


def _members(cifar: Cifar, archive: Path) -> dict[str, bytes]:
    """Read the data's files by their exact names; nothing is unpacked, no link is followed."""
    names = (*cifar.train_files, *cifar.test_files, cifar.meta_file)
    wanted = {f"{cifar.archive_folder}/{name}": name for name in names}
    found: dict[str, bytes] = {}
    with gzip.open(archive) as unzipped:
        with tarfile.open(fileobj=unzipped, mode="r|") as opened:
            for member in opened:
                if member.size > MAX_MEMBER_BYTES or unzipped.tell() > MAX_ARCHIVE_BYTES:
                    raise ValueError("it unpacks to far more than this data set")
                if member.name in wanted and member.isfile():
                    content = opened.extractfile(member)
                    found[wanted[member.name]] = content.read() if content else b""
        while unzipped.tell() <= MAX_ARCHIVE_BYTES and unzipped.read(1 << 20):
            pass  # to the end, where the checksum stands
        if unzipped.tell() > MAX_ARCHIVE_BYTES:
            raise ValueError("it unpacks to far more than this data set")
    if absent := [path for path, name in wanted.items() if name not in found]:
        raise InputError(f"{archive} has no file {absent[0]}; delete it and fetch it again")
    return found


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
    data, labels = batch.get("data"), batch.get(cifar.labels_key)
    pixels = data.values if isinstance(data, _Array) else None
    if not (
        pixels is not None
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
    return replace(contents, validation=None, order_by_content=True)


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_MEMBER_BYTES:
            raise InputError(f"{path} is far larger than a file of CIFAR; fetch the data again")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check its mode") from error


def _unpickle(where: str, content: bytes) -> dict[str, Any]:
    try:
        for operation, argument, _ in pickletools.genops(content):
            # A note under a huge number makes the unpickler fill the memory with empty ones.
            if operation.name == "LONG_BINPUT" and int(argument or 0) > len(content):
                raise pickle.UnpicklingError("a number in it is too large")
        value = _DataUnpickler(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a damaged or hostile pickle can raise anything
        raise InputError(
            f"{where} is not a CIFAR file ({error_line(error, kind=False)}); fetch it again"
        ) from error
    if not isinstance(value, dict):
        raise InputError(f"{where} is not a CIFAR file (it holds no dict); fetch it again")
    return {k.decode("latin1") if isinstance(k, bytes) else str(k): v for k, v in value.items()}


def _encode_latin1(text: str, encoding: str) -> bytes:
    """How pickles of Python 3 in protocol 2 hold bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes text as {encoding}")
    return text.encode("latin1")


class _Array:
    """What a pickle may make of NumPy's array: one of bytes.

    Not NumPy's own, which a hostile pickle could make of any memory.
    """

    values: np.ndarray | None = None

    def __init__(self, *ignored: object) -> None:
        """NumPy's pickles make an empty array first; its state comes after."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _DType) or not dtype.is_byte:
            raise pickle.UnpicklingError("an array in it is not of bytes")
        if isinstance(content, str):  # of Python 2, whose text was bytes
            content = content.encode("latin1")
        order = "F" if fortran else "C"
        self.values = np.frombuffer(content, np.uint8).reshape(shape, order=order)


class _DType:
    """NumPy's type of an array's elements: bytes or not."""

    def __init__(self, name: str, *ignored: object) -> None:
        self.is_byte = name in ("u1", "|u1", "uint8")

    def __setstate__(self, state: object) -> None:
        """Byte order and the like, of which a byte has none."""


class _DataUnpickler(pickle.Unpickler):
    """Admits arrays of bytes and plain values; a pickle may otherwise call any function."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _encode_latin1
        if module == "numpy" and name in ("ndarray", "dtype"):
            return {"ndarray": _Array, "dtype": _DType}[name]
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and (
            name == "_reconstruct"
        ):
            return _Array
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no image data needs")
