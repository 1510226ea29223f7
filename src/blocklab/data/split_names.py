"""What people call the parts of a data set: `train`, `Training`, `val_images`, `test_set`, …"""

import re
from collections import defaultdict
from typing import NamedTuple

_WORDS = {
    "train": "train|training|trn",
    "validation": "val|valid|validate|validation|dev",
    "test": "test|testing|tests|tst|eval|evaluation|holdout",
}
# Words that say nothing about which part it is.
_FILLER = (
    "(?:sets?|images?|imgs?|pictures?|photos?|samples?|data|datasets?|splits?|folders?|files?|"
    r"parts?|\d+)"
)
_ROLES = {role: re.compile(f"{_FILLER}*(?:{words}){_FILLER}*") for role, words in _WORDS.items()}
_FILLERS = re.compile(f"{_FILLER}+")


class Role(NamedTuple):
    """Which part a name speaks of, and the words of the name beside that."""

    split: str  # "train", "validation" or "test"
    rest: tuple[str, ...]


def role(name: str) -> Role | None:
    """Return the part of a data set that a name speaks of; None if it speaks of none, or of two.

    `asl_alphabet_train` is ("train", ("asl", "alphabet")), and `Test Images 2` is ("test", ()).
    """
    found: set[str] = set()
    rest: list[str] = []
    for word in re.findall(r"[^\W_]+", name.casefold()):
        split = next((split for split, form in _ROLES.items() if form.fullmatch(word)), None)
        if split:
            found.add(split)
        elif not _FILLERS.fullmatch(word):
            rest.append(word)
    return Role(found.pop(), tuple(rest)) if len(found) == 1 else None


def is_split_name(name: str) -> str | None:
    """Return the part that a name speaks of, if it says nothing beside."""
    found = role(name)
    return found.split if found and not found.rest else None


def grouped(names: list[str]) -> dict[tuple[str, ...], dict[str, list[str]]]:
    """Group the names that speak of parts by what else they say, then by part."""
    groups: dict[tuple[str, ...], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in names:
        if found := role(name):
            groups[found.rest][found.split].append(name)
    return groups
