"""Networks as graphs: traced once, any number of images, written as ONNX or by `torch.export`."""

import importlib.util
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from blocklab.errors import InputError, RunError, error_line
from blocklab.files import owner, sweep

_ONNX = ("onnx", "onnxscript", "onnxruntime")
_OPSET = 18  # of ONNX: the first that reduces over axes given as tensors, which exporters write
_LARGEST_PROTOBUF = 1_800_000_000  # bytes; larger tensors lie in a file beside


def write_torch_export(
    network: nn.Module, images: Tensor, path: Path, about: dict[str, Any]
) -> nn.Module:
    """Write a ``.pt2`` file, and return what is read from it.

    Raises:
        RunError: if the network cannot be traced, or the file not written.
    """
    program = trace(network, images)
    with _written(path) as temporary, _quiet():
        torch.export.save(program, temporary, extra_files={"blocklab.json": json.dumps(about)})
    with _quiet():
        return torch.export.load(path).module()


def write_onnx(
    network: nn.Module, images: Tensor, path: Path, about: dict[str, Any]
) -> Callable[[Tensor], Tensor]:
    """Write an ``.onnx`` file, and return what runs it.

    Raises:
        InputError: if packages are missing.
        RunError: if the network cannot be traced or has no form in ONNX, or the file not written.
    """
    missing = [name for name in _ONNX if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"ONNX needs {', '.join(missing)}: pip install 'blocklab[onnx]', or export in another "
            "format"
        )
    import onnxruntime

    traced = trace(network, images)
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                traced,
                dynamo=True,
                opset_version=_OPSET,
                input_names=["images"],
                output_names=["logits"],
                custom_translation_table={torch.ops.aten.median.dim: _median()},
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise RunError(
            f"the network has no form in ONNX ({_cause(error)}); export it as torch_export"
        ) from error
    assert program is not None
    program.model.metadata_props["blocklab"] = json.dumps(about)
    weights = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    with _written(path) as temporary:
        program.save(temporary, external_data=weights > _LARGEST_PROTOBUF)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(images: Tensor) -> Tensor:
        outputs: Any = session.run(None, {name: images.numpy()})
        return torch.from_numpy(outputs[0])

    return run


def trace(network: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    """Trace a network at the size of `images`, two or more, for any number of them.

    Raises:
        RunError: if what it does cannot be a graph.
    """
    batch = torch.export.Dim("batch", min=1)
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(network, (images,), dynamic_shapes=({0: batch},))
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
        shape: Any = self.shape
        middle = (int(shape[dim]) - 1) // 2
        count = op.Constant(value_ints=[middle + 1])
        values, places = op.TopK(self, count, axis=dim, largest=0, sorted=1)
        # A scalar index drops the axis, a list of one keeps it.
        last = op.Constant(**({"value_ints": [middle]} if keepdim else {"value_int": middle}))
        return op.Gather(values, last, axis=dim), op.Gather(places, last, axis=dim)

    return median


def _cause(error: BaseException) -> str:
    """Return the first line of the innermost error, which says what was the matter."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error_line(error)


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """Hand out a file of that name in a folder beside it, and move what was written there whole.

    A network of many gigabytes writes a second file, which the first one knows by name.
    """
    try:
        sweep(path.parent)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".export.{owner()}.") as folder:
            yield Path(folder) / path.name
            # The named file last: while it is not there, nothing is.
            for file in sorted(Path(folder).iterdir(), key=lambda file: file.name == path.name):
                file.replace(path.parent / file.name)
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror or error}; free some space or name another path"
        ) from error


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


__all__ = ["trace", "write_onnx", "write_torch_export"]
