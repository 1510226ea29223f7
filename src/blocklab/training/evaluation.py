"""Measuring a network on a split: loss, top-1 and top-5, and its answer to each image."""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from blocklab.data.image_data import ImageData
from blocklab.training.batches import make_batches
from blocklab.training.device import Setup
from blocklab.training.recipe import Recipe


def evaluate(
    model: nn.Module, data: ImageData, split: str, recipe: Recipe, setup: Setup
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Measure a network on ``validation`` or ``test``.

    Each of several processes takes a part of the images; all of them return the whole's figures.

    Returns:
        Loss, top-1 and top-5 (percent), under the split's name; and per image the label, the five
        (or all) highest classes and the loss.
    """
    part = setup.share_of(getattr(data, split))
    top = min(5, len(data.class_names))
    labels_seen = [torch.empty(0, dtype=torch.int64)]  # a part may be empty
    best_seen = [torch.empty((0, top), dtype=torch.int64)]
    losses = [torch.empty(0)]
    model.eval()
    with torch.inference_mode(), setup.fabric.autocast():
        batches = make_batches(part, data, recipe, setup, 0, train=False) if len(part) else None
        for images, labels in batches.epoch(0) if batches else ():
            logits = model(images).float()
            labels_seen.append(labels)
            best_seen.append(logits.topk(top).indices)
            losses.append(F.cross_entropy(logits, labels, reduction="none"))
    labels, best, loss = (
        setup.gather(torch.cat([rows.to(setup.device) for rows in seen]))
        for seen in (labels_seen, best_seen, losses)
    )
    hits = best == labels[:, None]  # (N, top)
    record = {
        f"{split}_loss": loss.double().mean().item() if loss.isfinite().all() else None,
        f"{split}_top1_percent": 100 * int(hits[:, 0].sum()) / len(labels),
        f"{split}_top5_percent": 100 * int(hits.sum()) / len(labels),
    }
    images_ = {"labels": labels, "top5": best, "loss": loss}
    return record, {name: values.numpy() for name, values in images_.items()}
