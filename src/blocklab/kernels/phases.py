"""A map as its phases: every d-th row and column, as maps of their own.

A kernel with holes of d meets only pixels of one phase at a time. So a dilated convolution is one
without holes over the phases, which processors compute several times as fast, and to the same sums.
"""

from torch import Tensor


def to_phases(x: Tensor, dilation: int) -> Tensor:
    """Split maps in channels_last: (B, C, H, W) -> (B * d * d, C, ceil(H / d), ceil(W / d)).

    Zeros fill the last row and column of a phase that is shorter than others.
    """
    batch, channels, height, width = x.shape
    rows, columns = -(-height // dilation), -(-width // dilation)
    make = x.new_zeros if height % dilation or width % dilation else x.new_empty
    phases = make(batch, dilation, dilation, rows, columns, channels).permute(0, 1, 2, 5, 3, 4)
    for row in range(dilation):
        for column in range(dilation):
            part = x[:, :, row::dilation, column::dilation]
            phases[:, row, column, :, : part.shape[2], : part.shape[3]] = part
    return phases.flatten(0, 2)


def from_phases(phases: Tensor, dilation: int, height: int, width: int) -> Tensor:
    """Put maps together again: what `to_phases` gives -> (B, C, height, width), channels_last."""
    parts = phases.unflatten(0, (-1, dilation, dilation))
    batch, channels = parts.shape[0], parts.shape[3]
    x = phases.new_empty(batch, height, width, channels).permute(0, 3, 1, 2)
    for row in range(dilation):
        for column in range(dilation):
            part = x[:, :, row::dilation, column::dilation]
            part.copy_(parts[:, row, column, :, : part.shape[2], : part.shape[3]])
    return x
