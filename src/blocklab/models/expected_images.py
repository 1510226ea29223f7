"""What images the weights in a file were trained with, as far as anything beside them says it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blocklab.data.normalisation import Channels
from blocklab.errors import BlocklabError
from blocklab.files import LARGEST_JSON, parse_json, read_checked_json, read_regular
from blocklab.models.checkpoint import FILES_OF_A_FOLDER, Source, weights_file
from blocklab.models.hub_weights import hub_config, is_hub_address
from blocklab.models.model_file import RUN, read_description
from blocklab.models.use import use_of_run


def normalisation_of(file: Path, config: Path | None = None) -> tuple[Channels, Channels] | None:
    """Return mean and SD, a channel of pixels from 0 to 1; None where nobody says them.

    A file of `model_file.save_model` says them itself, and a run's folder in its ``run.json``;
    `config` is the ``config.json`` that timm writes for the hub.
    """
    try:
        said = _said(file, config)
        mean, std = _channels(said["mean"]), _channels(said["std"])
    except (KeyError, ValueError, TypeError):
        return None
    return (mean, std) if min(std) > 0 else None


def use_of_weights(source: Source, in_chans: int, classes: int | None) -> dict[str, Any]:
    """Return what is said beside weights of their images and classes, as `set_use` takes it.

    That is nothing of tensors, or of a file that nobody described. Mean and SD of other channels
    are left out, and names of other classes (None: the head is not theirs).

    Raises:
        InputError, RunError: as `checkpoint.weights_file`.
    """
    if isinstance(source, Mapping):
        return {}
    where = os.fspath(source)
    config = hub_config(where) if is_hub_address(where) else None
    said = dict(_said(weights_file(where), config))
    counts = {"mean": in_chans, "std": in_chans, "class_names": classes}
    for key, count in counts.items():
        if key in said and not (isinstance(said[key], list | tuple) and len(said[key]) == count):
            del said[key]
    return said


def _said(file: Path, config: Path | None) -> Mapping[str, Any]:
    """Return what is said, unchecked: by the file, else by its run, else by the hub's config."""
    try:
        said: Mapping[str, Any] = read_description(file)
    except BlocklabError:  # it says nothing, or its run has not ended
        said = {}
    if "mean" in said:
        return said
    try:
        run = read_checked_json(file.with_name(RUN)) if file.name in FILES_OF_A_FOLDER else None
        return use_of_run(run) if run else {**said, **_hub_config(config)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return said


def _hub_config(file: Path | None) -> Mapping[str, Any]:
    if file is None:
        return {}
    config = parse_json(read_regular(file, LARGEST_JSON))
    cfg = dict(config.get("pretrained_cfg", config))  # older versions wrote it at the top
    if isinstance(size := cfg.pop("input_size", None), list):
        cfg["input_size"] = size[1:]
    return {**cfg, "class_names": config.get("label_names", cfg.get("label_names"))}


def _channels(values: Any) -> Channels:
    red, green, blue = map(float, values)
    return red, green, blue
