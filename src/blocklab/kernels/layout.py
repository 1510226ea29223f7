"""How a map (B, C, H, W) lies in memory, and a batch in pieces that stay in a processor's cache.

A map of many images is larger than a cache: each plain operation on it waits for memory, and what
it returns is memory that the system hands out page by page. A piece is small enough for both.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

CHANNELS, HEIGHT, WIDTH = 1, 2, 3
_PIECE = 1 << 18  # values of a piece: 1 MiB of float32, what current processors' second cache holds
_SHORT_ROW = 16  # PyTorch's reductions within and over rows shorter than this are not vectorised


def is_channels_last(x: Tensor) -> bool:
    """Whether channels are innermost; a map whose order says nothing is contiguous."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def laid_out(gate: Tensor, x: Tensor) -> Tensor:
    """Copy a gate, which is small, into the layout of x, so that both are read in one order."""
    layout = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    return gate.contiguous(memory_format=layout)


class _LaidOutGradient(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:  # type: ignore[override]
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # type: ignore[override]
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return grad.contiguous(memory_format=torch.channels_last)


def with_gradient_laid_out(x: Tensor) -> Tensor:
    """Return x, whose gradient is to be copied into its layout if that is channels_last.

    For blocks whose backward pass ends in another: a BatchNorm before them would take many times
    as long over a gradient that lies otherwise than its map (``benchmarks/gradient_layout.py``).
    """
    return _LaidOutGradient.apply(x) if is_channels_last(x) else x  # type: ignore[no-any-return]


def widened(x: Tensor) -> Tensor:
    """Half precision is computed in float32 and rounded once."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def pieces(x: Tensor) -> Iterator[slice]:
    """Slices of the batch; all of it where there is no cache to stay in."""
    batch = x.shape[0]
    step = max(1, batch)
    if x.device.type == "cpu":
        step = max(1, _PIECE // max(1, x[:1].numel()))
    for start in range(0, batch, step):
        yield slice(start, start + step)


class Piece:
    """Some images in the order of their memory, and in the other order where that is faster."""

    def __init__(self, x: Tensor) -> None:
        x = widened(x)
        last = x.permute(0, 2, 3, 1)
        self.nhwc: Tensor | None = last if last.is_contiguous() else None
        self.nchw: Tensor | None = None
        if x.is_contiguous() or self.nhwc is None:
            self.nchw = x.contiguous()

    def channels_last(self) -> Tensor:
        """(b, H, W, C), copied where it is not in this order."""
        if self.nhwc is None:
            assert self.nchw is not None
            batch, channels, height, width = self.nchw.shape
            self.nhwc = self.nchw.new_empty(batch, height, width, channels)
            # An image at a time, as a matrix, PyTorch transposes in blocks.
            for image, out in zip(self.nchw, self.nhwc, strict=True):
                out.view(-1, channels).copy_(image.view(channels, -1).t())
        return self.nhwc

    def ordered(self, dim: int, index: bool = False) -> tuple[Tensor, int]:
        """Return the map in the order that reduces `dim` fastest, and which axis `dim` is there.

        `index` says that a maximum's place is asked for too.
        """
        nchw = self.nchw
        if nchw is not None and (
            dim == CHANNELS
            or nchw.device.type != "cpu"
            or (not index and nchw.shape[3] >= _SHORT_ROW)
        ):
            return nchw, dim
        return self.channels_last(), {CHANNELS: 3, HEIGHT: 1, WIDTH: 2}[dim]
