"""What images the weights in a file were trained with, as far as anything beside them says it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blocklab.data.normalisation import Channels
from blocklab.errors import BlocklabError
from blocklab.files import LARGEST_JSON, parse_json, read_checked_json, read_regular
from blocklab.models.checkpoint import FILES_OF_A_FOLDER
from blocklab.models.model_file import RUN, read_description, use_of_run


def normalisation_of(file: Path, config: Path | None = None) -> tuple[Channels, Channels] | None:
    """Return mean and SD, a channel of pixels from 0 to 1; None where nobody says them.

    A file of `model_file.save_model` says them itself, and a run's folder in its ``run.json``;
    `config` is the ``config.json`` that timm writes for the hub.
    """
    try:
        said: Mapping[str, Any] = read_description(file)
    except BlocklabError:  # it says nothing, or its run has not ended
        said = {}
    try:
        if "mean" not in said:
            run = read_checked_json(file.with_name(RUN)) if file.name in FILES_OF_A_FOLDER else None
            said = use_of_run(run) if run else _hub_config(config)
        mean, std = _channels(said["mean"]), _channels(said["std"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return (mean, std) if min(std) > 0 else None


def _hub_config(file: Path | None) -> Mapping[str, Any]:
    if file is None:
        return {}
    config = parse_json(read_regular(file, LARGEST_JSON))
    return config.get("pretrained_cfg", config)  # older versions wrote it at the top


def _channels(values: Any) -> Channels:
    red, green, blue = map(float, values)
    return red, green, blue
