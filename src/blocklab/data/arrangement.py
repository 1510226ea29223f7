"""Which folders of a folder of images are splits, and which are classes.

A split taken for a class would train on the user's test images and say nothing. So folders whose
names speak of splits are splits where they are what the folder holds; where that is in doubt, the
folder is refused in one line that shows what was found.
"""

import os
from pathlib import Path
from typing import NoReturn

from blocklab.data.faults import first_few
from blocklab.data.split_names import grouped, is_split_name
from blocklab.errors import InputError

# In `train` and one of these, further folders were always left alone; the first that exists.
PLAIN_TEST_NAMES = ("test", "val", "validation")
NOTES_OF_ARCHIVERS = ("__MACOSX",)
MOST_NAMED = 5
AS_CLASSES = "if these are classes, set data.splits=none"


def find_splits(root: Path, splits: str = "auto", measure: bool = False) -> dict[str, str]:
    """Return where the class folders of each split lie, as names relative to `root`.

    The key is "all" where the folder is not split, else "train", "test" and, where the user has
    images for each, "validation". With `measure`, "test" alone will do.

    Raises:
        InputError: if the folder's splits are not whole, or cannot be told from its classes.
    """
    return {"all": ""} if splits == "none" else _arrange(root, "", measure)


def folders_in(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted, hidden ones left out.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if e.is_dir() and not e.name.startswith(".")]
    except OSError as error:
        refuse_reading(error)
    return sorted(name for name in names if name not in NOTES_OF_ARCHIVERS)


def refuse_reading(error: OSError) -> NoReturn:
    """Raise an error of the file system as the user's to mend."""
    raise InputError(
        f"cannot read {error.filename}: {error.strerror}; check the path and its permissions"
    ) from error


def _arrange(root: Path, place: str, measure: bool) -> dict[str, str]:
    here = root / place
    names = folders_in(here)
    inside = {name: folders_in(here / name) for name in names if is_split_name(name)}
    if len(names) == 1:
        return _look_through(root, place, names[0], measure)
    groups = grouped(names)
    plain = groups.get((), {})
    if len(plain) > 1:
        return _plain_splits(root, place, names, plain, inside, measure)
    for split, (name, *_) in plain.items():
        if inside[name]:
            absent = {"train": "neither test/ nor val/"}.get(split, "no train/")
            raise InputError(
                f"{here} has {name}/ but {absent}; add one, or give {here / name}, of which 20 % "
                f"will be the test split. It also holds {_shown(names, but=[name])}; {AS_CLASSES}"
            )
    split_groups = {rest: group for rest, group in groups.items() if len(group) > 1}
    named = [name for group in split_groups.values() for some in group.values() for name in some]
    if not named or any(_has_files(here / name) for name in set(names) - set(named)):
        return {"all": place}
    group = next(iter(split_groups.values()))
    nested = all(folders_in(here / name) for name in named)
    if len(split_groups) > 1 or "train" not in group or not nested:
        raise InputError(
            f"{here} holds {_shown(names)}, whose names are those of splits; put them as "
            f"{here / 'train'}/CLASS and {here / 'test'}/CLASS; {AS_CLASSES}"
        )
    return _chosen(root, place, {split: _only(here, some) for split, some in group.items()})


def _look_through(root: Path, place: str, name: str, measure: bool) -> dict[str, str]:
    """A folder that holds one folder alone is only a wrapping, of an archive for instance."""
    within = _joined(place, name)
    if not folders_in(root / within):
        return {"all": place}  # a single class
    if is_split_name(name) in ("test", "validation"):
        if measure:
            return {"test": _inner(root, within)}
        raise InputError(
            f"{root / place} has {name}/ but no train/; add it, or give {root / within}, of "
            "which 20 % will be the test split"
        )
    return _arrange(root, within, measure)


def _plain_splits(
    root: Path,
    place: str,
    names: list[str],
    plain: dict[str, list[str]],
    inside: dict[str, list[str]],
    measure: bool,
) -> dict[str, str]:
    here = root / place
    tests = [name for name in PLAIN_TEST_NAMES if name in names]
    if "train" in names and tests:
        chosen = {"train": "train", "test": tests[0]}
        rest = [name for name in plain.get("validation", []) if name != tests[0]]
        if rest:
            chosen["validation"] = _only(here, rest)
    else:
        chosen = {split: _only(here, some) for split, some in plain.items()}
        others = [name for name in names if name not in inside]
        if any(_has_files(here / name) for name in others):
            raise InputError(
                f"{here} holds splits ({_shown(list(chosen.values()))}) beside other folders "
                f"({_shown(others)}); move the others away; {AS_CLASSES}"
            )
    if "train" not in chosen and not measure:
        raise InputError(
            f"{here} has {_shown(names)} but no train/; add it, or give one of them, of which "
            "20 % will be the test split"
        )
    for name in chosen.values():
        if not inside[name]:
            raise InputError(
                f"{here / name} has no class folders; put each class's images in a folder of its "
                f"own. {here} holds {_shown(names)}; {AS_CLASSES}"
            )
    return _chosen(root, place, chosen)


def _chosen(root: Path, place: str, names: dict[str, str]) -> dict[str, str]:
    if "test" not in names:
        names["test"] = names.pop("validation")
    order = [split for split in ("train", "test", "validation") if split in names]
    return {split: _inner(root, _joined(place, names[split])) for split in order}


def _inner(root: Path, place: str) -> str:
    """Look through the wrapping of a split (`seg_train/seg_train/CLASS`)."""
    names = folders_in(root / place)
    while len(names) == 1 and (further := folders_in(root / place / names[0])):
        place, names = _joined(place, names[0]), further
    return place


def _only(here: Path, names: list[str]) -> str:
    if len(names) > 1:
        raise InputError(
            f"{here} holds {_shown(names)}, of which only one can be meant; move the others away; "
            f"{AS_CLASSES}"
        )
    return names[0]


def _has_files(folder: Path) -> bool:
    files = (name for _, _, names in os.walk(folder) for name in names)
    return any(not name.startswith(".") for name in files)


def _joined(place: str, name: str) -> str:
    return f"{place}/{name}" if place else name


def _shown(names: list[str], but: list[str] | None = None) -> str:
    kept = [f"{name}/" for name in names if name not in (but or [])]
    return first_few(kept, most=MOST_NAMED)
