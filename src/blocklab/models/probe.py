"""Running a network once to look at it: on which images, in evaluation mode, and what it meets."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd

from blocklab.blocks.protocol import smallest_batch
from blocklab.errors import InputError, error_line


def check_input_size(input_size: int) -> int:
    """Return the side of an image if it is a positive number.

    Raises:
        InputError: if it is not.
    """
    whole = isinstance(input_size, int | np.integer) and not isinstance(input_size, bool)
    if not whole or input_size < 1:
        raise InputError(f"input_size must be a positive number of pixels, not {input_size!r}")
    return int(input_size)


def blank_images(
    model: nn.Module, size: int, count: int | None = None, in_chans: int = 3
) -> Tensor:
    """Return images of zeros for a network: (count, C, size, size), on its device, of its type.

    There are as few as it takes where no `count` is given: one, or two where it mixes samples.
    C is what the network says, else what the first of its layers that runs takes, else `in_chans`.
    """
    count = _least(model) if count is None else count
    reference = next(model.parameters(), torch.empty(0))

    def blank(channels: int) -> Tensor:
        return torch.zeros(
            (count, channels, size, size), device=reference.device, dtype=reference.dtype
        )

    said = _channels_of(model)
    return blank(said or _channels_taken(model, blank(in_chans)))


def _least(model: nn.Module) -> int:
    """How many images a network takes at least; BatchNorm without statistics needs two values."""
    norms = (part for part in model.modules() if isinstance(part, _BatchNorm))
    return max(smallest_batch(model), 2 if any(n.running_mean is None for n in norms) else 1)


def _channels_of(part: Any) -> int | None:
    """How many channels a part takes, if it says so."""
    names = ("in_chans", "in_channels", "num_features", "num_channels")
    values = (getattr(part, name, None) for name in names[: None if _is_layer(part) else 1])
    return next((value for value in values if type(value) is int and value > 0), None)


def _is_layer(part: nn.Module) -> bool:
    return isinstance(part, _ConvNd | _NormBase | nn.GroupNorm)


class _FirstLayerRuns(Exception):
    """Ends a trial run, with the channels that come and those that the layer takes."""


def _channels_taken(model: nn.Module, images: Tensor) -> int:
    """How many channels a network takes that says nothing, by its first layer that runs.

    What stands before the layer may multiply the channels, such as `nn.PixelUnshuffle`, or add to
    them. Where no layer says anything it is as many as `images` have.
    """
    trial = images.shape[1]

    def stop(part: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].ndim == 4:
            raise _FirstLayerRuns(inputs[0].shape[1], _channels_of(part))

    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(evaluating(model))
        for part in model.modules():
            if _channels_of(part) is not None:
                stack.callback(part.register_forward_pre_hook(stop, prepend=True).remove)
        try:
            model(images)
        except _FirstLayerRuns as found:
            come, taken = found.args
            multiplied = come % trial == 0 and taken % (come // trial) == 0
            channels = taken * trial // come if multiplied else trial + taken - come
            return channels if channels > 0 else trial
        except Exception:  # a network within is called past its hooks, or none can be run
            said = (part.in_chans for part in model.modules() if hasattr(part, "in_chans"))
            return next((value for value in said if type(value) is int and value > 0), trial)
    return trial


def noise_images(model: nn.Module, size: int, count: int, seed: int = 0) -> Tensor:
    """Return images of independent normal values, as `blank_images` are; a function of the seed."""
    blank = blank_images(model, size, count)
    return torch.randn(blank.shape, generator=torch.Generator().manual_seed(seed)).to(blank)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside it a network is in evaluation mode; then each of its parts is as it was before."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def maps_met(
    model: nn.Module, input_size: int, kind: type[nn.Conv2d] = nn.Conv2d
) -> list[tuple[str, nn.Conv2d, tuple[int, int]]]:
    """Return which map each convolution meets: its name, itself, and height and width.

    In the order in which they run, in evaluation mode; one that runs twice is there twice. On the
    meta device it costs nothing.

    Args:
        model: the network; it stays as it is.
        input_size: side of the image that it is run on.
        kind: the convolutions to look at.

    Raises:
        InputError: for a size that is not positive, or that the network cannot take.
    """
    check_input_size(input_size)
    met: list[tuple[str, nn.Conv2d, tuple[int, int]]] = []
    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(evaluating(model))
        for name, module in model.named_modules():
            if isinstance(module, kind):

                def look(conv: Any, inputs: tuple[Tensor, ...], name: str = name) -> None:
                    height, width = inputs[0].shape[-2:]
                    met.append((name, conv, (height, width)))

                stack.callback(module.register_forward_pre_hook(look).remove)
        run_blank(model, input_size)
    return met


def run_blank(
    model: nn.Module, input_size: int, count: int | None = None, remedy: str = ""
) -> None:
    """Run a network on blank images, to see whether it takes them.

    Raises:
        InputError: if it does not; the message ends in the remedy.
    """
    try:
        model(blank_images(model, input_size, count))
    except InputError:
        raise
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"the network cannot take images of {input_size}x{input_size} "
            f"({error_line(error)}); choose another input_size{remedy}"
        ) from None
