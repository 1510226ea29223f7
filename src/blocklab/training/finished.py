"""A finished run, opened again: its network with its weights, to evaluate, predict or export."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from blocklab.backbones.base import Backbone
from blocklab.data.image_data import ImageData, open_data
from blocklab.data.pictures import Picture, decode
from blocklab.data.spec import DataSpec
from blocklab.errors import InputError, check_choice
from blocklab.files import write_json
from blocklab.measure.activations import Diagnosis, count_zeros
from blocklab.models.export import ENDINGS, Exported, export_model
from blocklab.models.hub import Card
from blocklab.models.spec import ModelSpec
from blocklab.models.weights import load_weights
from blocklab.training.batches import CONSTANTS, make_batches
from blocklab.training.device import Setup, make_setup
from blocklab.training.evaluation import evaluate
from blocklab.training.loop import Record
from blocklab.training.recipe import Recipe
from blocklab.training.run_files import DIAGNOSIS, RUN, RUN_HASH, definition_hash
from blocklab.training.run_reader import RunReader

MOST_PREDICTED_AT_ONCE = 64


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one image, best first, with their probabilities (0 to 1)."""

    image: Path
    classes: tuple[tuple[str, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        classes = [{"class": name, "probability": share} for name, share in self.classes]
        return {"image": str(self.image), "classes": classes}


@dataclass(frozen=True)
class FinishedRun:
    """A run's folder, read: the network in evaluation mode, and all that its images need."""

    folder: Path
    run: dict[str, Any]  # run.json
    result: dict[str, Any]  # result.json
    spec: ModelSpec
    recipe: Recipe
    model: Backbone

    @classmethod
    def open(cls, folder: Path) -> "FinishedRun":
        """Read a run's folder and build its network.

        Raises:
            InputError: if the folder is not that of a finished run, or a block it needs is not
                registered.
            RunError: if a file in it is damaged.
        """
        reader = RunReader(folder)
        run, weights = reader.require_run(), reader.weights()
        definition = run["definition"]
        spec = ModelSpec.from_dict(definition["model"])
        recipe = Recipe.parse(definition["recipe"], f"the recipe in {folder / RUN}")
        model = spec.build(len(run["class_names"]))
        load_weights(model, weights)
        return cls(folder, run, reader.require_result(), spec, recipe, model.eval())

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the network's outputs, in order."""
        return tuple(self.run["class_names"])

    @property
    def normalisation(self) -> tuple[Any, Any]:
        """Mean and SD, a channel each, that images had in training."""
        of_data = tuple(self.run["data_mean"]), tuple(self.run["data_std"])
        return CONSTANTS.get(self.recipe.normalize, of_data)

    def setup(self) -> Setup:
        """Device, precision and layout that the run trained with."""
        return make_setup(self.run["precision"], self.run["memory_format"])

    def open_data(self, address: str | None = None) -> ImageData:
        """Open the run's images, or others of its classes, or of some of them, to measure on.

        Raises:
            InputError: if they are not there, or have other classes.
        """
        fields = {**self.run["definition"]["data"], "source": address or self.run["data_address"]}
        if address is None:
            data = open_data(DataSpec.parse(fields))
        else:  # limits are the run's own business
            given = DataSpec.like(fields, address, self.run["image_size"])
            data = open_data(given, measure=True).of_classes(self.class_names)
        if data.class_names != self.class_names:
            raise InputError(
                f"{data.name} has other classes ({len(data.class_names)}) than the run "
                f"({len(self.class_names)}); give images of the same classes, in folders of the "
                "same names"
            )
        # As in training, whatever the mean of other images is.
        return replace(data, mean=self.run["data_mean"], std=self.run["data_std"])

    def evaluate(self, address: str | None = None, split: str = "test") -> Record:
        """Measure top-1, top-5 (percent) and loss on a split.

        Raises:
            InputError: as `open_data`, or if the split has no images.
        """
        check_choice("split", split, ("validation", "test"))
        data, setup = self.open_data(address), self.setup()
        images = len(getattr(data, split))
        model = self.placed(setup)
        record, _ = evaluate(model, data, split, self.recipe, setup)
        return {"split": split, "images": images, **record}

    @torch.inference_mode()
    def predict(self, images: Sequence[Path], top: int = 5) -> list[Prediction]:
        """Name the likeliest classes of image files.

        Raises:
            InputError: for a file that is no image, or a number of classes that is not positive.
        """
        if top < 1:
            raise InputError(f"top is 1 class or more, not {top}")
        setup = self.setup()
        model = self.placed(setup)
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in self.normalisation)
        found: list[Prediction] = []
        for start in range(0, len(images), MOST_PREDICTED_AT_ONCE):
            paths = images[start : start + MOST_PREDICTED_AT_ONCE]
            upright = self.run["definition"]["data"].get("exif", False)
            pictures = [Picture(str(path), path, upright) for path in paths]
            pixels = [decode(picture, self.run["image_size"]) for picture in pictures]
            batch = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
            batch = ((batch - mean) / std).to(setup.device, memory_format=setup.memory_format)
            with setup.fabric.autocast():
                shares: Tensor = model(batch).float().softmax(1).cpu()
            best = shares.topk(min(top, shares.shape[1]))
            for path, values, numbers in zip(paths, best.values, best.indices, strict=True):
                named = [self.class_names[int(number)] for number in numbers]
                found.append(Prediction(path, tuple(zip(named, values.tolist(), strict=True))))
        return found

    def placed(self, setup: Setup) -> nn.Module:
        """Move the network to the device and layout of a setup."""
        return self.model.to(device=setup.device, memory_format=setup.memory_format)  # type: ignore[call-overload]


def diagnose_run(finished: FinishedRun, first: int = 30, last: int = 40) -> Diagnosis:
    """Count zero activations of a run's network over test batches `first` to `last`.

    The run's folder keeps the counts, for the pages of its studies.

    Raises:
        InputError: if the test images make no such batches.
        RunError: if the folder cannot be written.
    """
    data, setup = finished.open_data(), finished.setup()
    batches = make_batches(data.test, data, finished.recipe, setup, 0, train=False)
    diagnosis = count_zeros(finished.placed(setup), batches.epoch(0), first, last)
    own = {RUN_HASH: definition_hash(finished.run["definition"])}
    write_json(finished.folder / DIAGNOSIS, own | diagnosis.to_dict())
    return diagnosis


def export_run(
    finished: FinishedRun, format: str, to: Path | None = None, deploy: bool = False
) -> Exported:
    """Write a run's network for other programs (see `blocklab.models.export`), and check it.

    `to` is the file or folder; by default it lies in the run's folder.

    Raises:
        InputError: if the format is unknown, packages are missing or `to` cannot be written.
        RunError: if what was written does not give the network's outputs.
    """
    run, result = finished.run, finished.result
    if to is None:
        to = finished.folder / f"exported{ENDINGS.get(format, '')}"
    mean, std = finished.normalisation
    card = Card(
        name=run["label"] or finished.folder.name,
        dataset=run["data_address"],
        results={name: value for name, value in result.items() if name.startswith("test_top")},
        training={"seed": run["definition"]["seed"], **finished.recipe.model_dump(mode="json")},
        mean=mean,
        std=std,
    )
    return export_model(
        finished.model,
        to,
        cast(Any, format),
        run["image_size"],
        deploy,
        finished.class_names,
        card,
    )
