"""What a run trains, as far as the speed of its steps depends on it."""

import math
from dataclasses import dataclass, replace
from typing import Any, Self

from torch import nn

from blocklab.data.image_data import ImageData
from blocklab.measure.device import device_name, probe_device
from blocklab.models.spec import ModelSpec
from blocklab.training.provenance import versions
from blocklab.training.recipe import Recipe


@dataclass(frozen=True)
class Workload:
    """What is trained, as far as its speed depends on it."""

    spec: ModelSpec
    recipe: Recipe
    image_size: int
    num_classes: int
    train_images: int
    threads: int

    @classmethod
    def of(cls, spec: ModelSpec, recipe: Recipe, data: ImageData, threads: int) -> Self:
        """Return the workload of a run on some data."""
        return cls(spec, recipe, data.image_size, len(data.class_names), len(data.train), threads)

    def build(self) -> nn.Module:
        """Build the network, freshly initialised."""
        return self.spec.build(self.num_classes, input_size=self.image_size)

    def build_meta(self) -> nn.Module:
        """Build the network without memory for its weights."""
        return self.spec.build_meta(self.num_classes, input_size=self.image_size)

    @property
    def steps(self) -> int:
        """Steps of a whole run."""
        count = self.train_images / self.recipe.batch_size
        return self.recipe.epochs * (int(count) if self.recipe.drop_last else math.ceil(count))

    @property
    def at_once(self) -> int:
        """Images of one pass forward and backward: a batch, or one of its parts."""
        return -(-self.recipe.batch_size // self.recipe.accumulate)

    def share(self, world: int) -> Self:
        """Return what each of so many devices trains of it: its part of each batch."""
        batch = -(-self.recipe.batch_size // world)
        recipe = self.recipe.model_copy(update={"batch_size": batch})
        return replace(self, recipe=recipe, train_images=-(-self.train_images // world))

    def key(self, precision: str) -> dict[str, Any]:
        """Return all that a step's time depends on, besides what is chosen by it."""
        device = probe_device()
        return {
            "device": device_name(device),
            **versions(),
            "threads": self.threads if device.type == "cpu" else 0,  # a GPU's steps have none
            "model": self.spec.to_dict(),
            "num_classes": self.num_classes,
            "batch_size": self.recipe.batch_size,
            "image_size": self.image_size,
            "optimizer": self.recipe.optimizer,
            "precision": precision,
            **({"at_once": self.at_once} if self.recipe.accumulate > 1 else {}),
            **({"freeze": self.recipe.freeze} if self.recipe.freeze else {}),
        }
