"""What a run is run on, and what run.json holds of it."""

import hashlib
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
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

UNRECORDED = "unrecorded"  # what older runs do not say

# The rooms whose code a run's bits come from.
_ROOMS = ("kernels", "blocks", "data", "backbones", "models", "measure", "training")


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
        **_trained_by(setup.device),
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


def _trained_by(device: torch.device) -> dict[str, dict[str, Any]]:
    name = "cpu" if device.type == "cpu" else device_name(device)
    machine = {"cpu": processor(), "cores": available_cores(), "device": name}
    return {"versions": versions(), "machine": machine}


def taken_over(
    run: Mapping[str, Any], before: Mapping[str, Any], device: torch.device, epochs: int
) -> dict[str, Any]:
    """Return run.json for a run of which `epochs` were trained as run.json `before` says.

    Its versions and machine are those that it goes on with; where they were others before, those
    stand under `earlier`, with the last of their epochs.
    """
    now = _trained_by(device)
    parts = [
        *before.get("earlier", []),
        {"to_epoch": epochs, **{name: before[name] for name in now}},
    ]
    earlier: list[dict[str, Any]] = []
    for part in parts:  # a checkpoint may be older than run.json
        last = min(part["to_epoch"], epochs)
        if last > (earlier[-1]["to_epoch"] if earlier else 0):
            earlier.append({**part, "to_epoch": last})
    if earlier and not _differences(earlier[-1], now):
        earlier.pop()
    kept = {name: value for name, value in run.items() if name != "earlier"}
    return {**kept, **now, **({"earlier": earlier} if earlier else {})}


def earlier_parts(run: Mapping[str, Any]) -> list[str]:
    """Say which epochs of a run were trained by other versions, or on another machine, than its
    last ones."""
    said, first = [], 1
    for part in run.get("earlier", []):
        last = part["to_epoch"]
        epochs = f"epoch {first} was" if first == last else f"epochs {first} to {last} were"
        if differing := _differences(part, run):
            said.append(f"{epochs} trained by {', '.join(differing)}")
        first = last + 1
    return said


def _differences(part: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    """Say what may change bits and was other than it is; how many cores there are does not."""
    return [
        f"{name} {part[what].get(name, UNRECORDED)} (then {run[what].get(name, UNRECORDED)})"
        for what in ("versions", "machine")
        for name in {**part[what], **run[what]}
        if name != "cores" and part[what].get(name) != run[what].get(name)
    ]


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
    """Return the versions that a run's bits may depend on; of blocklab, its code too."""
    return {
        "blocklab": version("blocklab"),
        "code": code_of(Path(__file__).parents[1]),
        "torch": str(torch.__version__),  # it is of a class of its own
        "timm": timm.__version__,
        "python": platform.python_version(),
    }


@cache
def code_of(package: Path) -> str:
    """Return eight digits of the SHA-256 of the code that trains: two of one version may differ."""
    digest = hashlib.sha256()
    for room in _ROOMS:
        for file in sorted((package / room).rglob("*.py")):
            digest.update(f"{file.relative_to(package).as_posix()}\0".encode())
            digest.update(file.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:8]


def _absolute(source: str) -> str:
    """Return an address whose path holds from any folder."""
    kind, colon, path = source.partition(":")
    return f"{kind}:{Path(path).expanduser().absolute()}" if colon else source
