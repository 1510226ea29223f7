"""The loop: load, step, evaluate, record, save. It reads from top to bottom.

Every draw is a function of (seed, epoch): order and augmentation by the loader's own generators,
dropout, stochastic depth and MixUp by seeding the global ones at each epoch. So a run that resumes
after an epoch goes on with the same bits as one that was never stopped.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from timm.data import Mixup
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics.classification import MulticlassAccuracy

from blocklab.data import Augmentation, Batches, ImageData, Split
from blocklab.errors import InputError
from blocklab.training.device import Setup
from blocklab.training.recipe import Recipe

Record = dict[str, Any]
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass
class State:
    """What training has reached, and all that resuming needs."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None
    epochs_done: int
    log: list[Record]
    diverged: bool = False

    @property
    def evaluated(self) -> nn.Module:
        """The network that is judged: the averaged one where the recipe asks for it."""
        return self.model if self.average is None else self.average.module

    def to_dict(self) -> dict[str, Any]:
        """Return everything, as tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "epochs_done": self.epochs_done,
            "log": self.log,
            "diverged": self.diverged,
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Go on from `to_dict`."""
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(saved["average"])
        self.epochs_done, self.log = saved["epochs_done"], saved["log"]
        self.diverged = saved["diverged"]


def prepare(model: nn.Module, recipe: Recipe, setup: Setup) -> State:
    """Move the model to its device and layout and make its optimizer.

    Raises:
        InputError: for an optimizer that timm does not know.
    """
    model = model.to(device=setup.device, memory_format=setup.memory_format)  # type: ignore[call-overload]
    try:
        optimizer = create_optimizer_v2(
            model,
            opt=recipe.optimizer,
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            filter_bias_and_bn=not recipe.decay_norms_and_biases,
        )
    except (ValueError, AssertionError, KeyError) as error:
        raise InputError(
            f"no optimizer '{recipe.optimizer}' for these settings ({error}); "
            "timm.optim.list_optimizers() lists them"
        ) from None
    average = None
    if recipe.ema_decay is not None:
        decay = get_ema_multi_avg_fn(recipe.ema_decay)
        average = AveragedModel(model, multi_avg_fn=decay, use_buffers=True)
    return State(model, optimizer, average, 0, [])


def make_batches(
    split: Split, data: ImageData, recipe: Recipe, setup: Setup, seed: int, train: bool
) -> Batches:
    """Batches of a split, normalised as the recipe says; augmented and shuffled for training."""
    mean, std = HALF if recipe.normalize == "half" else (data.mean, data.std)
    return Batches(
        split,
        recipe.batch_size if train else max(recipe.batch_size, 250),
        mean=mean,
        std=std,
        device=setup.device,
        memory_format=setup.memory_format,
        augmentation=Augmentation(recipe.crop_padding, recipe.flip, recipe.cutout)
        if train
        else Augmentation(),
        shuffle=train,
        drop_last=train and recipe.drop_last,
        seed=seed,
    )


def train(
    state: State, data: ImageData, recipe: Recipe, setup: Setup, seed: int
) -> Iterator[Record]:
    """Train from where `state` is; yield one record an epoch, after which the state may be saved.

    Stops early where the loss is no longer a number.
    """
    batches = make_batches(data.train, data, recipe, setup, seed, train=True)
    model, optimizer = setup.fabric.setup(state.model, state.optimizer)
    mix = _mixing(recipe, len(data.class_names))
    while state.epochs_done < recipe.epochs and not state.diverged:
        epoch = state.epochs_done
        _seed_globally(seed, epoch)
        model.train()
        loss_sum = torch.zeros((), dtype=torch.float64, device=setup.device)
        correct = torch.zeros((), dtype=torch.int64, device=setup.device)
        images_seen, computing, rate = 0, 0.0, recipe.lr
        began = time.perf_counter()
        for step, (images, labels) in enumerate(batches.epoch(epoch)):
            rate = recipe.learning_rate(epoch + step / len(batches))
            for group in optimizer.param_groups:
                group["lr"] = rate
            targets: Tensor = labels
            if mix is not None:
                images, targets = mix(images, labels)
            started = time.perf_counter()
            logits = model(images)
            loss = F.cross_entropy(logits.float(), targets, label_smoothing=_smoothing(recipe, mix))
            setup.fabric.backward(loss)
            if recipe.clip_grad_norm is not None:
                setup.fabric.clip_gradients(model, optimizer, max_norm=recipe.clip_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            computing += time.perf_counter() - started
            if state.average is not None:
                state.average.update_parameters(state.model)
            loss_sum += loss.detach().double() * len(labels)
            correct += (logits.detach().argmax(1) == labels).sum()
            images_seen += len(labels)
        train_loss = float(loss_sum) / images_seen  # the epoch's one wait for the device
        seconds = time.perf_counter() - began
        state.diverged = not np.isfinite(train_loss)
        record: Record = {
            "epoch": epoch + 1,
            "lr": rate,
            "train_loss": None if state.diverged else train_loss,
            "train_top1_percent": None if mix else 100 * int(correct) / images_seen,
            "train_seconds": seconds,
            "images_per_second": images_seen / seconds,
            "loop_overhead_percent": 100 * (1 - computing / seconds)
            if setup.device.type == "cpu"
            else None,
        }
        if not state.diverged:
            record |= _evaluations(state, data, recipe, setup)
        state.epochs_done += 1
        state.log.append(record)
        yield record


def _evaluations(state: State, data: ImageData, recipe: Recipe, setup: Setup) -> Record:
    record: Record = {}
    if len(data.validation):
        record |= evaluate(state.evaluated, data, "validation", recipe, setup)[0]
    if recipe.test_every_epoch:
        record |= evaluate(state.evaluated, data, "test", recipe, setup)[0]
    return record


def evaluate(
    model: nn.Module, data: ImageData, split: str, recipe: Recipe, setup: Setup
) -> tuple[Record, dict[str, np.ndarray]]:
    """Measure a network on ``validation`` or ``test``.

    Returns:
        Loss, top-1 and top-5 (percent), under the split's name; and per image the label, the five
        (or all) highest classes and the loss.
    """
    batches = make_batches(getattr(data, split), data, recipe, setup, 0, train=False)
    classes = len(data.class_names)
    top = min(5, classes)
    accuracy = {
        k: MulticlassAccuracy(classes, top_k=min(k, classes), average="micro").to(setup.device)
        for k in (1, 5)
    }
    labels_seen, best_seen, losses = [], [], []
    forward = setup.fabric.autocast
    model.eval()
    with torch.inference_mode(), forward():
        for images, labels in batches.epoch(0):
            logits = model(images).float()
            for metric in accuracy.values():
                metric.update(logits, labels)
            labels_seen.append(labels)
            best_seen.append(logits.topk(top).indices)
            losses.append(F.cross_entropy(logits, labels, reduction="none"))
    loss = torch.cat(losses)
    record = {
        f"{split}_loss": loss.double().mean().item() if loss.isfinite().all() else None,
        # Rounded where float32 ends: 10, not 10.000000149.
        f"{split}_top1_percent": round(100 * accuracy[1].compute().item(), 4),
        f"{split}_top5_percent": round(100 * accuracy[5].compute().item(), 4),
    }
    images_ = {"labels": torch.cat(labels_seen), "top5": torch.cat(best_seen), "loss": loss}
    return record, {name: values.cpu().numpy() for name, values in images_.items()}


def _seed_globally(seed: int, epoch: int) -> None:
    drawn = np.random.SeedSequence([seed, epoch, 1]).generate_state(2)
    torch.manual_seed(int(drawn[0]))
    np.random.seed(int(drawn[1]))  # timm's Mixup draws from NumPy's global generator


def _mixing(recipe: Recipe, classes: int) -> Callable[..., tuple[Tensor, Tensor]] | None:
    if not (recipe.mixup or recipe.cutmix):
        return None
    return Mixup(
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        label_smoothing=recipe.label_smoothing,
        num_classes=classes,
    )


def _smoothing(recipe: Recipe, mix: object) -> float:
    return recipe.label_smoothing if mix is None else 0.0  # Mixup has smoothed its targets
