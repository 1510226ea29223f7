"""What a graph does to images beside the network: normalising them, and half precision."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from blocklab.errors import InputError


class InGraph(nn.Module):
    """A network behind what a graph does first: (B, C, H, W) float32 in, float32 out.

    Args:
        network: the network; in half precision where `half` says so.
        normalisation: mean and SD, a channel each, of images from 0 to 1; nothing: none is done.
        half: whether the network computes in half precision.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, normalisation: Sequence[Any], half: bool) -> None:
        super().__init__()
        self.network = network
        self.half_precision = half
        self.normalises = bool(normalisation)
        for name, values in zip(("mean", "std"), normalisation, strict=False):
            self.register_buffer(name, torch.tensor(tuple(values)).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Any:
        if self.normalises:
            images = (images - self.mean) / self.std
        if not self.half_precision:
            return self.network(images)
        outputs = self.network(images.half())
        if isinstance(outputs, Tensor):
            return outputs.float()
        return [output.float() for output in outputs]


def in_half(network: nn.Module) -> nn.Module:
    """Return a copy in half precision.

    Raises:
        InputError: if values lie beyond its range.
    """
    half = copy.deepcopy(network).half()
    before = network.state_dict()
    beyond = [
        name
        for name, value in half.state_dict().items()
        if not torch.equal(value.isfinite(), before[name].isfinite())
    ]
    if beyond:
        raise InputError(
            f"{len(beyond)} tensors hold values beyond half precision's range ({beyond[0]}); "
            "export in float32"
        )
    return half
