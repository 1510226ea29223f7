"""The weights that a run starts from: where they lie, and what identifies them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationError
from torch import nn

from blocklab.data.normalisation import Channels
from blocklab.errors import InputError, one_line
from blocklab.files import file_sha256
from blocklab.models.checkpoint import weights_file
from blocklab.models.expected_images import normalisation_of
from blocklab.models.hub_weights import hub_config, is_hub_address
from blocklab.models.parts import head_names
from blocklab.models.weights import LoadReport, Match, load_weights, match_weights
from blocklab.yaml_files import PlainModel

Head = Literal["auto", "load", "fresh"]


class _Given(PlainModel):
    """What may be said of them in a study's file."""

    model_config = ConfigDict(extra="forbid")

    weights: str | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    head: Head = "auto"
    strict: bool = True


@dataclass(frozen=True)
class Pretrained:
    """Weights to start from, identified by their file's SHA-256 and not by where it lies.

    Attributes:
        sha256: of the file.
        head: whether the head's weights are taken: ``auto`` takes them where the file's head has as
            many classes as the data.
        strict: refuse unless every tensor fits; else what fits is loaded, such as a plain network's
            weights into one with blocks added.
        weights: a path, a run's folder, an address, or ``hf:USER/NAME``; None where it is not known
            any more.
    """

    sha256: str
    head: Head = "auto"
    strict: bool = True
    weights: str | None = field(default=None, compare=False)

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read a path or an address, or a mapping of ``weights`` and the attributes.

        The file is read where its hash is not given.

        Raises:
            InputError: if there is no such file, or something else is said.
            RunError: if it cannot be downloaded.
        """
        if not isinstance(value, str | Mapping):
            raise InputError(
                f"pretrained is a file of weights, an address or hf:USER/NAME, not {value!r}"
            )
        try:
            given = _Given.model_validate({"weights": value} if isinstance(value, str) else value)
        except ValidationError as error:
            raise InputError(one_line(error, "pretrained", _Given)) from None
        if given.sha256 is not None:
            return cls(given.sha256, given.head, given.strict, given.weights)
        if given.weights is None:
            raise InputError("pretrained needs weights: a file, an address or hf:USER/NAME")
        digest = _sha256(weights_file(given.weights))
        return cls(digest, given.head, given.strict, absolute(given.weights))

    def definition(self) -> dict[str, Any]:
        """Return what identifies them, as plain JSON."""
        said: dict[str, Any] = {"sha256": self.sha256}
        if self.head != "auto":
            said["head"] = self.head
        return said if self.strict else said | {"strict": False}

    def to_task(self) -> dict[str, Any]:
        """Return what another process needs to load them, as plain JSON."""
        return {**self.definition(), "weights": self.weights}

    def __str__(self) -> str:
        return f"{self.weights or 'a file'} (SHA-256 {self.sha256[:12]})"

    def check(self, model: nn.Module) -> None:
        """Check that they fit a network, which may be on the meta device.

        Raises:
            InputError: if they do not, or the file is not there or another one.
            RunError: if it cannot be downloaded.
        """
        self._match(model)

    def load(self, model: nn.Module) -> LoadReport:
        """Load them into a network, all but a head of other classes; say what was loaded.

        Raises:
            InputError, RunError: as `check`.
        """
        head: Literal["load", "fresh"] = "fresh" if self._match(model).report.fresh else "load"
        return load_weights(model, self._file(), self.strict, head, "adapt")

    def normalisation(self) -> tuple[Channels, Channels] | None:
        """Return mean and SD of the images that they were trained with, where that is known.

        Raises:
            InputError, RunError: as `check`.
        """
        file, weights = self._file(), self.weights or ""
        return normalisation_of(file, hub_config(weights) if is_hub_address(weights) else None)

    def _match(self, model: nn.Module) -> Match:
        file = self._file()
        if self.head != "auto":
            return match_weights(model, file, self.strict, self.head, "adapt")
        try:
            whole = match_weights(model, file, self.strict, "load", "adapt")
        except InputError:  # of the head, or this says of what
            return match_weights(model, file, self.strict, "fresh", "adapt")
        heads = tuple(f"{name}." for name in head_names(model))
        if heads and any(name.startswith(heads) for name in whole.report.mismatched):
            return match_weights(model, file, self.strict, "fresh", "adapt")
        return whole

    def _file(self) -> Path:
        if self.weights is None:
            raise InputError(
                f"the run starts from weights of SHA-256 {self.sha256[:12]}, and where they lie is "
                "not known; say it, as pretrained"
            )
        file = weights_file(self.weights)
        if (found := _sha256(file)) != self.sha256:
            raise InputError(
                f"{self.weights} is not the file that the run is to start from: its SHA-256 begins "
                f"with {found[:12]}, not {self.sha256[:12]}; put that file back, or leave out "
                "sha256 for a run of its own"
            )
        return file


def is_address(weights: str) -> bool:
    """Whether weights lie elsewhere, and are fetched."""
    return is_hub_address(weights) or "://" in weights


def absolute(weights: str) -> str:
    """Return a path that holds from any folder; addresses as they are."""
    return weights if is_address(weights) else os.path.abspath(os.path.expanduser(weights))


def _sha256(file: Path) -> str:
    stat = file.stat()
    return _hashed(file.resolve(), stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _hashed(file: Path, changed: int, size: int) -> str:
    """Hash a file once, until it changes: the rows of a study often share it."""
    return file_sha256(file)
