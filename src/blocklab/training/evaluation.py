"""Measuring a network on a split: loss, top-1 and top-5, and its answer to each image."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocklab.data.image_data import ImageData
from blocklab.training.batches import make_batches
from blocklab.training.device import Setup
from blocklab.training.logits import kept_form
from blocklab.training.recipe import Recipe

MOST_LOOKED_AT = 2_000  # training images, to tell whether a network has learned anything


def evaluate(
    model: nn.Module,
    data: ImageData,
    split: str,
    recipe: Recipe,
    setup: Setup,
    keep_logits: bool = False,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Measure a network on ``validation``, ``test`` or ``train``, none of them augmented.

    Each of several processes takes a part of the images; all of them return the whole's figures.

    Returns:
        Loss, top-1 and top-5 (percent), under the split's name; and per image the label, the five
        (or all) highest classes and the loss; and with `keep_logits` all logits, in fp16.
    """
    part = setup.share_of(getattr(data, split))
    top = min(5, len(data.class_names))
    labels_seen = [torch.empty(0, dtype=torch.int64)]  # a part may be empty
    best_seen = [torch.empty((0, top), dtype=torch.int64)]
    losses = [torch.empty(0)]
    kept = [torch.empty((0, len(data.class_names)), dtype=torch.float16)]
    model.eval()
    with torch.inference_mode(), setup.fabric.autocast():
        batches = make_batches(part, data, recipe, setup, 0, train=False) if len(part) else None
        for images, labels in batches.epoch(0) if batches else ():
            logits = model(images).float()
            labels_seen.append(labels)
            best_seen.append(logits.topk(top).indices)
            losses.append(F.cross_entropy(logits, labels, reduction="none"))
            if keep_logits:
                kept.append(kept_form(logits))

    def joined(seen: list[Tensor]) -> Tensor:
        return setup.gather(torch.cat([rows.to(setup.device) for rows in seen]))

    labels, best, loss = map(joined, (labels_seen, best_seen, losses))
    hits = best == labels[:, None]  # (N, top)
    record = {
        f"{split}_loss": loss.double().mean().item() if loss.isfinite().all() else None,
        f"{split}_top1_percent": 100 * int(hits[:, 0].sum()) / len(labels),
        f"{split}_top5_percent": 100 * int(hits.sum()) / len(labels),
    }
    images_ = {"labels": labels, "top5": best, "loss": loss}
    if keep_logits:
        images_["logits"] = joined(kept)
    return record, {name: values.numpy() for name, values in images_.items()}


def is_at_chance(
    model: nn.Module, data: ImageData, recipe: Recipe, setup: Setup, train_top1: float | None
) -> bool:
    """Whether a network knows its own training images no better than the commonest class does.

    `train_top1` is the last epoch's, in percent, measured while it trained; only where that is no
    better than chance (or was not measured) are some of the images looked at once more.
    """
    counts = np.bincount(data.train.targets)
    chance = counts.max() / counts.sum()

    def no_better(share: float, images: int) -> bool:
        return share <= chance + 2 * math.sqrt(chance * (1 - chance) / images)

    if train_top1 is not None and not no_better(train_top1 / 100, len(data.train)):
        return False
    every = max(1, len(data.train) // MOST_LOOKED_AT)
    some = replace(data.train, indices=data.train.indices[::every])
    record, _ = evaluate(model, replace(data, train=some), "train", recipe, setup)
    return no_better(record["train_top1_percent"] / 100, len(some))
