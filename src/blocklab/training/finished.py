"""A finished run, opened again: its network with its weights, to evaluate, predict or export."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from blocklab.backbones.base import Backbone
from blocklab.data.given_images import Given, as_tensor, each_image
from blocklab.data.image_data import ImageData, open_data
from blocklab.data.normalisation import normalised_by
from blocklab.data.sources import portable_address
from blocklab.data.spec import DataSpec
from blocklab.errors import InputError, check_choice
from blocklab.files import write_checked_json
from blocklab.measure.activations import Diagnosis, count_zeros
from blocklab.measure.answers import Answers
from blocklab.models.export import ENDINGS, Exported, export_model
from blocklab.models.hub import Card
from blocklab.models.probe import ImageSize
from blocklab.models.spec import ModelSpec
from blocklab.models.use import set_use, use_of_run
from blocklab.models.weights import load_weights
from blocklab.notebook import fields_html
from blocklab.training.batches import make_batches
from blocklab.training.device import Setup, make_setup
from blocklab.training.evaluation import evaluate
from blocklab.training.logits import limit_mb, too_many
from blocklab.training.loop import Record
from blocklab.training.recipe import Recipe
from blocklab.training.run_files import DIAGNOSIS, RUN, RUN_HASH, definition_hash
from blocklab.training.run_reader import RunReader

MOST_PREDICTED_AT_ONCE = 64
FIRST_DIAGNOSED, LAST_DIAGNOSED = 30, 40  # test batches, from 1


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one image, best first, with their probabilities (0 to 1)."""

    image: str  # its path, or its number among those that were given
    classes: tuple[tuple[str, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        classes = [{"class": name, "probability": share} for name, share in self.classes]
        return {"image": self.image, "classes": classes}

    @property
    def name(self) -> str:
        """The likeliest class."""
        return self.classes[0][0]

    @property
    def probability(self) -> float:
        """The likeliest class's probability."""
        return self.classes[0][1]


@dataclass(frozen=True, repr=False)
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
        model = spec.build(len(run["class_names"]), input_size=run.get("image_size"))
        load_weights(model, weights)
        set_use(model, use_of_run(run), str(folder / RUN))
        return cls(folder, run, reader.require_result(), spec, recipe, model.eval())

    def __repr__(self) -> str:
        """Name it; the whole would be a hundred lines."""
        label, seed = self.run.get("label"), self.run["definition"]["seed"]
        return f"<run {self.folder} of {label}, seed {seed}>"

    def _repr_html_(self) -> str:
        """Show what it is and what it reached, in a notebook."""
        figures = {
            name: f"{value:.4g}"
            for name, value in self.result.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        where = {"folder": self.folder, "seed": self.run["definition"]["seed"]}
        return fields_html(self.run.get("label") or self.folder.name, where | figures)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the network's outputs, in order."""
        return tuple(self.run["class_names"])

    @property
    def normalisation(self) -> tuple[Any, Any]:
        """Mean and SD, a channel each, that images had in training."""
        of_data = tuple(self.run["data_mean"]), tuple(self.run["data_std"])
        return normalised_by(self.recipe.normalize, *of_data)

    def setup(self) -> Setup:
        """Device, precision and layout that the run trained with."""
        return make_setup(self.run["precision"], self.run["memory_format"])

    def open_data(self, address: str | None = None) -> ImageData:
        """Open the run's images, or others of its classes, or of some of them, to measure on.

        Raises:
            InputError: if they are not there, are no longer those that it was trained with, or
                others have other classes.
        """
        fields = {**self.run["definition"]["data"], "source": address or self.run["data_address"]}
        if address is None:
            data = open_data(DataSpec.parse(fields), seed=self.run["definition"]["seed"])
            if data.fingerprint != self.run["data_fingerprint"]:
                raise InputError(
                    f"the images of {data.name} changed since {self.folder} was trained, and some "
                    "of its training images may be among them; put them back, or measure others "
                    "with --data"
                )
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
        return self.evaluate_images(address, split)[0]

    def evaluate_images(
        self, address: str | None = None, split: str = "test"
    ) -> tuple[Record, Answers]:
        """Measure as `evaluate` does; return too what the network says of each image.

        Raises:
            InputError: as `open_data`, or if the split has no images.
        """
        check_choice("split", split, ("validation", "test"))
        data, setup = self.open_data(address), self.setup()
        images = len(getattr(data, split))
        if not images:
            raise InputError(
                f"{data.name} has no {split} images; measure on another split, or "
                "give data that has some"
            )
        unkept = too_many(images, len(self.class_names), limit_mb())
        model = self.placed(setup)
        record, said = evaluate(model, data, split, self.recipe, setup, not unkept)
        labels, top5, loss = (said[name] for name in ("labels", "top5", "loss"))
        answers = Answers(self.class_names, labels, top5, loss, said.get("logits"), unkept)
        note = self._learned_from(address, data)
        told = {"note": note} if note else {}
        return {"split": split, "images": images, **record, **told}, answers

    def _learned_from(self, address: str | None, data: ImageData) -> str | None:
        """Say so where the images that were given are the run's own, in no splits."""
        of_run = self.run["definition"]["data"]
        if address is None or len(data.train):  # test images alone are measured
            return None
        try:
            own = portable_address(address, of_run.get("splits", "auto")) == of_run["source"]
        except InputError:  # test images alone, which nothing can be trained on
            own = False
        if not own:
            return None
        return (
            f"{address} is what the run was trained on, and all of it was measured; without --data "
            "its test images alone are"
        )

    @torch.inference_mode()
    def predict(
        self,
        images: Given | Iterable[Given],
        top: int = 5,
        on_fault: Callable[[InputError], None] | None = None,
    ) -> list[Prediction]:
        """Name the likeliest classes of images, which are prepared as the run's own were.

        Args:
            images: one or several: paths of files or folders, Pillow's images, arrays (H, W, 3) or
                (H, W), tensors (3, H, W), or batches of either; uint8, or floats from 0 to 1. The
                run resizes, crops and normalises them.
            top: how many classes to name, at most.
            on_fault: is handed what is wrong with an image, and the rest are predicted; without
                it, the first that cannot be read ends it.

        Returns:
            For each image its classes, best first, with their probabilities (0 to 1).

        Raises:
            InputError: for what is no image, or a number of classes that is not positive.
        """
        if not isinstance(top, int) or isinstance(top, bool) or top < 1:
            raise InputError(f"top is 1 class or more, not {top!r}")
        setup = self.setup()
        model = self.placed(setup)
        readable = self.read_images(images, on_fault)
        found: list[Prediction] = []
        while some := list(islice(readable, MOST_PREDICTED_AT_ONCE)):
            batch = self.normalised(torch.stack([pixels for _, pixels in some]))
            with setup.fabric.autocast():
                shares: Tensor = model(batch).float().softmax(1).cpu()
            best = shares.topk(min(top, shares.shape[1]))
            for (image, _), values, numbers in zip(some, best.values, best.indices, strict=True):
                named = [self.class_names[int(number)] for number in numbers]
                found.append(Prediction(image, tuple(zip(named, values.tolist(), strict=True))))
        return found

    def normalised(self, pixels: Tensor) -> Tensor:
        """Take pixels (B, 3, H, W) from 0 to 1 to what the network takes, on its device."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in self.normalisation)
        setup = self.setup()
        return ((pixels - mean) / std).to(setup.device, memory_format=setup.memory_format)  # type: ignore[call-overload]

    def read_images(
        self,
        images: Given | Iterable[Given],
        on_fault: Callable[[InputError], None] | None = None,
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield images by name, (3, H, W) from 0 to 1, resized and cropped as the run's own were.

        The arguments are those of `predict`.
        """
        fields = self.run["definition"]["data"]
        upright, kept = fields.get("exif", False), fields.get("kept_size")
        for name, image in each_image(images):
            try:
                yield name, as_tensor(name, image, self.run["image_size"], upright, kept)
            except InputError as fault:
                if on_fault is None:
                    raise
                on_fault(fault)

    def placed(self, setup: Setup) -> nn.Module:
        """Move the network to the device and layout of a setup."""
        return self.model.to(device=setup.device, memory_format=setup.memory_format)  # type: ignore[call-overload]


def diagnose_run(
    finished: FinishedRun, first: int | None = None, last: int | None = None
) -> Diagnosis:
    """Count zero activations of a run's network over test batches `first` to `last`, from 1.

    By default batches 30 to 40, or all of a test split that has no 30. The run's folder keeps the
    counts, for the pages of its studies.

    Raises:
        InputError: if the test images make no such batches.
        RunError: if the folder cannot be written.
    """
    data, setup = finished.open_data(), finished.setup()
    batches = make_batches(data.test, data, finished.recipe, setup, 0, train=False)
    if first is None:
        first = FIRST_DIAGNOSED if min(len(batches), last or len(batches)) >= FIRST_DIAGNOSED else 1
    elif first > len(batches):
        count = f"{len(batches)} batch{'' if len(batches) == 1 else 'es'}"
        raise InputError(
            f"the {len(data.test):,} test images make {count}, and --first is {first}; begin at 1, "
            "or leave it out"
        )
    last = max(first, LAST_DIAGNOSED) if last is None else last
    diagnosis = count_zeros(finished.placed(setup), batches.epoch(0), first, last)
    own = {RUN_HASH: definition_hash(finished.run["definition"])}
    write_checked_json(finished.folder / DIAGNOSIS, own | diagnosis.to_dict())
    return diagnosis


def export_run(
    finished: FinishedRun,
    format: str,
    to: Path | None = None,
    deploy: bool = False,
    input_size: ImageSize | None = None,
    **options: Any,
) -> Exported:
    """Write a run's network for other programs (see `blocklab.models.export`), and check it.

    `to` is the file or folder; by default it lies in the run's folder. `input_size` is by default
    that of the run's images; `options` are `export_model`'s others.

    Raises:
        InputError: if the format or an option is wrong, packages are missing, or `to` cannot be
            written or is somebody else's.
        RunError: if what was written does not give the network's outputs.
    """
    run, result = finished.run, finished.result
    if to is None:
        to = finished.folder / f"exported{ENDINGS.get(format, '')}"
    mean, std = finished.normalisation
    kind, _, place = run["data_address"].partition(":")
    card = Card(
        name=run["label"] or finished.folder.name,
        # Of a path its last name: where data lies on this machine is nobody else's business.
        dataset=(place if kind == "hf" else Path(place).name) or kind,
        hub_dataset=place if kind == "hf" else None,
        results={name: value for name, value in result.items() if name.startswith("test_top")},
        training={"seed": run["definition"]["seed"], **finished.recipe.model_dump(mode="json")},
        mean=mean,
        std=std,
    )
    return export_model(
        finished.model,
        to,
        cast(Any, format),
        run["image_size"] if input_size is None else input_size,
        deploy,
        finished.class_names,
        card,
        **options,
    )
