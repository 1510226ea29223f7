"""Blocks that start as their authors' code does: an option, where that is not the backbone's way.

A backbone starts every layer by one scheme, so that rows of a study start alike. The ResNet's,
Kaiming over the fan-out, gives a convolution to a single channel weights of SD sqrt(2), however
many channels it reads, and the kernels of a depth-wise convolution weights that are too small by
the root of the channels. Where a norm follows, neither matters; a softmax or a gate shows it.

A backbone calls ``init_weights`` of each block once it has started every layer its way. A block
that is built by itself has PyTorch's start until its ``init_weights`` is called.
"""

import math
from typing import Annotated

from torch import nn

from blocklab.blocks.option_types import ADDED_LATER

AuthorsStart = Annotated[bool, ADDED_LATER]


def start_by_fan_in(convolution: nn.Conv2d) -> None:
    """Kaiming normal over the fan-in, and no bias."""
    nn.init.kaiming_normal_(convolution.weight, mode="fan_in", nonlinearity="relu")
    _no_bias(convolution)


def start_by_fan_out_of_group(convolution: nn.Conv2d) -> None:
    """Normal over the fan-out of one group, and no bias: VAN's authors' scheme."""
    kernel = convolution.kernel_size[0] * convolution.kernel_size[1]
    fan_out = kernel * convolution.out_channels // convolution.groups
    nn.init.normal_(convolution.weight, 0, math.sqrt(2 / fan_out))
    _no_bias(convolution)


def start_by_default(convolution: nn.Conv2d) -> None:
    """Start as PyTorch does, as a linear layer where it is 1x1, and no bias."""
    convolution.reset_parameters()
    _no_bias(convolution)


def start_small(convolution: nn.Conv2d) -> None:
    """Normal with an SD of 0.01, and no bias."""
    nn.init.normal_(convolution.weight, 0, 0.01)
    _no_bias(convolution)


def start_at_zero(*layers: nn.Module | None) -> None:
    """Zero weights and biases."""
    for layer in layers:
        for parameter in layer.parameters() if layer is not None else ():
            nn.init.zeros_(parameter)


def _no_bias(convolution: nn.Conv2d) -> None:
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
