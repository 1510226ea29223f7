"""Networks for other programs: safetensors, ONNX, `torch.export`, a folder for the hub.

What can be known before is checked before anything is written. What was written is read again and
run on other images than it was traced with, of other sizes where these are free; only if its
outputs are the network's does it take its place.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from torch import Tensor, nn

from blocklab.backbones.base import Backbone
from blocklab.blocks.protocol import mixed_by
from blocklab.errors import InputError
from blocklab.models.deploy import DeployReport, copy_of, merge
from blocklab.models.deploy import deploy as deploy_model
from blocklab.models.export_place import check_own, check_place, staged
from blocklab.models.export_trial import TRACED, Trial, compare, make_trials
from blocklab.models.graph_export import (
    AXES,
    OPSET,
    GraphForm,
    is_exported,
    require_onnx,
    write_onnx,
    write_torch_export,
)
from blocklab.models.graph_form import InGraph, in_half
from blocklab.models.hub import Card, changed_files, normalisation, preparation, write_hub
from blocklab.models.model_file import describe_saved, is_described, load_model, write_tensors
from blocklab.models.probe import ImageSize, channels_of, check_input_size, plain_size, size_text
from blocklab.models.random_state import random_state_kept
from blocklab.models.rebuilding import check_rebuilds
from blocklab.models.use import describe_use, kept_names

ExportFormat = Literal["safetensors", "onnx", "torch_export", "hub"]
ENDINGS: dict[str, str] = {"safetensors": ".safetensors", "onnx": ".onnx", "torch_export": ".pt2"}
_GRAPHS = ("onnx", "torch_export")


@dataclass(frozen=True)
class Exported:
    """What was written, and how far its outputs were from the network's.

    `difference` is relative to the largest output. `dynamic` are a graph's free axes. `report` says
    what deploying did and kept.
    """

    path: Path
    format: str
    input_size: ImageSize
    deployed: bool
    difference: float
    dynamic: tuple[str, ...] = ()
    fp16: bool = False
    normalized: bool = False
    report: DeployReport | None = None

    def __str__(self) -> str:
        said = [self.format, "deployed form" if self.deployed else "training form"]
        said += ["fp16"] * self.fp16 + ["normalises inside"] * self.normalized
        free = f" (free: {', '.join(self.dynamic)})" if self.dynamic else ""
        done = f"; {self.report}" if self.report else ""
        return (
            f"{self.path} ({', '.join(said)}, {size_text(self.input_size)}{free}; outputs differ "
            f"by {self.difference:.1e}){done}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {**asdict(self), "path": str(self.path)}


def export_model(
    model: nn.Module,
    path: str | os.PathLike[str],
    format: ExportFormat,
    input_size: ImageSize | None = None,
    deploy: bool = False,
    class_names: Sequence[str] = (),
    card: Card | None = None,
    *,
    dynamic: Sequence[str] | None = None,
    opset: int | None = None,
    fp16: bool = False,
    normalized: bool = False,
    force: bool = False,
) -> Exported:
    """Write a network for other programs, and check what was written. The network stays as it is.

    Random states are as before.

    Args:
        model: the network. One that blocklab did not build, that gives features, or that was
            deployed or changed by hand has a graph alone.
        path: the file, or the folder for ``hub``.
        format: ``safetensors`` (`load_model` reads it), ``onnx``, ``torch_export`` or ``hub``.
        input_size: of the images: a side, or height and width (default: what the network's
            ``pretrained_cfg`` says).
        deploy: write the form for use: kernels merged and, where height and width are fixed, cut to
            the images, BatchNorm folded; in ``safetensors`` and ``hub``, whose tensors keep their
            names, kernels merged alone.
        class_names: names of the outputs, kept in the file (default: those it was loaded with).
        card: what the model card of ``hub`` tells besides. Its mean and SD (else those of
            ``pretrained_cfg``) are kept in every format.
        dynamic: of a graph: which of ``batch``, ``height`` and ``width`` are free (default: the
            batch). A batch that is not is of one image.
        opset: of ``onnx`` (default 18).
        fp16: keep weights and compute in half precision; images and outputs stay float32.
        normalized: of a graph: take images from 0 to 1 and normalise them inside.
        force: replace what is there, whoever wrote it.

    Raises:
        InputError: for an unknown format or option, a network that the format cannot hold or that
            cannot take such images, a path that cannot be written or holds something else, or
            packages that are missing: before anything is written.
        RunError: if writing fails, or the outputs of what was written differ: then nothing is left.
    """
    form = _checked_form(format, dynamic, opset, normalized)
    path = Path(path)
    check_place(path, folder=format == "hub")
    check_own(_others(path, format), force)
    if format in _GRAPHS:
        if said := mixed_by(model):
            raise InputError(
                f"a graph takes one image too, and this network mixes those of a batch ({said}); "
                "export it as safetensors"
            )
    else:
        check_rebuilds(model)
    card = card or Card()
    mean, std = normalisation(model, card)
    if normalized and (mean is None or std is None):
        raise InputError("mean and SD are not known; give a card: Card(mean=..., std=...)")
    with random_state_kept():
        original = copy_of(model, "cpu").eval().float()
        inside = (mean, std) if normalized else ()
        trials = make_trials(original, _size(model, input_size), form.dynamic, inside)
        size, outputs = trials[0].size, trials[0].expected
        about = _about(model, outputs, class_names, size, mean, std) | preparation(model)
        if format in _GRAPHS:
            about |= {"fp16": fp16, "normalizes": normalized, "dynamic": list(form.dynamic)}
        network: nn.Module = original
        report: DeployReport | None = None
        if deploy:
            fixed = not {"height", "width"} & set(form.dynamic)
            network = _deployed(original, format in _GRAPHS, size if fixed else None)
            report = cast(DeployReport, network.deploy_report)
        if fp16:
            network = in_half(network)
        with staged(path, folder=format == "hub") as place:
            written = _write(network, place, format, form, about, card, trials[0], fp16)
            difference = compare(written, original, trials, deploy, fp16)
    free = form.dynamic if format in _GRAPHS else ()
    return Exported(
        path, format, plain_size(size), deploy, difference, free, fp16, normalized, report
    )


def _checked_form(
    format: str, dynamic: Sequence[str] | None, opset: int | None, normalized: bool
) -> GraphForm:
    if format not in get_args(ExportFormat):
        raise InputError(f"no format '{format}'; formats: {', '.join(get_args(ExportFormat))}")
    given = {"dynamic": dynamic is not None, "normalized": normalized}
    if format not in _GRAPHS and any(given.values()):
        named = next(name for name, value in given.items() if value)
        raise InputError(f"{named} is of graphs, {' and '.join(_GRAPHS)}; {format} holds tensors")
    if format != "onnx" and opset is not None:
        raise InputError(f"opset is ONNX's; {format} has none")
    axes = ("batch",) if dynamic is None else tuple(dynamic)
    for axis in axes:
        if axis not in AXES:
            raise InputError(f"dynamic axes are {', '.join(AXES)}, not '{axis}'")
    form = GraphForm(
        tuple(axis for axis in AXES if axis in axes), OPSET if opset is None else opset
    )
    if format == "onnx":
        require_onnx(form.opset)
    return form


def _others(path: Path, format: str) -> list[Path]:
    """Return what is there and is no export of blocklab's."""
    if format == "hub":
        return changed_files(path)
    own = is_described(path) if format == "safetensors" else is_exported(path)
    large = path.with_name(f"{path.name}.data")  # of an ONNX file of many gigabytes
    return [file for file in (path, large) if not own and file.exists()]


def _size(model: nn.Module, given: ImageSize | None) -> tuple[int, int]:
    if given is not None:
        return check_input_size(given)
    cfg = getattr(model, "pretrained_cfg", None) or {}
    if not cfg.get("input_size"):
        raise InputError("the network does not say for which images it is; give an input_size")
    return check_input_size(tuple(cfg["input_size"][1:]))


def _about(
    model: nn.Module,
    outputs: Sequence[Tensor],
    class_names: Sequence[str],
    size: tuple[int, int],
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> dict[str, Any]:
    """Describe the network; its specification is there only where that rebuilds it."""
    try:
        check_rebuilds(model)
        return describe_saved(cast(Backbone, model), class_names, size, mean, std)
    except InputError:
        logits = len(outputs) == 1 and outputs[0].ndim == 2
        classes = outputs[0].shape[1] if logits else None
        names = class_names or kept_names(model)
        return describe_use(classes, channels_of(model, size), names, size, mean, std)


def _deployed(network: nn.Module, graph: bool, size: tuple[int, int] | None) -> nn.Module:
    """Return a copy for use; of what is no graph one whose tensors keep their names."""
    return deploy_model(network, size) if graph else merge(network)


def _write(
    network: nn.Module,
    place: Path,
    format: str,
    form: GraphForm,
    about: dict[str, Any],
    card: Card,
    trial: Trial,
    fp16: bool,
) -> Callable[[Tensor], Any]:
    """Write one format and return what was read of it, to be run."""
    if format not in _GRAPHS:
        if format == "hub":
            write_hub(cast(Backbone, network), place, about, card)
        else:
            write_tensors(network, place, about)
        return load_model(place)
    inside = (about["mean"], about["std"]) if about["normalizes"] else ()
    if fp16 or inside:
        network = InGraph(network, inside, fp16)
    images = trial.images[:TRACED]
    if format == "torch_export":
        return write_torch_export(network, images, place, about, form)
    count = len(trial.expected)
    kind = "logits" if trial.expected[0].ndim == 2 else "features"
    names = [kind] if count == 1 else [f"features_{number}" for number in range(count)]
    return write_onnx(network, images, place, about, form, names)


__all__ = ["ENDINGS", "ExportFormat", "Exported", "export_model"]
