"""The pictures of a network: of a finished run, with its weights, or of a model by its name."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from blocklab.data.given_images import Given, as_tensor
from blocklab.errors import BlocklabError, InputError, RunError
from blocklab.measure.activations import Diagnosis, count_zeros
from blocklab.measure.receptive_field import ReceptiveField, receptive_field
from blocklab.measure.saliency import grad_cam, let_through
from blocklab.models.probe import ImageSize, noise_images
from blocklab.models.random_state import random_state_kept
from blocklab.models.spec import ModelSpec, model_spec
from blocklab.report.drawing import Figure
from blocklab.report.pictures import (
    Seen,
    attention_figure,
    grad_cam_figure,
    kernels_figure,
    zeros_figure,
)
from blocklab.report.receptive import receptive_field_figure
from blocklab.results.kept_answers import read_answers
from blocklab.results.named_run import find_run
from blocklab.training.batches import make_batches
from blocklab.training.finished import FIRST_DIAGNOSED, LAST_DIAGNOSED, FinishedRun

SEED = 0  # of random weights
MOST_SEEN = 16  # images of a figure
CHOSEN_EACH = 2  # images that are right most surely, and as many that are wrong most surely
OnFault = Callable[[InputError], None]


@dataclass(frozen=True)
class Subject:
    """A network to draw. `run` is None of a model, whose weights are random."""

    name: str
    spec: ModelSpec
    network: nn.Module
    size: ImageSize
    run: FinishedRun | None = None

    @classmethod
    def open(
        cls, named: str, num_classes: int = 1000, input_size: ImageSize | None = None
    ) -> "Subject":
        """Open a run, by its folder or as ``STUDY_DIR/ROW:SEED``, or build a named model.

        Raises:
            InputError: if nothing is called that.
            RunError: if a file of the run is damaged.
        """
        at = _run_at(named)
        if at is not None:
            return cls.of(FinishedRun.open(at))
        spec = model_spec(named)
        size = input_size or spec.config.native_size
        return cls(named, spec, _random(spec, num_classes, size), size)

    @classmethod
    def of(cls, run: FinishedRun) -> "Subject":
        """Take a finished run."""
        size = run.run["image_size"]
        network = run.placed(run.setup())
        return cls(run.run["label"] or run.folder.name, run.spec, network, size, run)

    @property
    def weights(self) -> str:
        """Which weights the network has."""
        if self.run is None:
            return f"random, seed {SEED}"
        return f"trained, seed {self.run.run['definition']['seed']}"

    @cached_property
    def random(self) -> nn.Module:
        """The same network as it is before training."""
        if self.run is None:
            return self.network
        return _random(self.spec, len(self.run.class_names), self.size)

    def trained(self, what: str) -> FinishedRun:
        """Return the run.

        Raises:
            InputError: if it is a model, whose random weights have learned nothing.
        """
        if self.run is None:
            raise InputError(
                f"{what} is of a trained network, and '{self.name}' is a model; name a run: its "
                "folder, or STUDY_DIR/ROW:SEED"
            )
        return self.run

    def fields(self) -> list[ReceptiveField]:
        """Measure its receptive field with random weights and, of a run, with the trained ones."""
        noise = noise_images(self.random, self.size, 8, SEED)
        fields = [
            receptive_field(self.random, self.name, f"random, seed {SEED}", images=noise),
        ]
        if self.run is not None:
            fields.append(receptive_field(self.network, self.name, self.weights, images=noise))
        return fields

    def receptive_field(self) -> Figure:
        """Draw its receptive fields; see `fields`."""
        return receptive_field_figure(self.fields())

    def kernels(self, layer: str | None = None) -> Figure:
        """Draw the kernels of a convolution; see `kernels_figure`."""
        return kernels_figure(self.name, self.network, self.weights, layer)

    def dead_neurons(self, diagnosis: Diagnosis | None = None) -> Figure:
        """Draw zeros a layer, as counted over the run's test batches, or over noise of a model."""
        if diagnosis is None and self.run is None:
            diagnosis = count_zeros(self.network, [noise_images(self.network, self.size, 8)], 1, 1)
        if diagnosis is None:
            diagnosis = self._counted(self.trained("a diagnosis"))
        return zeros_figure(f"{self.name} ({self.weights})", diagnosis)

    def _counted(self, run: FinishedRun) -> Diagnosis:
        data = run.open_data()
        batches = make_batches(data.test, data, run.recipe, run.setup(), 0, train=False)
        first = FIRST_DIAGNOSED if len(batches) >= FIRST_DIAGNOSED else 1
        return count_zeros(self.network, batches.epoch(0), first, LAST_DIAGNOSED)

    def grad_cam(
        self,
        images: Iterable[Given] = (),
        layer: str | None = None,
        on_fault: OnFault | None = None,
    ) -> Figure:
        """Draw where the network looks in images; without any, in test images that tell most.

        Raises:
            InputError: if none can be read, or the network gives no map to weigh.
        """
        run = self.trained("Grad-CAM")
        seen, batch, named = self._shown(run, images, on_fault)
        return grad_cam_figure(self.name, seen, grad_cam(self.network, batch, named, layer))

    def attention(self, images: Iterable[Given] = (), on_fault: OnFault | None = None) -> Figure:
        """Draw what the network's attentions let through of images; see `grad_cam`.

        Raises:
            InputError: if none can be read, or the network has no attention that gates a map.
        """
        run = self.trained("what attentions let through")
        seen, batch, _ = self._shown(run, images, on_fault)
        return attention_figure(self.name, seen, let_through(self.network, batch))

    def _shown(
        self, run: FinishedRun, images: Iterable[Given], on_fault: OnFault | None
    ) -> tuple[list[Seen], Tensor, list[int]]:
        """Return images, the batch that the network takes, and which class it names of each."""
        given = list(images)
        read = [*run.read_images(given, on_fault)] if given else self._telling(run)
        if not read:
            raise InputError("none of the images can be read; name files or folders of images")
        read = read[:MOST_SEEN]
        batch = run.normalised(torch.stack([pixels for _, pixels in read]))
        with torch.inference_mode():
            shares = self.network.eval()(batch).float().softmax(1).cpu()
        named = shares.argmax(1).tolist()
        seen = [
            Seen(
                np.rint(255 * pixels.permute(1, 2, 0).numpy()).astype(np.uint8),
                Path(name).name if given else name,
                f"named: {run.class_names[one]} ({100 * float(share[one]):.0f} %)",
            )
            for (name, pixels), share, one in zip(read, shares, named, strict=True)
        ]
        return seen, batch, named

    def _telling(self, run: FinishedRun) -> list[tuple[str, Tensor]]:
        """Choose test images: the most surely right ones, and the most surely wrong ones."""
        said, data = read_answers(run.folder), run.open_data()
        if not np.array_equal(said.labels, data.test.targets):
            raise RunError(f"the test images are no longer those that the run {run.folder} saw")
        right, order = said.predicted == said.labels, np.argsort(said.loss, kind="stable")
        chosen = [*order[right[order]][:CHOSEN_EACH], *order[~right[order]][::-1][:CHOSEN_EACH]]
        kept = run.run["definition"]["data"].get("kept_size")
        read = []
        for place in map(int, chosen):
            (pixels,) = data.test.pixels(np.array([place]))
            name = f"test image {place}: {run.class_names[said.labels[place]]}"
            read.append((name, as_tensor(name, pixels, run.run["image_size"], False, kept)))
        return read


def all_pictures(
    subject: Subject, diagnosis: Diagnosis | None = None
) -> tuple[list[Figure], list[str]]:
    """Draw whatever of a network can be drawn; return the figures, and a line for each other."""
    figures, missing = [], []
    for draw in (
        subject.receptive_field,
        subject.kernels,
        lambda: subject.dead_neurons(diagnosis),
        subject.grad_cam,
        subject.attention,
    ):
        try:
            figures.append(draw())
        except BlocklabError as error:
            missing.append(str(error))
    return figures, missing


def _run_at(named: str) -> Path | None:
    """Return the folder of a run; None of what is no path, and so a model's name."""
    try:
        folder = find_run(named)
    except InputError:
        if "/" in named.partition(":")[0]:  # a model's name has none
            raise
        return None
    return folder if folder.exists() else None


def _random(spec: ModelSpec, num_classes: int, size: ImageSize) -> nn.Module:
    with random_state_kept():
        torch.manual_seed(SEED)
        return spec.build(num_classes, input_size=size).eval()
