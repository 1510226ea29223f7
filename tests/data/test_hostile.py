"""Data made to harm: nothing in it runs, leaves its folder or fills the memory."""

import gzip
import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_files import make, pickles, png, write_archive, write_pickles, write_table, write_tar

from blocklab.data.image_data import open_data
from blocklab.data.sources import portable_address
from blocklab.data.spec import DataSpec
from blocklab.errors import InputError

ODD_NAMES = [
    "<script>alert(1)</script>".replace("/", "\u2215"),
    "line\nbreak",
    "tab\tand \x1b[31mescape",
    "=HYPERLINK(1)",
    "ünï ☃",
    "{{ 7 * 7 }} ${x} %s",
]


def test_odd_class_names_survive_as_data(data: Path, rng: np.random.Generator) -> None:
    for name in ODD_NAMES:
        (data / "set" / name).mkdir(parents=True)
        for number in range(5):
            pixels = rng.integers(0, 256, (4, 4, 3), np.uint8)
            (data / "set" / name / f"{number}.png").write_bytes(png(pixels))
    for _ in range(2):  # decoded, then out of the cache
        opened = open_data(DataSpec(source=f"folder:{data / 'set'}", validation_fraction=0))
        assert opened.class_names == tuple(sorted(ODD_NAMES))


def test_odd_class_names_in_a_table(data: Path, rng: np.random.Generator) -> None:
    images = [png(rng.integers(0, 256, (4, 4, 3), np.uint8)) for _ in ODD_NAMES]
    for split in ("train", "test"):
        write_table(data / "set" / f"{split}.parquet", images, ODD_NAMES)
    opened = open_data(DataSpec(source=f"parquet:{data / 'set'}", validation_fraction=0))
    assert opened.class_names == tuple(sorted(ODD_NAMES))


def test_names_that_are_no_text_are_written_as_escapes(
    data: Path, rng: np.random.Generator
) -> None:
    for name in (b"caf\xe9", b"tea"):
        place = os.path.join(os.fsencode(data), b"set", name)
        os.makedirs(place)
        for number in range(5):
            pixels = rng.integers(0, 256, (4, 4, 3), np.uint8)
            with open(os.path.join(place, b"\xff%d.png" % number), "wb") as file:
                file.write(png(pixels))
    opened = open_data(DataSpec(source=f"folder:{data / 'set'}", validation_fraction=0))
    assert opened.class_names == (r"caf\xe9", "tea")
    "".join(opened.class_names).encode()
    assert portable_address(f"folder:{data / 'set'}").isascii()
    (data / "set" / "tea" / "x.png").write_bytes(b"damaged")
    (data / "set" / os.fsdecode(b"caf\xe9") / "x.png").write_bytes(b"damaged")
    with pytest.raises(InputError) as caught:
        open_data(DataSpec(source=f"folder:{data / 'set'}"))
    str(caught.value).encode()


class Runs:
    """A pickle of it runs a command when it is loaded."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def _global(module: str, name: str, arguments: bytes = b"(") -> bytes:
    return b"c" + f"{module}\n{name}\n".encode() + arguments + b"tR."


HOSTILE: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "os.system": (
        lambda mark: pickle.dumps(Runs(os.system, f"touch {mark}"), 2), r"asks for posix\.system",
    ),
    "eval": (
        lambda mark: pickle.dumps(Runs(eval, f"open({str(mark)!r}, 'w')"), 2), "asks for .*eval",
    ),
    "inside the data": (
        lambda mark: pickle.dumps({"data": Runs(os.system, f"touch {mark}")}, 2), "asks for posix",
    ),
    "open": (lambda mark: pickle.dumps(Runs(open, str(mark), "w"), 2), r"asks for \w*io\.open"),
    "an attribute of a module": (
        lambda mark: _global("numpy", "testing.measure"), r"asks for numpy\.testing",
    ),
    "memory as an array": (  # NumPy's own class would make objects of any address
        lambda mark: _global(
            "numpy", "ndarray",
            b"((I1\ntcnumpy\ndtype\n(S'O'\ntRS'AAAAAAAA'\n",
        ),
        "is not a CIFAR file",
    ),
    "an array of objects": (
        lambda mark: pickle.dumps({"data": np.array([None, {}], object)}, 2), "not of bytes",
    ),
    "an array of floats": (
        lambda mark: pickle.dumps({"data": np.zeros((1, 3072))}, 2), "not of bytes",
    ),
    "a huge note": (lambda mark: b"\x80\x02Nr\xff\xff\xff\xff.", "a number in it is too large"),
    "huge text": (lambda mark: b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f" + b"x.", "not a CIFAR file"),
    "deep": (lambda mark: b"(" * 100_000 + b"l" * 100_000 + b".", "is not a CIFAR file"),
    "a list": (lambda mark: pickle.dumps([1], 2), "it holds no dict"),
    "nothing": (lambda mark: b"", "is not a CIFAR file"),
    "no pickle": (lambda mark: b"hello\n", "is not a CIFAR file"),
    "a persistent name": (lambda mark: b"Pname\n.", "is not a CIFAR file"),
    "an extension": (lambda mark: b"\x80\x02\x82\x01.", "is not a CIFAR file"),
}  # fmt: skip


@pytest.mark.parametrize("place", ["file", "archive"])
@pytest.mark.parametrize("case", HOSTILE)
def test_pickles_run_nothing(
    case: str, place: str, data: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    content, message = HOSTILE[case]
    mark = tmp_path / "mark"
    made = make(rng, 100, train=1, test=1)
    if place == "file":
        write_pickles(made, data, "cifar100")
        (data / "cifar-100-python" / "train").write_bytes(content(mark))
    else:
        files = pickles(made, "cifar100") | {"train": content(mark)}
        members = {f"cifar-100-python/{name}": body for name, body in files.items()}
        write_tar(data / "cifar-100-python.tar.gz", members)
    with pytest.raises(InputError, match=message) as caught:
        open_data(DataSpec(source="cifar100"))
    assert str(caught.value).endswith("fetch it again") and str(caught.value).isprintable()
    assert not mark.exists()


WRONG: dict[str, tuple[str, object]] = {
    "no pixels": ("data", None),
    "too few pixels": ("data", np.zeros((100, 3071), np.uint8)),
    "pixels with another shape": ("data", np.zeros((100, 32, 32, 3), np.uint8)),
    "no labels": ("fine_labels", None),
    "too few labels": ("fine_labels", [0] * 99),
    "a label too large": ("fine_labels", [0] * 99 + [100]),
    "a negative label": ("fine_labels", [0] * 99 + [-1]),
    "labels as text": ("fine_labels", ["0"] * 100),
}


@pytest.mark.parametrize("case", WRONG)
def test_pickles_that_hold_something_else(case: str, data: Path, rng: np.random.Generator) -> None:
    key, value = WRONG[case]
    write_pickles(make(rng, 100, train=1, test=1), data, "cifar100")
    path = data / "cifar-100-python" / "train"
    path.write_bytes(
        pickle.dumps(pickle.loads(path.read_bytes(), encoding="latin1") | {key: value})
    )
    with pytest.raises(InputError, match="does not hold images as CIFAR's archive stores them"):
        open_data(DataSpec(source="cifar100"))


def _link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def test_an_archive_writes_nothing_and_follows_nothing(
    data: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Names with `..`, absolute names, links and devices lie beside the data: passed over."""
    made = make(rng, 100, train=1, test=1)
    files = {f"cifar-100-python/{name}": body for name, body in pickles(made, "cifar100").items()}
    device = tarfile.TarInfo("cifar-100-python/device")
    device.type = tarfile.CHRTYPE
    odd = {
        "../escaped": b"x",
        str(tmp_path / "absolute"): b"x",
        "cifar-100-python/../../escaped": b"x",
        "link": _link("cifar-100-python/link", "/etc/passwd"),
        "device": device,
    }
    write_tar(data / "cifar-100-python.tar.gz", {**odd, **files})
    before = sorted(path for path in tmp_path.rglob("*"))
    opened = open_data(DataSpec(source="cifar100", validation_fraction=0))
    assert len(opened.train) == 100
    new = set(tmp_path.rglob("*")) - set(before)
    assert new and all(path.is_relative_to(tmp_path / "cache") for path in new)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE])
def test_a_link_in_place_of_data(kind: bytes, data: Path, rng: np.random.Generator) -> None:
    made = make(rng, 100, train=1, test=1)
    files = {f"cifar-100-python/{name}": body for name, body in pickles(made, "cifar100").items()}
    link = _link("cifar-100-python/train", "/etc/passwd", kind)
    write_tar(data / "cifar-100-python.tar.gz", {**files, "cifar-100-python/train": link})
    with pytest.raises(
        InputError, match=r"has no file cifar-100-python/train; delete it and fetch"
    ):
        open_data(DataSpec(source="cifar100"))


def _zeros(path: Path, size: int) -> None:
    """An archive whose first entry is so many zeros: a thousandth of it on the disk."""
    entry = tarfile.TarInfo("padding")
    entry.size = size
    path.write_bytes(gzip.compress(entry.tobuf()) + gzip.compress(bytes(1 << 20)) * (size >> 20))


def test_an_archive_that_unpacks_to_far_more(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _zeros(data / "cifar-100-python.tar.gz", 2 << 30)
    with pytest.raises(InputError, match="it unpacks to far more than this data set"):
        open_data(DataSpec(source="cifar100"))
    monkeypatch.setattr("blocklab.data.cifar.MAX_ARCHIVE_BYTES", 4 << 20)
    _zeros(data / "cifar-100-python.tar.gz", 8 << 20)
    with pytest.raises(InputError, match="it unpacks to far more than this data set"):
        open_data(DataSpec(source="cifar100"))


def test_a_pickle_far_larger_than_the_data(data: Path, rng: np.random.Generator) -> None:
    write_pickles(make(rng, 10, train=2, test=1), data, "cifar10")
    os.truncate(data / "cifar-10-batches-py" / "data_batch_3", 1 << 40)  # a hole takes no room
    with pytest.raises(InputError, match="data_batch_3 is far larger than a file of CIFAR; fetch"):
        open_data(DataSpec(source="cifar10"))


def test_members_of_an_archive_are_no_larger_than_the_datas(
    data: Path, rng: np.random.Generator
) -> None:
    members = dict(pickles(make(rng, 10, train=2, test=1), "cifar10"))
    members["data_batch_1"] += bytes(201_000_000)
    write_tar(
        data / "cifar-10-python.tar.gz",
        {f"cifar-10-batches-py/{name}": content for name, content in members.items()},
    )
    with pytest.raises(InputError, match="it unpacks to far more than this data set"):
        open_data(DataSpec(source="cifar10"))


@pytest.mark.parametrize("damage", ["cut", "trailer", "middle", "plain tar", "empty", "text"])
def test_a_damaged_archive(damage: str, data: Path, rng: np.random.Generator) -> None:
    write_archive(make(rng, 100, train=1, test=1), data, "cifar100")
    path = data / "cifar-100-python.tar.gz"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        del content[-2000:]
    elif damage == "trailer":
        content[-6] ^= 1
    elif damage == "middle":
        content[len(content) // 2] ^= 1
    elif damage == "plain tar":
        content = bytearray(gzip.decompress(content))
    elif damage == "empty":
        content.clear()
    else:
        content = bytearray(b"<html>Too many requests</html>")
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"fetch it again$") as caught:
        open_data(DataSpec(source="cifar100"))
    assert str(caught.value).isprintable()


def test_the_stand_ins_read_what_numpy_writes() -> None:
    """Both orders of memory, and both spellings of NumPy's module."""
    from blocklab.data.cifar import _DataUnpickler

    rows = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for array in (rows, np.asfortranarray(rows)):
        for content in (
            pickle.dumps(array, 2),
            pickle.dumps(array, 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"),
        ):
            read = _DataUnpickler(io.BytesIO(content), encoding="latin1").load()
            assert (read.values == rows).all()
