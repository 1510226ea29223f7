"""What was exported against the network: the same images through both, and how far they differ."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from blocklab.backbones.base import Backbone
from blocklab.errors import BlocklabError, InputError, RunError, error_line
from blocklab.models.graph_form import InGraph, in_half
from blocklab.models.probe import channels_of, size_text

TRACED, CHECKED = 2, 3  # images; one alone would fix the batch
# Of the largest output. Float32 sums in another order; merged and folded ones, of other factors;
# half precision has 11 bits.
TOLERANCE, TOLERANCE_DEPLOYED, TOLERANCE_HALF = 1e-4, 1e-3, 2e-2


@dataclass(frozen=True)
class Trial:
    """Images that what was written is run on, and what the network gives for them."""

    size: tuple[int, int]
    images: Tensor  # as the graph takes them
    taken: Tensor  # as the network does
    expected: list[Tensor]


def make_trials(
    network: nn.Module, size: tuple[int, int], free: Sequence[str], inside: Sequence[Any]
) -> list[Trial]:
    """Run the network at the size, and at another one where sizes are free.

    Args:
        network: in evaluation mode.
        size: height and width.
        free: which of ``batch``, ``height`` and ``width`` are.
        inside: the mean and SD that a graph normalises with, if it does.

    Raises:
        InputError: if it does not take such images, or gives no tensors.
    """
    stride = 32
    if isinstance(network, Backbone):
        stride = int(network.feature_info.reduction()[-1])
    other = (
        size[0] + stride * ("height" in free),
        size[1] + 2 * stride * ("width" in free),
    )
    asked = [(size, CHECKED)] if other == size else [(size, CHECKED), (other, 1)]
    found = []
    for seed, ((height, width), count) in enumerate(asked):
        generator = torch.Generator().manual_seed(seed)
        channels = channels_of(network, (height, width))
        shape = (count if "batch" in free else 1, channels, height, width)
        try:
            images = torch.randn(shape, generator=generator)
            taken = images
            if inside:
                images = images.sigmoid()  # from 0 to 1
                taken = InGraph(nn.Identity(), inside, False)(images)
            with torch.inference_mode():
                expected = tensors_of(network(taken))
        except BlocklabError:
            raise
        except Exception as error:  # a network of somebody else's may raise anything
            native = getattr(getattr(network, "config", None), "native_size", None)
            remedy = f", such as {native}" if native else ""
            raise InputError(
                f"the network cannot take images of {size_text((height, width))} "
                f"({error_line(error)}); choose another input_size{remedy}"
            ) from None
        found.append(Trial((height, width), images, taken, expected))
    return found


def tensors_of(outputs: Any) -> list[Tensor]:
    """Return a network's outputs as a list of one or more tensors."""
    listed = list(outputs) if isinstance(outputs, tuple | list) else [outputs]
    if not listed or not all(isinstance(output, Tensor) for output in listed):
        kind = type(outputs).__name__
        raise InputError(f"a network is to give a tensor or a list of them, not a {kind}")
    return listed


def compare(
    written: Callable[[Tensor], Any],
    network: nn.Module,
    trials: Sequence[Trial],
    deploy: bool,
    fp16: bool,
) -> float:
    """Return how far what was written is from the network, if it is no further than it may be.

    Some untrained networks magnify rounding beyond any fixed tolerance; that is no fault of a file.

    Raises:
        RunError: if it is further.
    """
    within = TOLERANCE_HALF if fp16 else TOLERANCE_DEPLOYED if deploy else TOLERANCE
    largest = 0.0
    for trial in trials:
        with torch.inference_mode():
            try:
                got = tensors_of(written(trial.images))
            except Exception as error:
                raise RunError(
                    f"what was written does not run ({error_line(error)}), and is taken away; "
                    "export in another format or with other options"
                ) from error
            difference = _difference(got, trial.expected)
            if not difference <= within:
                rounding = _rounding(network, trial, fp16)
                if not difference <= 4 * rounding:
                    raise RunError(
                        "the outputs of what was written differ from the network's by "
                        f"{difference:.1e} of the largest, so it is taken away; export in another "
                        "format or with other options"
                    )
        largest = max(largest, difference)
    return largest


def _rounding(network: nn.Module, trial: Trial, fp16: bool) -> float:
    """How far the network is from itself, in float64 or with weights of half precision."""
    if fp16:
        return _difference(tensors_of(in_half(network).float()(trial.taken)), trial.expected)
    exact = tensors_of(copy.deepcopy(network).double()(trial.taken.double()))
    return _difference([output.double() for output in trial.expected], exact)


def _difference(outputs: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the largest difference relative to the largest value, over all outputs."""
    if [output.shape for output in outputs] != [output.shape for output in expected]:
        return float("inf")
    pairs = zip(outputs, expected, strict=True)
    return max(
        float((want - got).abs().max() / want.abs().max().clamp(min=1e-12)) for got, want in pairs
    )


__all__ = ["TRACED", "Trial", "compare", "make_trials", "tensors_of"]
