"""What goes into a network and comes out: its images, and the names of its classes.

As plain JSON that is ``num_classes``, ``in_chans``, ``class_names``, ``version`` and, where they
are known, ``input_size`` (height, width) and ``mean`` and ``std``, a channel each, that images from
0 to 1 are normalised with. A network keeps it in its ``pretrained_cfg``, as timm's do.
"""

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from torch import nn

from blocklab.backbones.base import Backbone
from blocklab.data.normalisation import INTERPOLATION, crop_share, normalised_by
from blocklab.errors import InputError
from blocklab.models.probe import ImageSize, check_input_size


def describe_use(
    num_classes: int | None,
    in_chans: int,
    class_names: Sequence[str] = (),
    input_size: ImageSize | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Return what goes into a network and comes out, as plain JSON; what is not known is left out.

    Raises:
        InputError: as `describe_saved`.
    """
    if class_names and len(class_names) != num_classes:
        raise InputError(
            f"{len(class_names)} class names for {num_classes or 'no'} outputs; give one for each"
        )
    known: dict[str, Any] = {"mean": mean, "std": std}
    known = {key: _channels(value, key, in_chans) for key, value in known.items() if value}
    if input_size is not None:
        known["input_size"] = list(check_input_size(input_size))
    return {
        "num_classes": num_classes,
        "in_chans": in_chans,
        "class_names": list(class_names),
        "version": version("blocklab"),
        **known,
    }


def kept_names(model: nn.Module) -> Sequence[str]:
    """Return the names of a network's classes that it was loaded with; none of another head."""
    if not isinstance(model, Backbone):  # timm's keep them when the head is another
        return ()
    names = model.pretrained_cfg.get("label_names") or ()
    return names if len(names) == model.num_classes else ()


def _channels(values: Any, what: str, in_chans: int) -> list[float]:
    """Return the mean or SD of each channel as plain numbers."""
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        numbers = []
    good = len(numbers) == in_chans and all(map(math.isfinite, numbers))
    if not good or (what == "std" and min(numbers) <= 0):
        above = " above 0" if what == "std" else ""
        raise InputError(f"{what} is a number{above} for each of {in_chans} channels, not {values}")
    return numbers


def set_use(model: Backbone, about: Mapping[str, Any], what: str) -> None:
    """Put what is known of images and classes into a network's ``pretrained_cfg``, as timm has it.

    Raises:
        InputError: if it is not as `describe_use` says it; `what` says of what.
    """
    cfg = model.pretrained_cfg
    try:
        for key in ("mean", "std"):
            if about.get(key) is not None:
                cfg[key] = tuple(_channels(about[key], key, model.in_chans))
        if (size := about.get("input_size")) is not None:
            cfg["input_size"] = (model.in_chans, *check_input_size(size))
        if (share := about.get("crop_pct")) is not None:
            cfg["crop_pct"] = _share(share)
    except InputError as error:
        raise InputError(f"{what}: {error}; export the network again") from None
    if isinstance(how := about.get("interpolation"), str):
        cfg["interpolation"] = how
    names = about.get("class_names")
    if isinstance(names, list | tuple) and names:
        cfg["label_names"] = list(names)


def _share(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1:
        raise InputError(f"crop_pct is a number above 0 and up to 1, not {value!r}")
    return float(value)


def use_of_run(run: Mapping[str, Any]) -> dict[str, Any]:
    """Say by its run.json what goes into a run's network and comes out, as `set_use` takes it."""
    use: dict[str, Any] = {"class_names": list(run["class_names"])}
    if (side := run.get("image_size")) is None:  # of a version that did not say it
        return use
    definition = run["definition"]
    normalize = definition["recipe"].get("normalize", "dataset")
    mean, std = normalised_by(normalize, run["data_mean"], run["data_std"])
    crop_pct = crop_share(side, definition["data"].get("kept_size"))
    use |= {"input_size": [side] * 2, "mean": list(mean), "std": list(std), "crop_pct": crop_pct}
    return use | {"interpolation": INTERPOLATION}
