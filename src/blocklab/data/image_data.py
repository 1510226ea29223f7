"""Open the data of a run: decoded images in three splits."""

from dataclasses import dataclass

from blocklab.data.cache import Store, open_store
from blocklab.data.sources import find_source
from blocklab.data.spec import DataSpec
from blocklab.data.split import (
    LIMIT_SEED,
    VALIDATION_SEED,
    Split,
    stratified_limit,
    stratified_split,
)
from blocklab.errors import InputError


@dataclass(frozen=True)
class ImageData:
    """Images to train, validate and test on.

    `validation` may be empty. `mean` and `std` are of all training images (those for validation
    included), per channel, in 0..1. `fingerprint` depends on the pixels and labels alone.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_size: int
    fingerprint: str


def open_data(spec: DataSpec) -> ImageData:
    """Find (or download), decode once, and split.

    Raises:
        InputError: if the data is not usable, or has fewer images than asked for.
        RunError: if a download fails or the cache cannot be written.
    """
    source = find_source(spec.source)
    store = open_store(source, spec.image_size)
    train, test = _whole(store, "train"), _whole(store, "test")
    kept, held = stratified_split(train.targets, spec.validation_fraction, VALIDATION_SEED)
    if spec.validation_fraction and not len(held):
        raise InputError(
            f"validation_fraction={spec.validation_fraction} of {len(train)} images is none; "
            "raise it, or set it to 0"
        )
    return ImageData(
        name=source.name,
        train=_limited(train.part(kept), spec.train_images, "train_images", len(held)),
        validation=train.part(held),
        test=_limited(test, spec.test_images, "test_images"),
        class_names=store.class_names,
        mean=store.mean,
        std=store.std,
        image_size=store.image_size,
        fingerprint=store.fingerprint,
    )


def _whole(store: Store, split: str) -> Split:
    images, labels, order, checksums = (
        store.arrays[f"{split}_{what}"] for what in ("images", "labels", "order", "crc32")
    )
    return Split(images, labels, order, checksums if store.check_images else None)


def _limited(split: Split, count: int | None, what: str, held: int = 0) -> Split:
    if count is None:
        return split
    note = f" ({held} more are set aside for validation)" if held else ""
    return split.part(stratified_limit(split.targets, count, LIMIT_SEED, what, note))
