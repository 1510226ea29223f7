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
from blocklab.errors import InputError, error_line, shortened

LARGEST_INPUT = 16_384  # pixels of a side

ImageSize = int | tuple[int, int]  # pixels: the side of a square, or height and width


def check_input_size(input_size: Any) -> tuple[int, int]:
    """Return height and width if they are positive numbers that an image may have.

    Of one number, the side of a square, of a pair or a list.

    Raises:
        InputError: if they are not.
    """
    pair = list(input_size) if isinstance(input_size, tuple | list) else [input_size] * 2
    whole = all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in pair)
    if len(pair) != 2 or not whole or not 1 <= min(pair) <= max(pair) <= LARGEST_INPUT:
        raise InputError(
            f"input_size must be a positive number of pixels, {LARGEST_INPUT:,} at most, or a "
            f"height and a width (64x96), not {shortened(input_size)}"
        )
    return int(pair[0]), int(pair[1])


def plain_size(input_size: ImageSize) -> ImageSize:
    """Return one side for a square, else height and width: how results and JSON say a size."""
    height, width = check_input_size(input_size)
    return height if height == width else (height, width)


def size_text(input_size: ImageSize) -> str:
    """Return ``64x96``: height, then width, as one types it."""
    return "x".join(map(str, check_input_size(input_size)))


def channels_of(model: nn.Module, size: ImageSize = 32, default: int = 3) -> int:
    """Return how many channels a network takes: what it says, else what its first layer takes.

    That is the first layer that runs, on images of `size`; where none says anything, `default`.
    """
    trial = _zeros(model, _least(model), default, size)
    return _channels_of(model) or _channels_taken(model, trial)


def blank_images(
    model: nn.Module, size: ImageSize, count: int | None = None, in_chans: int = 3
) -> Tensor:
    """Return images of zeros for a network: (count, C, H, W), on its device, of its type.

    There are as few as it takes where no `count` is given: one, or two where it mixes samples.
    C is that of `channels_of`, or `in_chans`.
    """
    count = _least(model) if count is None else count
    return _zeros(model, count, channels_of(model, size, in_chans), size)


def _zeros(model: nn.Module, count: int, channels: int, size: ImageSize) -> Tensor:
    like = next(model.parameters(), torch.empty(0))
    shape = (count, channels, *check_input_size(size))
    return torch.zeros(shape, device=like.device, dtype=like.dtype)


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


def noise_images(model: nn.Module, size: ImageSize, count: int, seed: int = 0) -> Tensor:
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
    model: nn.Module, input_size: ImageSize, kind: type[nn.Conv2d] = nn.Conv2d
) -> list[tuple[str, nn.Conv2d, tuple[int, int]]]:
    """Return which map each convolution meets: its name, itself, and height and width.

    In the order in which they run, in evaluation mode; one that runs twice is there twice. On the
    meta device it costs nothing.

    Args:
        model: the network; it stays as it is.
        input_size: of the image that it is run on.
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
        _run_blank(model, input_size)
    return met


def _run_blank(model: nn.Module, input_size: ImageSize) -> None:
    """Run a network on blank images; raise an InputError if it does not take them."""
    try:
        model(blank_images(model, input_size))
    except InputError:
        raise
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"the network cannot take images of {size_text(input_size)} "
            f"({error_line(error)}); choose another input_size"
        ) from None
