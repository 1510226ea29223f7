"""The loop: load, step, evaluate, record, save. It reads from top to bottom.

Every draw is a function of (seed, epoch): order and augmentation by the loader's own generators,
dropout, stochastic depth and MixUp by seeding the global ones at each epoch. So a run that resumes
after an epoch goes on with the same bits as one that was never stopped.

Where several processes train a run, each has its part of every batch and weighs its loss by that
part, so that the gradient is the whole batch's mean; DDP averages it in the backward pass.
"""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from timm.data import Mixup
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from blocklab.data.image_data import ImageData
from blocklab.kernels.depthwise import apply_algorithms
from blocklab.measure.device import wait
from blocklab.measure.memory import keep_freed_memory
from blocklab.training.batches import make_batches
from blocklab.training.compiling import compiled_network
from blocklab.training.device import Setup
from blocklab.training.evaluation import evaluate
from blocklab.training.freezing import freeze
from blocklab.training.graph import GraphedStep
from blocklab.training.optimizer import make_optimizer
from blocklab.training.recipe import Recipe
from blocklab.training.step import BatchCounters, TrainingStep
from blocklab.training.sync_norm import synchronise_batchnorm

Record = dict[str, Any]
COLLAPSED = 2.0**-10  # a scale of fp16's loss below this: overflow upon overflow, from 2 ** 16 down
OnStep = Callable[[int, int], None]  # gets (steps done, steps of the epoch); it must be quick


@dataclass
class State:
    """What training has reached, and all that resuming needs."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: ModelEmaV3 | None
    epochs_done: int
    log: list[Record]
    scaler: torch.amp.GradScaler | None = None
    diverged: bool = False
    frozen: tuple[nn.Module, ...] = ()  # stay in evaluation mode

    @property
    def evaluated(self) -> nn.Module:
        """The network that is judged: the averaged one where the recipe asks for it."""
        return self.model if self.average is None else self.average.module

    def set_training(self) -> None:
        """Put what is trained into training mode, and leave what is frozen as in evaluation."""
        self.model.train()
        for part in self.frozen:
            part.eval()

    def to_dict(self) -> dict[str, Any]:
        """Return everything, as tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "epochs_done": self.epochs_done,
            "log": self.log,
            "diverged": self.diverged,
        }

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Go on from `to_dict`."""
        self.model.load_state_dict(checkpoint["model"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(checkpoint["average"])
        if self.scaler is not None:
            self.scaler.load_state_dict(checkpoint["scaler"])
        self.epochs_done, self.log = checkpoint["epochs_done"], checkpoint["log"]
        self.diverged = checkpoint["diverged"]


def prepare(model: nn.Module, recipe: Recipe, setup: Setup) -> State:
    """Move the model to its device and layout and make its optimizer.

    Raises:
        InputError: for an optimizer that timm does not know, or a part to freeze that the model
            has not.
    """
    if setup.device.type == "cpu":
        keep_freed_memory()
    apply_algorithms(model, setup.algorithms)
    if recipe.sync_batchnorm and setup.world_size > 1:
        model = synchronise_batchnorm(model, setup.device)
    frozen = freeze(model, recipe)
    model = model.to(device=setup.device, memory_format=setup.memory_format)  # type: ignore[call-overload]
    average = None
    if recipe.ema_decay is not None:
        average = ModelEmaV3(model, decay=recipe.ema_decay, use_warmup=recipe.ema_warmup)
    optimizer = make_optimizer(model, recipe, setup.device)
    return State(model, optimizer, average, 0, [], setup.scaler, frozen=frozen)


def train(
    state: State,
    data: ImageData,
    recipe: Recipe,
    setup: Setup,
    seed: int,
    on_step: OnStep | None = None,
) -> Iterator[Record]:
    """Train from where `state` is; yield one record an epoch, after which the state may be saved.

    Stops early where the loss or a weight is no longer a finite number.
    """
    batches = make_batches(data.train, data, recipe, setup, seed, train=True)
    network = compiled_network(state.model, setup)
    network, optimizer = setup.fabric.setup(network, state.optimizer)
    mix = _mixing(recipe, len(data.class_names))
    step = TrainingStep(state.model, network, optimizer, state.average, recipe, setup)
    train_on = GraphedStep(step, recipe.batch_size) if setup.graph else step
    average = None if state.average is None else state.average.module
    counters = BatchCounters(state.model, average)
    warm = False
    while state.epochs_done < recipe.epochs and not state.diverged:
        epoch = state.epochs_done
        _seed_globally(seed, epoch, setup.rank)
        network.train()
        state.set_training()
        step.start_epoch()
        images_seen, computing, rate = 0, 0.0, recipe.lr
        images_timed, began = 0, time.perf_counter()
        timed_from = began
        last = step.parts(len(data.train) - (len(batches) - 1) * recipe.batch_size)
        passes = (len(batches) - 1) * step.parts(recipe.batch_size) + last
        with counters.aside(passes):
            for number, (images, labels) in enumerate(batches.epoch(epoch)):
                in_batch = min(recipe.batch_size, len(data.train) - number * recipe.batch_size)
                rate = recipe.learning_rate(epoch + number / len(batches))
                step.set_rates(rate, epoch * len(batches) + number)
                targets: Tensor = labels
                if mix is not None:
                    images, targets = mix(images, labels)
                started = time.perf_counter()
                train_on(images, labels, targets, in_batch)
                computing += time.perf_counter() - started
                images_seen += in_batch
                if warm:
                    images_timed += in_batch
                elif len(batches) > 1:  # a process's first step compiles and finds algorithms
                    wait(setup.device)
                    warm, timed_from = True, time.perf_counter()
                if on_step is not None:
                    on_step(number + 1, len(batches))
        step.end_epoch()
        loss_sum, correct = setup.sum(step.loss_sum), setup.sum(step.correct)
        setup.agree(state.evaluated)
        train_loss = float(loss_sum) / images_seen  # the epoch's one wait for the device
        skipped = int(step.skipped)
        ended = time.perf_counter()
        state.diverged = not (np.isfinite(train_loss) and _is_finite(state.evaluated))
        state.diverged |= setup.scaler is not None and setup.scaler.get_scale() < COLLAPSED
        record: Record = {
            "epoch": epoch + 1,
            "lr": rate,
            "train_loss": train_loss if np.isfinite(train_loss) else None,
            "train_top1_percent": None if mix else 100 * int(correct) / images_seen,
            "train_seconds": ended - began,
            "images_per_second": (images_timed or images_seen) / (ended - timed_from),
            "loop_overhead_percent": 100 * (1 - computing / (ended - began))
            if setup.device.type == "cpu"
            else None,
        }
        if setup.scaler is not None:
            record |= {"skipped_steps": skipped, "loss_scale": setup.scaler.get_scale()}
        if not state.diverged:
            if len(data.validation):
                record |= evaluate(state.evaluated, data, "validation", recipe, setup)[0]
            if recipe.test_every_epoch:
                record |= evaluate(state.evaluated, data, "test", recipe, setup)[0]
        state.epochs_done += 1
        state.log.append(record)
        yield record


def _is_finite(model: nn.Module) -> bool:
    """Whether all weights and running statistics are finite, by their norm."""
    floats = [t for t in model.state_dict().values() if t.is_floating_point()]
    return bool(torch.nn.utils.get_total_norm(floats).isfinite())


def _seed_globally(seed: int, epoch: int, rank: int) -> None:
    numbers = [seed, epoch, 1, rank] if rank else [seed, epoch, 1]
    drawn = np.random.SeedSequence(numbers).generate_state(2)
    torch.manual_seed(int(drawn[0]))
    np.random.seed(int(drawn[1]))  # timm's Mixup draws from NumPy's global generator
    random.seed(int(drawn[0]))  # as a block of a user's may


def _mixing(recipe: Recipe, classes: int) -> Callable[..., tuple[Tensor, Tensor]] | None:
    if not (recipe.mixup or recipe.cutmix):
        return None
    return Mixup(
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        label_smoothing=recipe.label_smoothing,
        num_classes=classes,
    )
