"""What defines a run, and so names its folder: model, data, recipe, seed, weights to start from."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from blocklab.data.spec import DataSpec
from blocklab.errors import InputError
from blocklab.models.pretrained import Pretrained
from blocklab.models.spec import ModelSpec
from blocklab.training.recipe import LARGEST_SEED, Recipe
from blocklab.training.run_files import definition_hash


@dataclass(frozen=True)
class RunDefinition:
    """All that decides a run's results; its hash names the run's folder."""

    model: ModelSpec
    data: DataSpec
    recipe: Recipe
    seed: int
    pretrained: Pretrained | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= LARGEST_SEED:
            raise InputError(f"a seed is from 0 to {LARGEST_SEED}, not {self.seed}")

    def to_dict(self) -> dict[str, Any]:
        """Return the definition as plain JSON, all defaults filled in."""
        return {
            "model": self.model.to_dict(),
            "data": self.data.definition(),
            "recipe": self.recipe.model_dump(mode="json"),
            "seed": self.seed,
            # What starts at random is the run that it was before there was a choice.
            **({"pretrained": self.pretrained.definition()} if self.pretrained else {}),
        }

    def to_task(self) -> dict[str, Any]:
        """Return what another process needs to train it: plain JSON, with its files' own paths."""
        task = {**self.to_dict(), "data": self.data.model_dump(mode="json")}
        return task | ({"pretrained": self.pretrained.to_task()} if self.pretrained else {})

    @classmethod
    def from_dict(
        cls,
        value: Mapping[str, Any],
        data_source: str | None = None,
        weights: str | None = None,
    ) -> Self:
        """Rebuild a definition from `to_task`, or from `to_dict` and where its files lie.

        Raises:
            InputError: if a part of it is not known here, such as a block of a plugin.
        """
        data = dict(value["data"])
        if data_source is not None:
            data["source"] = data_source
        start = value.get("pretrained")
        if start is not None and weights is not None:
            start = {**start, "weights": weights}
        return cls(
            ModelSpec.from_dict(value["model"]),
            DataSpec.parse(data),
            Recipe.parse(value["recipe"]),
            value["seed"],
            None if start is None else Pretrained.parse(start),
        )

    @property
    def hash(self) -> str:
        """16 hexadecimal digits of the definition's SHA-256."""
        return definition_hash(self.to_dict())


def row_hash(definition: RunDefinition) -> str:
    """Return what names the runs that differ from this one in their seed alone."""
    return replace(definition, seed=0).hash
