"""Channels that take turns."""

from torch import Tensor

from blocklab.kernels.layout import is_channels_last
from blocklab.kernels.recording import is_recorded


def shuffled(x: Tensor, parts: int) -> Tensor:
    """Let the channels of so many equal parts of a map take turns, in the map's layout.

    Channel i of part j becomes channel i * parts + j: (B, C, H, W) -> same.
    """
    if is_recorded(x) or not is_channels_last(x):
        return x.unflatten(1, (parts, -1)).transpose(1, 2).flatten(1, 2)
    turns = x.permute(0, 2, 3, 1).unflatten(3, (parts, -1)).transpose(3, 4)  # (B, H, W, i, j)
    return turns.flatten(3).permute(0, 3, 1, 2)
