"""Networks as graphs: traced once, for axes that are free, written as ONNX or by `torch.export`."""

import importlib.util
import json
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from blocklab.errors import InputError, RunError, error_line
from blocklab.models.model_file import KEY

_ONNX = ("onnx", "onnxscript", "onnxruntime")
OPSET = 18  # of ONNX: the first that reduces over axes given as tensors, which exporters write
AXES = {"batch": 0, "height": 2, "width": 3}
_DESCRIPTION = "blocklab.json"  # beside a .pt2's graph
_LARGEST_PROTOBUF = 1_800_000_000  # bytes; larger tensors lie in a file beside


@dataclass(frozen=True)
class GraphForm:
    """How a graph is to be written.

    `dynamic` names the axes of images that may have any length; the others have those of the images
    that it is traced with. `opset` is ONNX's.
    """

    dynamic: tuple[str, ...] = ("batch",)
    opset: int = OPSET


def write_torch_export(
    network: nn.Module, images: Tensor, path: Path, about: dict[str, Any], form: GraphForm
) -> nn.Module:
    """Write a ``.pt2`` file, and return what is read from it.

    Raises:
        RunError: if the network cannot be traced.
        OSError: if the file cannot be written.
    """
    program = trace(network, images, form.dynamic)
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # paths of this machine
    with _quiet():
        torch.export.save(program, path, extra_files={_DESCRIPTION: json.dumps(about)})
        return torch.export.load(path).module()


def write_onnx(
    network: nn.Module,
    images: Tensor,
    path: Path,
    about: dict[str, Any],
    form: GraphForm,
    outputs: Sequence[str],
) -> Callable[[Tensor], list[Tensor]]:
    """Write an ``.onnx`` file, and return what runs it; `outputs` are its outputs' names.

    Raises:
        RunError: if the network cannot be traced, or has no form in ONNX.
        OSError: if the file cannot be written.
    """
    import onnxruntime

    traced = trace(network, images, form.dynamic)
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                traced,
                dynamo=True,
                opset_version=form.opset,
                input_names=["images"],
                output_names=list(outputs),
                dynamic_shapes=({AXES[name]: name for name in form.dynamic},),
                custom_translation_table={torch.ops.aten.median.dim: _median()},
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise RunError(
            f"the network has no form in ONNX ({_cause(error)}); export it as torch_export"
        ) from error
    assert program is not None
    program.model.metadata_props[KEY] = json.dumps(about)
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # paths of this machine
    weights = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    program.save(path, external_data=weights > _LARGEST_PROTOBUF)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    except Exception as error:  # its errors have no class in common
        raise RunError(
            f"onnxruntime {onnxruntime.__version__} does not run it ({error_line(error)}); take "
            f"opset {OPSET}, or export as torch_export"
        ) from error
    name = session.get_inputs()[0].name

    def run(images: Tensor) -> list[Tensor]:
        outputs: Any = session.run(None, {name: images.numpy()})
        return [torch.from_numpy(output) for output in outputs]

    return run


def require_onnx(opset: int) -> None:
    """Refuse what cannot be written as ONNX here.

    Raises:
        InputError: if packages are missing, or do not know the opset.
    """
    missing = [name for name in _ONNX if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"ONNX needs {', '.join(missing)}: pip install 'blocklab[onnx]', or export in another "
            "format"
        )
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if not isinstance(opset, int) or isinstance(opset, bool) or not OPSET <= opset <= newest:
        raise InputError(
            f"opset is a number from {OPSET} to {newest}, which this onnx has, not {opset!r}"
        )


def is_exported(path: Path) -> bool:
    """Whether a file is a graph that blocklab wrote."""
    try:
        if not path.is_file():
            return False
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return any(name.endswith(_DESCRIPTION) for name in archive.namelist())
        import onnx

        model = onnx.load(path, load_external_data=False)
        return any(entry.key == KEY for entry in model.metadata_props)
    except Exception:  # whatever else it is
        return False


def trace(
    network: nn.Module, images: Tensor, dynamic: Sequence[str] = ("batch",)
) -> torch.export.ExportedProgram:
    """Trace a network at the size of `images`; the axes of these names may have any length.

    Where the batch is one of them there are two images or more: one alone would fix it.

    Raises:
        RunError: if what it does cannot be a graph.
    """
    free: dict[int, Any] = {AXES[name]: torch.export.Dim.DYNAMIC for name in dynamic}
    if "batch" in dynamic:
        free[0] = torch.export.Dim("batch", min=1)
    try:
        with torch.no_grad(), _quiet():
            # What holds of sizes that a trace cannot prove is checked by the graph when it runs.
            return torch.export.export(
                network,
                (images,),
                dynamic_shapes=(free,),
                prefer_deferred_runtime_asserts_over_guards=True,
            )
    except (RuntimeError, ValueError, TypeError) as error:
        raise RunError(
            f"the network cannot be traced ({_cause(error)}); export it as safetensors, or change "
            "the block that does it"
        ) from error


def _median() -> Callable[..., Any]:
    """Return what ONNX does for `torch.median` over one axis: the lower of two middle values."""
    from onnxscript import FLOAT, opset18

    op: Any = opset18

    def median(self: FLOAT, dim: int, keepdim: bool = False):
        one, two = op.Constant(value_ints=[1]), op.Constant(value_ints=[2])
        # The axis may be one whose length is not known yet.
        length = op.Gather(op.Shape(self), op.Constant(value_ints=[dim]))
        count = op.Div(op.Add(length, one), two)
        values, places = op.TopK(self, count, axis=dim, largest=0, sorted=1)
        last = op.Sub(count, one)
        found = op.Gather(values, last, axis=dim), op.Gather(places, last, axis=dim)
        if keepdim:
            return found
        axis = op.Constant(value_ints=[dim])
        return op.Squeeze(found[0], axis), op.Squeeze(found[1], axis)

    return median


def _cause(error: BaseException) -> str:
    """Return the first line of the innermost error, which says what was the matter."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error_line(error)


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what exporters say of their own inside."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


__all__ = [
    "AXES",
    "OPSET",
    "GraphForm",
    "is_exported",
    "require_onnx",
    "trace",
    "write_onnx",
    "write_torch_export",
]
