"""A network in one file that rebuilds itself: its tensors, and as metadata what it is.

The file is ``.safetensors``; its metadata's ``blocklab`` is JSON: ``model`` (the specification),
``num_classes``, ``in_chans``, ``class_names``, ``version`` and, where they are known,
``input_size`` (height, width) and ``mean`` and ``std``, a channel each, that images from 0 to 1 are
normalised with.
"""

import json
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from blocklab.backbones.base import Backbone
from blocklab.data.normalisation import INTERPOLATION, crop_share, normalised_by
from blocklab.errors import InputError, RunError, error_line
from blocklab.files import file_sha256, parse_json, read_checked_json, write_atomically
from blocklab.models.deploy import copy_of
from blocklab.models.export_trial import compare, make_trials
from blocklab.models.hub_weights import CONFIG
from blocklab.models.probe import ImageSize, check_input_size
from blocklab.models.random_state import random_state_kept
from blocklab.models.spec import ModelSpec, spec_of
from blocklab.models.weights import load_weights, match_weights

KEY = "blocklab"
WEIGHTS = "model.safetensors"
RUN, RESULT = "run.json", "result.json"  # of a run's folder, whose weights say nothing themselves


def describe_saved(
    model: Backbone,
    class_names: Sequence[str] = (),
    input_size: ImageSize | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Return what rebuilds a network and what goes in and comes out, as plain JSON.

    Raises:
        InputError: if it is no network of blocklab's or not as its specification builds it, if the
            names of classes are not as many as its outputs, or if `mean` and `std` are not a number
            for each channel.
    """
    check_rebuilds(model)
    names = class_names or kept_names(model)
    return {
        "model": specification(model).to_dict(),
        **describe_use(model.num_classes, model.in_chans, names, input_size, mean, std),
    }


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


def check_rebuilds(model: nn.Module) -> None:
    """Refuse a network that its specification does not rebuild, by its tensors' names and shapes.

    Raises:
        InputError: if it is one of somebody else's, was pruned, deployed, or changed by hand.
    """
    spec = specification(model)
    if getattr(model, "pruned", ()):
        raise InputError("the network was pruned to some stages; take the whole one")
    if isinstance(model, Backbone) and model.global_pool != "avg":
        raise InputError(
            "the network gives a map (global_pool=''), which its specification does not; export it "
            "as onnx or torch_export"
        )
    known = cast(Any, model)
    size = known.pretrained_cfg["input_size"][1:]
    meta = spec.build_meta(known.num_classes, known.in_chans, tuple(size))
    try:
        match_weights(meta, model.state_dict())
    except InputError as error:
        raise InputError(
            "the network is not as its specification builds it (deployed, or a part or the head "
            f"changed by hand): {error}. Take the one before it was deployed, reset_classifier() "
            "for another head, or export it as onnx or torch_export"
        ) from None


def check_computes(model: nn.Module, size: ImageSize) -> None:
    """Refuse a network that gives something else than its specification with the same tensors.

    Raises:
        InputError: if it does, or does not take images of this size.
    """
    known, sides = cast(Any, model), check_input_size(size)
    with random_state_kept():
        given = copy_of(model).eval().cpu().float()
        rebuilt = specification(model).build(known.num_classes, known.in_chans, sides).eval()
        load_weights(rebuilt, given.state_dict())
        trials = make_trials(given, sides, ("batch",), ())
        if not all(bool(one.isfinite().all()) for one in trials[0].expected):
            return  # what is no number cannot be compared
        try:
            compare(rebuilt, given, trials, deploy=False, fp16=False)
        except RunError:
            raise InputError(
                "the network computes something else than its specification, by the same tensors "
                "(a part without tensors was changed by hand); export it as onnx or torch_export"
            ) from None


def specification(model: nn.Module) -> ModelSpec:
    """Return what builds such a network.

    Raises:
        InputError: if it is one of somebody else's.
    """
    spec = spec_of(model)
    if spec is None:
        raise InputError(
            f"a file of tensors rebuilds a network of blocklab's, and this is a "
            f"{type(model).__name__}; export it as onnx or torch_export"
        )
    return spec


def save_model(
    model: Backbone,
    path: Path,
    class_names: Sequence[str] = (),
    input_size: ImageSize | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> None:
    """Write a network to a ``.safetensors`` file that `load_model` rebuilds it from.

    Raises:
        InputError: as `describe_saved`, before anything is written.
        RunError: if the file cannot be written.
    """
    about = describe_saved(model, class_names, input_size, mean, std)
    check_computes(model, input_size or model.pretrained_cfg["input_size"][1:])
    write_tensors(model, path, about)


def write_tensors(model: nn.Module, path: Path, about: Mapping[str, Any]) -> None:
    """Write a network's tensors, and as metadata what `describe_saved` says of it."""
    metadata = {"format": "pt", KEY: json.dumps(about)}
    tensors = _apart(model.state_dict())
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))


def _apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # safetensors takes no two names of one memory (a module that is shared), nor strides.
    seen: set[int] = set()
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        value = value.detach().cpu().contiguous()
        tensors[name] = value.clone() if value.data_ptr() in seen else value
        seen.add(value.data_ptr())
    return tensors


def load_model(path: str | Path) -> Backbone:
    """Rebuild a network, in evaluation mode, from a file of `save_model` or a folder with one.

    A finished run's folder, or its ``model.safetensors``, is such a file too. The network's
    ``pretrained_cfg`` has the size, mean and SD of images and the names of classes, where they are
    said. Random states are as before.

    Raises:
        InputError: if it is not there, says not what network it holds, or needs a block that is not
            registered.
        RunError: if a file of a run's folder is damaged.
    """
    path = Path(path)
    file = path / WEIGHTS if path.is_dir() else path
    about = read_description(file)
    try:
        spec = ModelSpec.from_dict(about["model"])
        with random_state_kept():
            model = spec.build(about["num_classes"], about["in_chans"], about.get("input_size"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{file} does not say what network it holds ({error_line(error)})"
        ) from None
    load_weights(model, file)
    set_use(model, about, str(file))
    return model.eval()


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


def read_description(file: Path) -> dict[str, Any]:
    """Read what `save_model` wrote about a network, or what a run's folder says of its own.

    Raises:
        InputError: if the file is not there, is damaged, or was written by something else.
        RunError: if a file of a run's folder is damaged.
    """
    if not file.is_file():
        if (file.parent / RUN).is_file():
            ended = "its run diverged, or they were not kept; name another run, or train it again"
            mend = "let its run end first: run its study or training again, which goes on"
            said = ended if (file.parent / RESULT).is_file() else mend
            raise InputError(f"{file.parent} has no {file.name}; {said}")
        raise InputError(f"no file {file}; check the path")
    try:
        about = _metadata(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{file} is damaged or no .safetensors file ({error_line(error)}); copy it again"
        ) from None
    if about is None and (file.parent / RUN).is_file():
        return _of_run(file.parent)
    if not isinstance(about, dict):
        raise InputError(
            f"{file} does not say what network it holds; create that with blocklab.create_model("
            "NAME, pretrained=FILE)"
        )
    return about


def is_described(file: Path) -> bool:
    """Whether a file is one that `save_model` wrote; a run's weights are not."""
    try:
        return file.is_file() and isinstance(_metadata(file), dict)
    except (SafetensorError, OSError, ValueError):
        return False


def _metadata(file: Path) -> Any:
    """Return what a file says of its network; None where it says nothing."""
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata() or {}
    return parse_json(metadata.get(KEY, "null").encode())


def _of_run(folder: Path) -> dict[str, Any]:
    """Say what network a run's folder holds; its weights are checked as they are loaded.

    Raises:
        RunError: if what it goes by is damaged.
    """
    run, result = (read_checked_json(folder / name) or {} for name in (RUN, RESULT))
    try:
        whole = result["files"][RUN]["sha256"] == file_sha256(folder / RUN)
        names, model = list(run["class_names"]), run["definition"]["model"]
        use = use_of_run(run)
    except (AttributeError, KeyError, TypeError):
        whole, names, model, use = False, [], {}, {}
    if not whole:
        raise RunError(f"{RUN} or {RESULT} in {folder} is damaged or gone; run it again")
    return {
        "model": model,
        "num_classes": len(names),
        "in_chans": 3,
        **use,
    }


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


__all__ = [
    "CONFIG",
    "KEY",
    "WEIGHTS",
    "check_computes",
    "check_rebuilds",
    "describe_saved",
    "describe_use",
    "is_described",
    "kept_names",
    "load_model",
    "read_description",
    "save_model",
    "set_use",
    "specification",
    "use_of_run",
    "write_tensors",
]
