"""What `blocklab data check` says: images of one split that are copies of another's, by name."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from blocklab.data.cache import open_store
from blocklab.data.image_data import whole_split
from blocklab.data.near_copies import SIMILAR, Copies, find_copies
from blocklab.data.pictures import Source
from blocklab.data.sources import find_source
from blocklab.data.spec import DataSpec
from blocklab.data.split import Split
from blocklab.data.tables import Columns

EXACT, NEAR, MIRRORED = "exact", "near", "mirrored"
NAMES = {"train": "training", "validation": "validation", "test": "test"}
# Each with where copies are looked for: a copy in a split that is used earlier is the fault.
PAIRS = (("validation", "train"), ("test", "train"), ("test", "validation"), ("test", "test"))
_SHOWN_SIDE, _SHOWN_ACROSS, MOST_DRAWN = 64, 6, 120

Advance = Callable[[int, int], None]  # gets pairs compared and pairs in all


@dataclass(frozen=True)
class Copy:
    """An image, and the image most like it in another split (or before it, in its own).

    `number` and `of_number` count from 0 in the order of the splits, as predictions.npz does for
    the test images; `name` and `of_name` say which file or row it is. `copies` are how many there
    are, `other_label` how many of them have another label.
    """

    split: str
    number: int
    name: str
    label: str
    of_split: str
    of_number: int
    of_name: str
    of_label: str
    kind: str  # "exact", "near" or "mirrored"
    similarity: float
    copies: int
    other_label: int


@dataclass(frozen=True)
class CopyCheck:
    """What was found in a source: `images` of each split, and the copies."""

    name: str
    images: dict[str, int]
    similar: float
    copies: tuple[Copy, ...]
    pictures: tuple[tuple[np.ndarray, np.ndarray], ...] = ()

    @property
    def summary(self) -> list[dict[str, Any]]:
        """How many images of each split have copies where, and of which kind."""
        lines = []
        for split, among in PAIRS:
            if not (self.images.get(split) and self.images.get(among)):
                continue
            found = [one for one in self.copies if (one.split, one.of_split) == (split, among)]
            kinds = {kind: sum(one.kind == kind for one in found) for kind in KINDS}
            other = sum(one.other_label > 0 for one in found)
            lines.append({"split": split, "among": among, **kinds, "other_label": other})
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "source": self.name,
            "images": self.images,
            "similarity": self.similar,
            "summary": self.summary,
            "copies": [asdict(one) for one in self.copies],
        }

    def picture(self) -> Image.Image:
        """Draw the first pairs of images side by side, in the order of `copies`."""
        shown = self.pictures[:MOST_DRAWN]
        wide, high = 2 * _SHOWN_SIDE + 8, _SHOWN_SIDE + 8
        lines = -(-len(shown) // _SHOWN_ACROSS)
        sheet = Image.new("RGB", (wide * min(len(shown), _SHOWN_ACROSS), high * lines), "white")
        for number, pair in enumerate(shown):
            down, across = divmod(number, _SHOWN_ACROSS)
            for side, pixels in enumerate(pair):
                one = Image.fromarray(pixels).resize((_SHOWN_SIDE, _SHOWN_SIDE))
                sheet.paste(one, (across * wide + side * _SHOWN_SIDE, down * high))
        return sheet


KINDS = (EXACT, NEAR, MIRRORED)


def check_copies(
    spec: DataSpec, similar: float = SIMILAR, advance: Advance | None = None
) -> CopyCheck:
    """Look for copies between the splits of a source, and within its test split.

    Raises:
        InputError: if the data is not usable.
        RunError: if a download fails or the cache cannot be written.
    """
    columns = Columns(spec.image_column, spec.label_column)
    source = find_source(spec.source, spec.splits, columns, spec.exif)
    store = open_store(source, spec.kept_size or spec.image_size, draft=spec.kept_size is not None)
    there = [split for split in NAMES if f"{split}_images" in store.arrays]
    splits = {split: whole_split(store, split) for split in there}
    looked = [pair for pair in PAIRS if all(one in splits for one in pair)]
    total, done = sum(len(splits[a]) * len(splits[b]) for a, b in looked), 0
    found: list[tuple[str, str, Copies]] = []
    for split, among in looked:

        def compared(pairs: int) -> None:
            nonlocal done
            done += pairs
            if advance is not None:
                advance(done, total)

        other = None if split == among else splits[among]
        found.append((split, among, find_copies(splits[split], other, similar, compared)))
    names = _names(source, spec, splits, found)
    copies, pictures = [], []
    for split, among, those in found:
        ours, theirs = splits[split], splits[among]
        for place in those.places:
            of = those.closest[place]
            kind = EXACT if those.exact[place] else MIRRORED if those.mirrored[place] else NEAR
            copies.append(
                Copy(
                    split=split,
                    number=int(place),
                    name=names[split][int(ours.indices[place])],
                    label=store.class_names[ours.targets[place]],
                    of_split=among,
                    of_number=int(of),
                    of_name=names[among][int(theirs.indices[of])],
                    of_label=store.class_names[theirs.targets[of]],
                    kind=kind,
                    similarity=float(those.similarity[place]),
                    copies=int(those.count[place]),
                    other_label=int(those.other_label[place]),
                )
            )
            if len(pictures) < MOST_DRAWN:
                pair = ours.pixels(np.array([place])), theirs.pixels(np.array([of]))
                pictures.append((pair[0][0], pair[1][0]))
    images = {split: len(of) for split, of in splits.items()}
    return CopyCheck(source.name, images, similar, tuple(copies), tuple(pictures))


def _names(
    source: Source,
    spec: DataSpec,
    splits: dict[str, Split],
    found: Iterable[tuple[str, str, Copies]],
) -> dict[str, dict[int, str]]:
    """Return what images are called that are copies or have one, by split and row of the store."""
    wanted: dict[str, set[int]] = {split: set() for split in splits}
    for split, among, those in found:
        wanted[split] |= set(splits[split].indices[those.places].tolist())
        wanted[among] |= set(splits[among].indices[those.closest[those.places]].tolist())
    names: dict[str, dict[int, str]] = {split: {} for split in splits}
    if not any(wanted.values()):
        return names
    contents = source.read(spec.kept_size or spec.image_size).splits()
    for split, rows in wanted.items():
        last = max(rows, default=-1)
        for row, picture in enumerate(contents[split].items()):
            if row > last:
                break
            if row in rows:
                names[split][row] = picture.origin
    return names
