"""Stratified splits and limits, always the same ones.

Each has a fixed seed of its own: which images test never depends on the seed of a run, so that runs
are compared on the same images; which validate and train does only where a run asks for it.
"""

import zlib
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from blocklab.errors import InputError, RunError

VALIDATION_SEED = 20_110
TEST_SEED = 20_111
LIMIT_SEED = 20_112


def seed_of_run(fixed: int, run_seed: int) -> int:
    """Return the seed by which a run of this seed splits, in place of a fixed one."""
    return int(np.random.SeedSequence([fixed, run_seed]).generate_state(1)[0])


@dataclass(frozen=True)
class Split:
    """Some rows of a store of images; nothing is copied.

    `images` uint8 (M, H, W, 3) and `labels` int64 (M,) are the whole store; `indices` int64 (N,)
    are the rows of this split, in its order. `targets` are its N labels. `checksums` uint32 (M,)
    are the images' CRC-32 where they are still to be checked when they are first read (see
    cache.py), and `checked` bool (M,), which all parts of a split share, says which have been.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    checksums: np.ndarray | None = None
    checked: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Begin with no image checked."""
        if self.checksums is not None and self.checked is None:
            object.__setattr__(self, "checked", np.zeros(len(self.checksums), bool))

    @classmethod
    def whole(cls, images: np.ndarray, labels: np.ndarray) -> Self:
        """Return the split of all rows."""
        return cls(images, labels, np.arange(len(labels)))

    @property
    def targets(self) -> np.ndarray:
        """Labels of this split, int64 (N,)."""
        return self.labels[self.indices]

    def __len__(self) -> int:
        """Return the number of images N."""
        return len(self.indices)

    def part(self, places: np.ndarray) -> Self:
        """Return the split of some of its images, by their places in its order."""
        return replace(self, indices=self.indices[places])

    def pixels(self, places: np.ndarray | slice) -> np.ndarray:
        """Copy some images out of the store, uint8 (n, H, W, 3), by their places in its order.

        Raises:
            RunError: if one is not as it was written.
        """
        rows = self.indices[places]
        images = np.take(self.images, rows, axis=0)
        if self.checksums is not None and self.checked is not None:
            for place in np.flatnonzero(~self.checked[rows]):
                row = rows[place]
                if zlib.crc32(images[place]) != self.checksums[row]:
                    file = getattr(self.images.base, "filename", "the cache")
                    raise RunError(f"image {row} of {file} is damaged; delete it and run again")
                self.checked[row] = True
        return images


def stratified_split(
    labels: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out round(fraction * N) of N rows, each class in proportion.

    Returns (kept, held out): sorted row numbers, int64. A class never loses its last row, so fewer
    are held out where classes are that small.
    """
    if not 0 <= fraction < 1:
        raise InputError(f"a fraction to hold out must be at least 0 and under 1 (got {fraction})")
    counts = np.bincount(labels)
    wanted = round(fraction * len(labels))
    quotas = _quotas(counts, wanted, np.zeros_like(counts), np.maximum(counts - 1, 0))
    held = np.zeros(len(labels), bool)
    held[_choose(labels, quotas, seed)] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def stratified_limit(
    labels: np.ndarray, count: int, seed: int, what: str, note: str = ""
) -> np.ndarray:
    """Choose `count` of N rows, each class in proportion and with at least one row.

    Returns sorted row numbers, int64 (count,). `what` names the setting in an
    error, and `note` is added to how many there are.

    Raises:
        InputError: if there are fewer rows than that, or more classes.
    """
    counts = np.bincount(labels)
    classes = int((counts > 0).sum())
    if count > len(labels):
        raise InputError(
            f"{what}={count}, but there are {len(labels)} images{note}; ask for at most that"
        )
    if count < classes:
        raise InputError(f"{what}={count} is fewer than the {classes} classes; ask for one a class")
    quotas = _quotas(counts, count, np.minimum(counts, 1), counts)
    return np.sort(_choose(labels, quotas, seed))


def _quotas(counts: np.ndarray, total: int, least: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Share `total` over the classes by largest remainders, between `least` and `most` each."""
    exact = counts * (total / max(1, counts.sum()))
    quotas = np.clip(np.floor(exact + 1e-9).astype(np.int64), least, most)
    total = min(total, int(most.sum()))
    while (missing := total - int(quotas.sum())) != 0:
        step = 1 if missing > 0 else -1
        room = quotas < most if step > 0 else quotas > least
        # The classes furthest from their exact share move first; ties go to the lower number.
        order = np.argsort(-step * (exact - quotas), kind="stable")
        order = order[room[order]][: abs(missing)]
        quotas[order] += step
    return quotas


def _choose(labels: np.ndarray, quotas: np.ndarray, seed: int) -> np.ndarray:
    # NumPy promises this old generator's numbers for ever, the newer one's not.
    shuffled = np.random.RandomState(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels, minlength=len(quotas))
    starts = np.cumsum(counts) - counts
    parts = [by_class[s : s + q] for s, q in zip(starts, quotas, strict=True)]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)
