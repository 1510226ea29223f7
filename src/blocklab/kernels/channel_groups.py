"""Groups of channels, split off a map, put back and shuffled, in the map's layout."""

import torch
from torch import Tensor

from blocklab.kernels.layout import is_channels_last
from blocklab.kernels.recording import is_recorded


def grouped(x: Tensor, groups: int) -> Tensor:
    """Take groups of channels as images, contiguous: (B, GC, H, W) -> (BG, C, H, W)."""
    return x.unflatten(1, (groups, -1)).flatten(0, 1)


def ungrouped(x: Tensor, groups: int, like: Tensor) -> Tensor:
    """Undo `grouped`, in the layout of `like`: (BG, C, H, W) -> (B, GC, H, W)."""
    whole = x.unflatten(0, (-1, groups)).flatten(1, 2)
    if is_recorded(x) or not is_channels_last(like):
        return whole
    return whole.contiguous(memory_format=torch.channels_last)


def shuffled(x: Tensor, parts: int, like: Tensor) -> Tensor:
    """Let the channels of so many equal parts of a map take turns, in the layout of `like`.

    Channel i of part j becomes channel i * parts + j: (B, C, H, W) -> same.
    """
    split = x.unflatten(1, (parts, -1))  # (B, j, i, H, W)
    if is_recorded(x) or not is_channels_last(like):
        return split.transpose(1, 2).flatten(1, 2)
    return split.permute(0, 3, 4, 2, 1).flatten(3).permute(0, 3, 1, 2)
