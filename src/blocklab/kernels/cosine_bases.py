"""Bases of a map's two-dimensional cosine transform, made once for each size that is met."""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from blocklab.kernels.layout import is_channels_last
from blocklab.kernels.recording import is_traced

Frequency = tuple[int, int]  # of rows, of columns


def cosine_bases(x: Tensor, frequencies: Sequence[Frequency], space: int) -> Tensor:
    """The basis of each channel of x: (B, C, H, W) -> (1, C, H, W), as x is typed and laid out.

    Channels take the frequencies in equal groups, in their order. Those are of a space of `space`
    frequencies a side: u of them is floor(u * H / space) of the map's H. Each is
    cos(pi * u * (i + 1/2) / H) * cos(pi * v * (j + 1/2) / W), times the square root of 2 for each
    of u and v that is not 0, so that its mean square is 1.
    """
    return _bases(x, tuple(frequencies), space)


def _bases(x: Tensor, frequencies: tuple[Frequency, ...], space: int) -> Tensor:
    _, channels, height, width = x.shape
    size = channels, height, width
    if is_traced(x):
        return _make(frequencies, space, size, x.dtype, x.device)
    return _made(frequencies, space, size, x.dtype, x.device, is_channels_last(x))


torch.fx.wrap("_bases")  # a symbolic trace does not know the map's size


def _make(
    frequencies: tuple[Frequency, ...],
    space: int,
    size: tuple[int, int, int],
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    channels, *sides = size
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    count = len(frequencies)
    rows, columns = (
        _cosines([pair[axis] for pair in frequencies], space, side, wide, device)
        for axis, side in enumerate(sides)
    )
    bases = (rows[:, :, None] * columns[:, None, :]).to(dtype)  # (frequencies, H, W)
    groups = torch.arange(channels, device=device) * count // channels
    return bases[groups].unsqueeze(0)


def _cosines(
    frequencies: list[int], space: int, size: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """(frequencies, size), along one side."""
    positions = (torch.arange(size, dtype=dtype, device=device) + 0.5) * (math.pi / size)
    own = [frequency * size // space for frequency in frequencies]
    return torch.stack([torch.cos(positions * one) * (math.sqrt(2) if one else 1) for one in own])


@lru_cache(maxsize=64)
def _made(
    frequencies: tuple[Frequency, ...],
    space: int,
    size: tuple[int, int, int],
    dtype: torch.dtype,
    device: torch.device,
    last: bool,
) -> Tensor:
    # What is made in inference mode could not be used for training afterwards.
    with torch.inference_mode(False), torch.no_grad():
        bases = _make(frequencies, space, size, dtype, device)
        layout = torch.channels_last if last else torch.contiguous_format
        return bases.contiguous(memory_format=layout)
