"""What a trained network said of each test image: the arrays of a run's predictions.npz."""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# What an archive may unpack to: labels in order pack well, so it is bytes an image that count.
BYTES_AN_IMAGE, BYTES_OF_NAMES = 64, 1 << 20

Bits = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, eq=False)
class PerImage:
    """What a trained network said of each test image.

    `correct` is (N,) bool, of the first class named. `bits` holds the name, length and CRC-32 of
    each array (labels, five classes, loss); `order` is that of the labels, which two runs share
    where they were tested on the same images in the same order. `figures` are the accuracies (%)
    and the loss that the arrays give, by their names in result.json.
    """

    correct: NDArray[np.bool_]
    bits: Bits
    order: int
    figures: Mapping[str, float] = field(default_factory=dict)


def pack(arrays: Mapping[str, np.ndarray], compressed: bool = True) -> bytes:
    """Return the content of predictions.npz, or the like."""
    buffer = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack(
    content: bytes, images: int, bytes_an_image: int = BYTES_AN_IMAGE
) -> dict[str, np.ndarray]:
    """Read the arrays of predictions.npz, or the like, which are of so many test images.

    Raises:
        ValueError: if it is damaged, or unpacks to more than that.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            unpacked = sum(member.file_size for member in archive.zip.infolist())
            if unpacked > BYTES_OF_NAMES + bytes_an_image * images:
                raise ValueError(f"it unpacks to {unpacked:,} bytes for {images:,} images")
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # a damaged archive fails in many ways
        raise ValueError(f"{type(error).__name__}: {error}".removesuffix(": ")) from error


def read_per_image(content: bytes, images: int) -> PerImage:
    """Read predictions.npz, of so many test images, as far as results go by it.

    Raises:
        ValueError: if it is damaged, or its arrays do not belong together.
    """
    arrays = unpack(content, images)
    if missing := {"labels", "top5", "loss"} - arrays.keys():
        raise ValueError(f"it has no {min(missing)}")
    labels, top, loss = arrays["labels"], arrays["top5"], arrays["loss"]
    if labels.ndim != 1 or top.ndim != 2 or len(top) != len(labels) or not top.size:
        raise ValueError(f"labels {labels.shape} and top5 {top.shape} do not belong together")
    if loss.shape != labels.shape:
        raise ValueError(f"labels {labels.shape} and loss {loss.shape} do not belong together")
    if (labels.dtype.kind, top.dtype.kind, loss.dtype.kind) != ("i", "i", "f"):
        raise ValueError(f"its types are {labels.dtype}, {top.dtype} and {loss.dtype}")
    hits = top == labels[:, None]  # (N, 5)
    figures = {
        "test_top1_percent": 100 * int(hits[:, 0].sum()) / len(labels),
        "test_top5_percent": 100 * int(hits.any(1).sum()) / len(labels),
        "test_loss": float(loss.mean(dtype=np.float64)),
    }
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(one.filename, one.file_size, one.CRC) for one in archive.infolist()]
    order = next(crc for name, _, crc in members if name == "labels.npy")
    return PerImage(hits[:, 0], tuple(sorted(members)), order, figures)
