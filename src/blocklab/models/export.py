"""Networks for other programs: safetensors, ONNX, `torch.export`, a folder for the hub.

What is written is read again and run on a batch of another size than it was traced with; its
outputs must be the network's.
"""

import copy
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from blocklab.backbones.base import Backbone
from blocklab.blocks.protocol import mixed_by
from blocklab.errors import InputError, RunError
from blocklab.models.deploy import DeployReport, merge
from blocklab.models.deploy import deploy as deploy_model
from blocklab.models.graph_export import write_onnx, write_torch_export
from blocklab.models.hub import Card, save_pretrained
from blocklab.models.model_file import describe_saved, load_model, save_model
from blocklab.models.probe import noise_images, run_blank
from blocklab.models.spec import ModelSpec

ExportFormat = Literal["safetensors", "onnx", "torch_export", "hub"]
ENDINGS: dict[str, str] = {"safetensors": ".safetensors", "onnx": ".onnx", "torch_export": ".pt2"}
TRACED, CHECKED = 2, 3  # images; one alone would fix the batch
# Of the largest output. Float32 sums in another order; merged and folded ones, of other factors.
TOLERANCE, TOLERANCE_DEPLOYED = 1e-4, 1e-3


@dataclass(frozen=True)
class Exported:
    """What was written, and how far its outputs were from the network's.

    `difference` is relative to the largest output; `report` says what deploying did and kept.
    """

    path: Path
    format: str
    input_size: int
    deployed: bool
    difference: float
    report: DeployReport | None = None

    def __str__(self) -> str:
        form = "deployed form" if self.deployed else "training form"
        done = f"; {self.report}" if self.report else ""
        return (
            f"{self.path} ({self.format}, {form}, {self.input_size}x{self.input_size}; outputs "
            f"differ by {self.difference:.1e}){done}"
        )


def export_model(
    model: Backbone,
    path: str | os.PathLike[str],
    format: ExportFormat,
    input_size: int | None = None,
    deploy: bool = False,
    class_names: Sequence[str] = (),
    card: Card | None = None,
) -> Exported:
    """Write a network for other programs, and check what was written. The network stays as it is.

    Args:
        model: the network.
        path: the file, or the folder for ``hub``.
        format: ``safetensors`` (`load_model` reads it), ``onnx`` (any batch, one size of image),
            ``torch_export`` (any batch, one size), or ``hub``.
        input_size: side of the images (default: what the stem is made for).
        deploy: write the form for use: kernels merged and cut to the images, BatchNorm folded; in
            ``safetensors`` and ``hub``, whose tensors keep their names, kernels merged alone.
        class_names: names of the outputs, kept in the file.
        card: what the model card of ``hub`` tells besides.

    Raises:
        InputError: for an unknown format, a size that the network cannot take, a path that cannot
            be written, packages that are missing, or a graph of a network that mixes samples.
        RunError: if writing fails, or the outputs of what was written differ.
    """
    if format not in get_args(ExportFormat):
        raise InputError(f"no format '{format}'; formats: {', '.join(get_args(ExportFormat))}")
    if model.pruned:
        raise InputError("the network was pruned to some stages; export the whole one")
    if format in ("onnx", "torch_export") and (said := mixed_by(model)):
        raise InputError(
            f"a graph takes one image too, and this network mixes those of a batch ({said}); "
            "export it as safetensors"
        )
    size = model.config.native_size if input_size is None else input_size
    path = Path(path)
    _check_size(model, size)
    _check_path(path, folder=format == "hub")
    original = copy.deepcopy(model).eval().cpu().float()
    network: nn.Module = original
    report: DeployReport | None = None
    if deploy:
        in_place = format in ("safetensors", "hub")
        network = merge(original) if in_place else deploy_model(original, size)
        report = cast(DeployReport, network.deploy_report)
    about = describe_saved(model, class_names)
    if format == "onnx":
        written = write_onnx(network, noise_images(network, size, TRACED), path, about)
    elif format == "torch_export":
        written = write_torch_export(network, noise_images(network, size, TRACED), path, about)
    else:
        assert isinstance(network, Backbone)
        if format == "hub":
            save_pretrained(network, path, class_names, card, size)
        else:
            save_model(network, path, class_names)
        written = load_model(path)
    difference, rounding = _compare(written, original, size)
    if not difference <= max(TOLERANCE_DEPLOYED if deploy else TOLERANCE, 4 * rounding):
        raise RunError(
            f"{path} was written, but its outputs differ from the network's by {difference:.1e} of "
            "the largest; do not use it, and export in another format"
        )
    return Exported(path, format, size, deploy, difference, report)


def _check_size(model: Backbone, size: object) -> None:
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise InputError(f"input_size is a number of pixels from 1, not {size!r}")
    meta = ModelSpec(model.family, model.config).build_meta(model.num_classes, model.in_chans)
    run_blank(meta.eval(), size, TRACED, f", such as {model.config.native_size}")


def _check_path(path: Path, folder: bool) -> None:
    """Refuse a path before the work, not after it."""
    if folder and path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; name a folder")
    if not folder and path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it")
    parent = path if folder else path.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write into {parent}: {error.strerror or error}; name another path"
        ) from None


def _compare(
    written: Callable[[Tensor], Any], network: nn.Module, size: int
) -> tuple[float, float]:
    """How far what was written is from the network, and the network in float32 from float64.

    Some untrained networks magnify rounding beyond any fixed tolerance; that is no fault of a file.
    """
    images = noise_images(network, size, CHECKED)
    with torch.inference_mode():
        expected, got = network(images), written(images)
        difference = _relative(got, expected)
        if difference <= TOLERANCE:
            return difference, 0.0
        exact = copy.deepcopy(network).double()(images.double())
    return difference, _relative(expected.double(), exact)


def _relative(outputs: Tensor, expected: Tensor) -> float:
    return float((expected - outputs).abs().max() / expected.abs().max().clamp(min=1e-12))


__all__ = ["ENDINGS", "ExportFormat", "Exported", "export_model"]
