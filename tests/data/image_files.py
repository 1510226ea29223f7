"""Makers of small data sets in every layout that blocklab reads."""

import io
import json
import pickle
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

HUB_FOLDERS = {"cifar10": "plain_text", "cifar100": "cifar100"}
FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
ARCHIVES = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}
LABELS = {"cifar10": "label", "cifar100": "fine_label"}
CLASSES = {"cifar10": 10, "cifar100": 100}


@dataclass
class Made:
    """Images uint8 (N, S, S, 3) and labels (N,) of both splits, and the classes' names."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray
    names: list[str]

    def splits(self) -> Iterable[tuple[str, np.ndarray, np.ndarray]]:
        yield "train", self.train, self.train_labels
        yield "test", self.test, self.test_labels


def make(rng: np.random.Generator, classes: int, train: int, test: int, size: int = 32) -> Made:
    """Random images, so many a class in each split, in a random order."""

    def split(each: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.permutation(np.repeat(np.arange(classes), each))
        return rng.integers(0, 256, (len(labels), size, size, 3), np.uint8), labels

    names = [f"class_{number:03}" for number in range(classes)]
    return Made(*split(train), *split(test), names)


def png(pixels: np.ndarray) -> bytes:
    return encoded(pixels, "PNG")


def encoded(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def write_table(
    path: Path,
    images: Iterable[bytes | None],
    labels: Iterable[Any],
    names: list[str] | None = None,
    image_column: str = "img",
    label_column: str = "label",
    checksums: bool = False,
) -> None:
    """One parquet file as Hugging Face writes it, with the names of the classes in its notes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = [None if i is None else {"bytes": i, "path": None} for i in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({image_column: pa.array(pictures, kind), label_column: list(labels)})
    if names is not None:
        features = {label_column: {"names": names, "_type": "ClassLabel"}}
        note = {"info": {"features": features}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(note)})
    pq.write_table(table, path, write_page_checksum=checksums)


def write_parquet(made: Made, folder: Path, label_column: str = "label", **options: Any) -> None:
    for split, images, labels in made.splits():
        path = folder / f"{split}.parquet"
        write_table(path, map(png, images), labels, made.names, "img", label_column, **options)


def write_shards(made: Made, folder: Path, label_column: str = "label", shards: int = 3) -> None:
    for split, images, labels in made.splits():
        parts = zip(np.array_split(images, shards), np.array_split(labels, shards), strict=True)
        for number, (some, theirs) in enumerate(parts):
            path = folder / f"{split}-{number:05}-of-{shards:05}.parquet"
            write_table(path, map(png, some), theirs, made.names, "img", label_column)


def write_hub_cache(made: Made, root: Path, name: str) -> None:
    """As huggingface_hub keeps a data set: blobs, and a snapshot of links to them."""
    place = root / f"datasets--uoft-cs--{name}"
    write_parquet(made, place / "blobs", LABELS[name])
    snapshot = place / "snapshots" / "0123abcd" / HUB_FOLDERS[name]
    snapshot.mkdir(parents=True)
    for split in ("train", "test"):
        link = snapshot / f"{split}-00000-of-00001.parquet"
        link.symlink_to(Path("../../../blobs") / f"{split}.parquet")


def pickles(made: Made, name: str) -> dict[str, bytes]:
    """Toronto's files by name; CIFAR-10 has five for training."""
    key = "labels" if name == "cifar10" else "fine_labels"

    def batch(images: np.ndarray, labels: np.ndarray) -> bytes:
        flat = images.transpose(0, 3, 1, 2).reshape(len(images), -1)  # (N, 3 * 32 * 32)
        return pickle.dumps({b"data": flat, key.encode(): labels.tolist()}, protocol=2)

    names = {b"label_names" if name == "cifar10" else b"fine_label_names": made.names}
    if name == "cifar100":
        return {
            "train": batch(made.train, made.train_labels),
            "test": batch(made.test, made.test_labels),
            "meta": pickle.dumps(names, protocol=2),
        }
    parts = zip(np.array_split(made.train, 5), np.array_split(made.train_labels, 5), strict=True)
    files = {f"data_batch_{n}": batch(*part) for n, part in enumerate(parts, 1)}
    files["test_batch"] = batch(made.test, made.test_labels)
    files["batches.meta"] = pickle.dumps(names, protocol=2)
    return files


def write_pickles(made: Made, root: Path, name: str) -> None:
    folder = root / FOLDERS[name]
    folder.mkdir(parents=True)
    for file, content in pickles(made, name).items():
        (folder / file).write_bytes(content)


def write_archive(made: Made, root: Path, name: str) -> None:
    members = {f"{FOLDERS[name]}/{file}": text for file, text in pickles(made, name).items()}
    write_tar(root / ARCHIVES[name], members)


def write_tar(path: Path, members: Mapping[str, bytes | tarfile.TarInfo]) -> None:
    """An archive of files, or of ready entries (a link, say)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def write_class_folders(made: Made, folder: Path, test: str = "test") -> None:
    for split, images, labels in made.splits():
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            place = folder / (split if split == "train" else test) / made.names[label]
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number:05}.png").write_bytes(png(image))


def write_classes(folder: Path, counts: dict[str, int], rng: np.random.Generator) -> None:
    """Class folders without train and test, of random 8x8 images."""
    for name, count in counts.items():
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
            (place / f"{number}.png").write_bytes(png(pixels))
