"""Open the data of a run: decoded images in three splits."""

import logging
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import parent_process
from typing import Self

import numpy as np

from blocklab.data.cache import SPLITS, Store, open_store
from blocklab.data.faults import first_few
from blocklab.data.left_out import without_copies
from blocklab.data.pictures import Source
from blocklab.data.sources import find_source
from blocklab.data.spec import DataSpec
from blocklab.data.split import (
    LIMIT_SEED,
    VALIDATION_SEED,
    Split,
    seed_of_run,
    stratified_limit,
    stratified_split,
)
from blocklab.data.tables import Columns
from blocklab.errors import InputError, printable


@dataclass(frozen=True)
class ImageData:
    """Images to train, validate and test on.

    `validation` may be empty. `mean` and `std` are of all training images (those set aside for
    validation included), per channel, in 0..1. `fingerprint` depends on the pixels and labels
    alone. `image_size` is what is trained at; the splits' pictures may be kept larger. `notes` are
    for the user to read. `test_left_out` are test images that have a copy in training and are not
    in `test`; None where none were looked for.
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
    notes: tuple[str, ...] = ()
    test_left_out: int | None = None

    def of_classes(self, class_names: tuple[str, ...]) -> Self:
        """Number the labels as these classes are, by name; some may have no images here.

        Raises:
            InputError: if there is a class that is none of these.
        """
        if self.class_names == class_names:
            return self
        numbers = {name: number for number, name in enumerate(class_names)}
        other = sorted(set(self.class_names) - set(numbers))
        if other or len(numbers) < len(class_names):
            raise InputError(
                f"{self.name} has other classes ({first_few(other, most=3)}) than the run "
                f"({first_few(class_names, most=3)}); give images of the same classes, in folders "
                "of the same names"
            )
        table = np.array([numbers[name] for name in self.class_names], np.int64)
        splits = {
            name: replace(split, labels=table[split.labels])
            for name in ("train", "validation", "test")
            if len((split := getattr(self, name)).labels)
        }
        return replace(self, class_names=class_names, **splits)


def open_data(spec: DataSpec, measure: bool = False, seed: int = 0) -> ImageData:
    """Find (or download), decode once, and split.

    With `measure`, images that are in no splits are all for testing, there may be test images
    alone, and none are set aside for validation. `seed` is the run's, by which images are split
    where `spec` says that they vary with it; how many there are never depends on it.

    Raises:
        InputError: if the data is not usable, or has fewer images than asked for.
        RunError: if a download fails or the cache cannot be written.
    """
    columns = Columns(spec.image_column, spec.label_column)
    source = find_source(spec.source, spec.splits, columns, spec.exif, measure)
    store = open_store(source, spec.kept_size or spec.image_size, draft=spec.kept_size is not None)
    if not measure:
        _check_varied(source, store)
    train, test = whole_split(store, "train"), whole_split(store, "test")
    notes = source.notes
    seeds = VALIDATION_SEED, LIMIT_SEED
    if spec.vary_split:
        seeds = seed_of_run(VALIDATION_SEED, seed), seed_of_run(LIMIT_SEED, seed)
    if "validation_images" in store.arrays:
        kept, held, validation = train, 0, whole_split(store, "validation")
        if spec.validation_fraction and not measure:
            notes += (
                f"{source.name} has {len(validation):,} validation images of its own, which are "
                f"used: validation_fraction={spec.validation_fraction} does not apply",
            )
        if spec.vary_split and spec.train_images is None and not measure:
            raise InputError(
                f"{source.name} has validation images of its own, so vary_split has nothing to "
                "vary; leave it out, or set train_images"
            )
    else:
        fraction = 0 if measure else spec.validation_fraction
        stays, held_out = stratified_split(train.targets, fraction, seeds[0])
        if fraction and not len(held_out):
            raise InputError(
                f"validation_fraction={fraction} of {len(train)} images is none; "
                "raise it, or set it to 0"
            )
        kept, held, validation = train.part(stays), len(held_out), train.part(held_out)
    left_out = None
    if spec.exclude_duplicates and not measure:
        among = len(test)
        test = without_copies(store, train, test)
        left_out = among - len(test)
        if not len(test):
            raise InputError(
                f"every test image of {source.name} has a copy among its training images, so "
                "exclude_duplicates leaves none; look at `blocklab data check`"
            )
    _say(notes)
    return ImageData(
        name=source.name,
        train=_limited(kept, spec.train_images, "train_images", held, seeds[1]),
        validation=validation,
        test=_limited(test, spec.test_images, "test_images"),
        class_names=store.class_names,
        mean=store.mean,
        std=store.std,
        image_size=spec.image_size or store.image_size,
        fingerprint=store.fingerprint,
        notes=notes,
        test_left_out=left_out,
    )


def _check_varied(source: Source, store: Store) -> None:
    """Refuse what nothing can be learned from; CRC-32s are there, so this costs next to nothing."""
    if len(store.class_names) < 2:
        raise InputError(
            f"{source.name} has one class alone ({', '.join(store.class_names)}), which leaves "
            "nothing to tell apart; give data of two classes or more"
        )
    for split in SPLITS:
        checksums = store.arrays.get(f"{split}_crc32", np.empty(0))
        if len(checksums) > 1 and (checksums == checksums[0]).all():
            raise InputError(
                f"all {len(checksums):,} {split} images of {source.name} are alike, each pixel of "
                "them; look at the files (values of few bits in files of many come out black)"
            )


@cache
def _say(notes: tuple[str, ...]) -> None:
    """Show notes, once: as warnings of Python's logging, which are lines on stderr by default."""
    if parent_process() is None:  # the processes that a study starts would say the same again
        for note in notes:
            logging.getLogger("blocklab.data").warning("%s", printable(note))


def whole_split(store: Store, split: str) -> Split:
    """Return all images of a split of a store, in their canonical order."""
    images, labels, order, checksums = (
        store.arrays[f"{split}_{what}"] for what in ("images", "labels", "order", "crc32")
    )
    return Split(images, labels, order, checksums if store.check_images else None)


def _limited(
    split: Split, count: int | None, what: str, held: int = 0, seed: int = LIMIT_SEED
) -> Split:
    if count is None:
        return split
    note = f" ({held} more are set aside for validation)" if held else ""
    return split.part(stratified_limit(split.targets, count, seed, what, note))
