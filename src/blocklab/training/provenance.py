"""What a run is run on, and what run.json holds of it."""

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import timm
import torch

from blocklab.data.image_data import ImageData
from blocklab.measure.cost import Cost
from blocklab.measure.device import device_name, processor
from blocklab.models.pretrained import Pretrained
from blocklab.models.weights import LoadReport
from blocklab.training.device import Setup, available_cores


def describe_run(
    definition: dict[str, Any],
    source: str,
    label: str,
    data: ImageData,
    counted: Cost,
    setup: Setup,
    threads: int,
) -> dict[str, Any]:
    """Return what run.json holds: the definition, on what it runs, and facts about its data."""
    return {
        "definition": definition,
        "data_address": _absolute(source),
        "label": label,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "machine": {
            "cpu": processor(),
            "cores": available_cores(),
            "device": "cpu" if setup.device.type == "cpu" else device_name(setup.device),
        },
        **setup.describe(),
        "threads": threads,
        "class_names": list(data.class_names),
        "image_size": data.image_size,
        "train_images": len(data.train),
        "validation_images": len(data.validation),
        "test_images": len(data.test),
        # Where none were looked for, it is described as it was before there was a choice.
        **({"test_images_left_out": data.test_left_out} if data.test_left_out is not None else {}),
        "data_fingerprint": data.fingerprint,
        "data_mean": list(data.mean),
        "data_std": list(data.std),
        "cost": {
            "macs": counted.macs,
            "params": counted.params,
            "input_size": data.image_size,
        },
    }


def described_start(pretrained: Pretrained, loaded: LoadReport) -> dict[str, Any]:
    """Return what run.json holds of the weights that a run started from, tensor by tensor."""
    return {
        "weights": pretrained.weights,
        "sha256": pretrained.sha256,
        "names": loaded.source,
        "loaded": list(loaded.loaded),
        "fresh": list(loaded.fresh),
        "adapted": list(loaded.adapted),
        "missing": list(loaded.missing),
        "mismatched": list(loaded.mismatched),
        "unexpected": list(loaded.unexpected),
    }


def versions() -> dict[str, str]:
    """Return the versions that a run's bits may depend on."""
    return {
        "blocklab": version("blocklab"),
        "torch": str(torch.__version__),  # it is of a class of its own
        "timm": timm.__version__,
        "python": platform.python_version(),
    }


def _absolute(source: str) -> str:
    """Return an address whose path holds from any folder."""
    kind, colon, path = source.partition(":")
    return f"{kind}:{Path(path).expanduser().absolute()}" if colon else source
