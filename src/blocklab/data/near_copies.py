"""Images of one split that are copies of another's: the same pixels, or nearly so.

Two images are alike as their pixels correlate once each channel's mean is taken away, so that
neither brightness, contrast nor a cast of colour hides a copy. Larger images are reduced to 32x32
first, and the mirror image counts too, since training mirrors. At the default of 0.98 every pair
that was found in CIFAR-100 is one picture (see docs/data.md); below 0.975 come different pictures
of sky above land.

All pairs are compared, in blocks, as matrix products of 8x8 block means. Those means, suitably
scaled, are an orthogonal projection of the pixels, so the distance of two images is never smaller
than that of their projections: what is ruled out by them is no copy, and what is left is compared
pixel by pixel, in double precision. Memory does not grow with the images that are looked through.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from blocklab.data.split import Split

SIMILAR = 0.98
LARGEST_SIDE, COARSE_SIDE = 32, 8  # compared at this size, after a first look at that one
LEAST_CONTRAST = 1.0  # levels of 255, root mean square: below it an image is one colour
IMAGES_AT_ONCE, ROWS_AT_ONCE = 4096, 1024  # of a block of pairs
MOST_HELD = 65_536  # images whose 8x8 means are held in memory
ROUNDING = 1e-4  # of single precision, in a squared distance


@dataclass(frozen=True)
class Copies:
    """For each of N images, in its split's order, the image that is most like it, if it is a copy.

    `closest` int64 (N,) is that image's place in the other split, -1 where there is no copy;
    `similarity` float64 (N,) their correlation, at most 1; `exact` bool (N,) whether all pixels are
    the same and `mirrored` bool (N,) whether one is the other's mirror image. `count` int64 (N,)
    are how many copies there are, `other_label` int64 (N,) how many of them have another label.
    """

    closest: np.ndarray
    similarity: np.ndarray
    exact: np.ndarray
    mirrored: np.ndarray
    count: np.ndarray
    other_label: np.ndarray

    @classmethod
    def none(cls, images: int) -> "Copies":
        """Begin with no copy of any of so many images."""
        return cls(
            np.full(images, -1, np.int64),
            np.zeros(images),
            np.zeros(images, bool),
            np.zeros(images, bool),
            np.zeros(images, np.int64),
            np.zeros(images, np.int64),
        )

    @property
    def places(self) -> np.ndarray:
        """Places of the images that have a copy, int64, rising."""
        return np.flatnonzero(self.count)


def find_copies(
    images: Split,
    among: Split | None = None,
    similar: float = SIMILAR,
    advance: Callable[[int], None] | None = None,
) -> Copies:
    """Find the images that have a copy in another split, or among those that come before them.

    Args:
        images: whose copies are looked for.
        among: where; None is each image's predecessors in the same split.
        similar: from which correlation on two images are copies, above 0 and up to 1.
        advance: is told how many pairs more have been compared.

    Raises:
        RunError: if an image of the cache is damaged.
    """
    found = Copies.none(len(images))
    for start in range(0, len(images), MOST_HELD):
        rows = slice(start, min(start + MOST_HELD, len(images)))
        held = _Held.of(images, rows)
        others = images.part(np.arange(rows.stop)) if among is None else among
        for place, block in _blocks(others, IMAGES_AT_ONCE):
            looks = _Looks.of(block)
            labels = others.targets[place : place + len(block)]
            for first in range(0, len(held.digests), ROWS_AT_ONCE):
                part = slice(first, first + ROWS_AT_ONCE)
                if among is None and start + min(part.stop, len(held.digests)) <= place:
                    continue  # all of them come before these
                near = held.near(part, looks.coarse, similar)
                if among is None:
                    near &= start + first + np.arange(len(near))[:, None] > place + np.arange(
                        len(block)
                    )
                if near.any():
                    ours = first + np.flatnonzero(near.any(1))
                    theirs = np.flatnonzero(near.any(0))
                    pairs = near[np.ix_(ours - first, theirs)]
                    _note(found, images, start + ours, looks, place, theirs, labels, pairs, similar)
            if advance is not None:
                advance(len(block) * len(held.digests))
    return found


@dataclass(frozen=True)
class _Looks:
    """How n images look: `fine` float64 (n, F), of norm 1, or of 0 where an image is one colour.

    `coarse` float32 (n, C) is its projection; `digests` uint64 (n,) tell pixels apart.
    """

    fine: np.ndarray
    coarse: np.ndarray
    digests: np.ndarray

    @classmethod
    def of(cls, pixels: np.ndarray) -> "_Looks":
        """Take uint8 (n, S, S, 3)."""
        digests = [hashlib.blake2b(one.tobytes(), digest_size=8) for one in pixels]
        numbers = np.frombuffer(b"".join(d.digest() for d in digests), np.uint64)
        side = pixels.shape[1]
        size = min(side, LARGEST_SIDE)
        if side > size:
            means = _block_means(side, size)
            fine = np.einsum("is,nstc,jt->nijc", means, pixels, means, optimize=True)
        else:
            fine = pixels.astype(np.float64)
        fine = fine - fine.mean((1, 2), keepdims=True)
        norms = np.sqrt((fine**2).sum((1, 2, 3)))
        # Means scaled to be a projection are side / size times as large as means of pixels.
        flat = norms < LEAST_CONTRAST * np.sqrt(3 * size * size) * (side / size)
        fine = fine * np.where(flat, 0.0, 1 / np.where(flat, 1.0, norms))[:, None, None, None]
        means = _block_means(size, min(size, COARSE_SIDE)).astype(np.float32)
        coarse = np.einsum("is,nstc,jt->nijc", means, fine.astype(np.float32), means, optimize=True)
        return cls(fine.reshape(len(fine), -1), coarse.reshape(len(fine), -1), numbers)


@dataclass(frozen=True)
class _Held:
    """The coarse looks of many images as they are and mirrored, float32 (n, C), and digests."""

    coarse: np.ndarray
    mirrored: np.ndarray
    digests: np.ndarray

    @classmethod
    def of(cls, images: Split, rows: slice) -> "_Held":
        parts = []
        for _, block in _blocks(images.part(np.arange(rows.start, rows.stop)), IMAGES_AT_ONCE):
            looks = _Looks.of(block)
            parts.append((looks.coarse, _Looks.of(_mirrored(block)).coarse, looks.digests))
        return cls(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def near(self, part: slice, others: np.ndarray, similar: float) -> np.ndarray:
        """Return which pairs, bool (rows, others), may be copies."""
        # |a - b|^2 <= 2 (1 - similar), as a.b >= (|a|^2 + |b|^2) / 2 - (1 - similar)
        least = 1 - similar + ROUNDING
        squares = (others**2).sum(1) / 2
        found = np.zeros((0, 0), bool)
        for looks in (self.coarse[part], self.mirrored[part]):
            bound = ((looks**2).sum(1) / 2 - least)[:, None] + squares
            near = looks @ others.T >= bound
            found = near | found if found.size else near
        return found


def _note(
    found: Copies,
    images: Split,
    ours: np.ndarray,
    looks: _Looks,
    place: int,
    theirs: np.ndarray,
    labels: np.ndarray,
    pairs: np.ndarray,
    similar: float,
) -> None:
    """Compare some of our images with some others, pixel by pixel, and note the copies.

    `ours` are places in `images`; `theirs` numbers in the block that `looks` are of, which begins
    at `place`; `pairs` bool (ours, theirs) says which may be copies.
    """
    pixels = images.pixels(ours)
    looked, others = _Looks.of(pixels), looks.fine[theirs]
    plain = looked.fine @ others.T
    mirrored = _Looks.of(_mirrored(pixels)).fine @ others.T
    same = looked.digests[:, None] == looks.digests[theirs]
    score = np.where(same, 2.0, np.minimum(np.maximum(plain, mirrored), 1.0))
    copies = pairs & (score >= similar)
    score[~copies] = -1
    best = score.argmax(1)
    rows = np.arange(len(ours))
    top = score[rows, best]
    known = np.where(found.count[ours] > 0, found.similarity[ours] + found.exact[ours], -1.0)
    better = (top > known) & copies.any(1)
    to, at = ours[better], best[better]
    found.closest[to] = place + theirs[at]
    found.similarity[to] = np.minimum(top[better], 1.0)
    found.exact[to] = top[better] == 2.0
    found.mirrored[to] = (mirrored > plain)[rows[better], at] & (top[better] < 2.0)
    found.count[ours] += copies.sum(1)
    others_labels = images.targets[ours][:, None] != labels[theirs]
    found.other_label[ours] += (copies & others_labels).sum(1)


def _block_means(side: int, blocks: int) -> np.ndarray:
    """Return the orthonormal rows (blocks, side) that take `side` values to their blocks' means."""
    which = np.arange(side) * blocks // side
    means = (np.arange(blocks)[:, None] == which).astype(np.float64)
    return means / np.sqrt(means.sum(1, keepdims=True))


def _mirrored(pixels: np.ndarray) -> np.ndarray:
    return pixels[:, :, ::-1]


def _blocks(split: Split, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield some images at a time, uint8 (n, S, S, 3), with the place of the first."""
    for start in range(0, len(split), size):
        yield start, split.pixels(slice(start, start + size))
