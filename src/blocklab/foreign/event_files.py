"""TensorBoard's event files, read with its own package."""

import logging
from pathlib import Path
from typing import Any

from blocklab.errors import InputError, error_line

EVENTS = "events.out.tfevents.*"


def read_events(folder: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Read the scalars of a folder's event files: their tags, and a line for each tag and step.

    Raises:
        InputError: if TensorBoard is not installed, or the files cannot be read.
    """
    try:
        from tensorboard.backend.event_processing import event_accumulator
        from tensorboard.util import tensor_util
    except ImportError:
        raise InputError(
            f"{folder} holds TensorBoard's event files, which its own package reads: "
            "pip install 'blocklab[tensorboard]'"
        ) from None
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # a run cut short is no news to us
    every = {event_accumulator.SCALARS: 0, event_accumulator.TENSORS: 0}
    lines: list[dict[str, Any]] = []
    try:
        read = event_accumulator.EventAccumulator(str(folder), size_guidance=every).Reload()
        tags = read.Tags()
        for tag in tags["scalars"]:
            lines += [{"step": one.step, tag: one.value} for one in read.Scalars(tag)]
        for tag in tags["tensors"]:  # as TensorFlow 2 writes scalars
            for one in read.Tensors(tag):
                value = tensor_util.make_ndarray(one.tensor_proto)
                if value.shape == () and value.dtype.kind in "fiu":
                    lines.append({"step": one.step, tag: float(value)})
    except Exception as error:  # whatever a damaged file makes of its reader
        raise InputError(f"cannot read the event files in {folder}: {error_line(error)}") from None
    return list(dict.fromkeys(tag for line in lines for tag in line if tag != "step")), lines
