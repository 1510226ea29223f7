"""A network in one file that rebuilds itself: its tensors, and as metadata what it is.

The file is ``.safetensors``; its metadata's ``blocklab`` is JSON: ``model`` (the specification)
and what `blocklab.models.use` says of images and classes.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from blocklab.backbones.base import Backbone
from blocklab.errors import InputError, RunError, error_line
from blocklab.files import file_sha256, parse_json, read_checked_json, write_atomically
from blocklab.models.probe import ImageSize
from blocklab.models.random_state import random_state_kept
from blocklab.models.rebuilding import check_computes, check_rebuilds, specification
from blocklab.models.spec import ModelSpec
from blocklab.models.use import describe_use, kept_names, set_use, use_of_run
from blocklab.models.weights import load_weights

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
