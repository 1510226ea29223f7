"""What a tracker is asked to do, which ones there are, and what is said where one is missing.

A tracker shows what blocklab's own files hold; it decides nothing, and a run is the same run with
it and without it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from blocklab.errors import InputError, did_you_mean

# Each is an extra of blocklab's with its own name, and the module that it installs.
MODULES = {
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "trackio": "trackio",
}

Values = Mapping[str, float]


@dataclass(frozen=True)
class Subject:
    """What has a page of its own in a tracker: a run, or a study.

    Attributes:
        key: what tells it from all others; the hash of a run.
        name: what people read.
        group: the study that it is of; ``blocklab`` where there is none.
        config: what defines it, and what it ran on: values by dotted names.
    """

    key: str
    name: str
    group: str
    config: Mapping[str, Any] = field(default_factory=dict)


class Track(Protocol):
    """A subject's open record in a tracker."""

    @property
    def id(self) -> str:
        """What the tracker knows it by, to go on with it later."""
        ...

    def log(self, values: Values, step: int) -> None:
        """Add an epoch's figures."""

    def end(self, values: Values, files: Sequence[Path], status: str) -> None:
        """Add final figures and files, and close it; `status` is ``finished`` or ``diverged``."""

    def leave(self) -> None:
        """Close it as it is, to go on with it in another process."""


class Tracker(Protocol):
    """A tracker."""

    def open(self, subject: Subject, known: str | None) -> Track:
        """Begin a subject's record, or go on with the one whose `id` is known."""
        ...


def check_trackers(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names, each once, if all of them can be used.

    Raises:
        InputError: if there is no such tracker, or it is not installed.
    """
    for name in names:
        if name not in MODULES:
            raise InputError(
                f"no tracker '{name}'{did_you_mean(name, MODULES) or ';'} "
                f"trackers: {', '.join(MODULES)}"
            )
        if find_spec(MODULES[name]) is None:
            raise InputError(
                f"the tracker {name} is not installed; run: pip install 'blocklab[{name}]'"
            )
    return tuple(dict.fromkeys(names))
