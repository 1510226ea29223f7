"""A network in one file that rebuilds itself: its tensors, and as metadata what it is.

The file is ``.safetensors``; its metadata's ``blocklab`` is JSON: ``model`` (the specification),
``num_classes``, ``in_chans``, ``class_names`` and ``version``.
"""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from blocklab.backbones.base import Backbone
from blocklab.errors import InputError, RunError, error_line
from blocklab.files import file_sha256, read_checked_json, write_atomically
from blocklab.models.spec import ModelSpec
from blocklab.models.weights import load_weights

KEY = "blocklab"
WEIGHTS, CONFIG = "model.safetensors", "config.json"
RUN, RESULT = "run.json", "result.json"  # of a run's folder, whose weights say nothing themselves


def describe_saved(model: Backbone, class_names: Sequence[str] = ()) -> dict[str, Any]:
    """Return what rebuilds a network, as plain JSON.

    Raises:
        InputError: if the names of classes are not as many as the network's outputs.
    """
    if class_names and len(class_names) != model.num_classes:
        raise InputError(
            f"{len(class_names)} class names for {model.num_classes} outputs; give one for each"
        )
    return {
        "model": ModelSpec(model.family, model.config).to_dict(),
        "num_classes": model.num_classes,
        "in_chans": model.in_chans,
        "class_names": list(class_names),
        "version": version("blocklab"),
    }


def save_model(model: Backbone, path: Path, class_names: Sequence[str] = ()) -> None:
    """Write a network to a ``.safetensors`` file that `load_model` rebuilds it from.

    Raises:
        InputError: if the network was pruned, or the names of classes are not as many as outputs.
        RunError: if the file cannot be written.
    """
    if model.pruned:
        raise InputError("the network was pruned to some stages; save the whole one")
    metadata = {"format": "pt", KEY: json.dumps(describe_saved(model, class_names))}
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

    A finished run's folder, or its ``model.safetensors``, is such a file too.

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
        model = spec.build(about["num_classes"], about["in_chans"])
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{file} does not say what network it holds ({error_line(error)})"
        ) from None
    load_weights(model, file)
    return model.eval()


def read_description(file: Path) -> dict[str, Any]:
    """Read what `save_model` wrote about a network, or what a run's folder says of its own.

    Raises:
        InputError: if the file is not there, is damaged, or was written by something else.
        RunError: if a file of a run's folder is damaged.
    """
    if not file.is_file():
        if (file.parent / RUN).is_file():
            raise InputError(f"{file.parent} has no {file.name} yet; let its run end first")
        raise InputError(f"no file {file}; check the path")
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
        about = json.loads(metadata.get(KEY, "null"))
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


def _of_run(folder: Path) -> dict[str, Any]:
    """Say what network a run's folder holds; its weights are checked as they are loaded.

    Raises:
        RunError: if what it goes by is damaged.
    """
    run, result = (read_checked_json(folder / name) or {} for name in (RUN, RESULT))
    try:
        whole = result["files"][RUN]["sha256"] == file_sha256(folder / RUN)
        names, model = list(run["class_names"]), run["definition"]["model"]
    except (KeyError, TypeError):
        whole, names, model = False, [], {}
    if not whole:
        raise RunError(f"{RUN} or {RESULT} in {folder} is damaged or gone; run it again")
    return {"model": model, "num_classes": len(names), "in_chans": 3, "class_names": names}


__all__ = ["CONFIG", "WEIGHTS", "describe_saved", "load_model", "read_description", "save_model"]
