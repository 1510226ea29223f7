"""The order in memory of a map, (B, C, H, W)."""

import torch
from torch import Tensor


def is_channels_last(x: Tensor) -> bool:
    """Whether channels are innermost; a map whose order says nothing is contiguous."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def laid_out(gate: Tensor, x: Tensor) -> Tensor:
    """Copy a gate, which is small, into the layout of x, so that both are read in one order."""
    layout = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    return gate.contiguous(memory_format=layout)
