"""Statistics over single axes of a map, with a lean backward pass.

Ordinary operations, written as a `torch.autograd.Function` because their plain form is bound by
memory: a maximum over an axis writes a whole map of zeros backward, each statistic another map.
Here the batch is taken in pieces, nothing of the map's size is saved but the map itself, and its
gradient is written once. A backward pass that shall itself be differentiated takes the plain
operations.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from blocklab.kernels.pieces import CHANNELS, HEIGHT, WIDTH, Piece, pieces, widened

Statistic = Literal["max", "avg", "median", "l1", "l2"]


def _reduce_piece(
    piece: Piece, dim: int, statistic: Statistic, index: bool
) -> tuple[Tensor, Tensor | None]:
    """Reduce an axis; where asked, say which value was taken.

    Pooled over H it is (b, W, C), over W (b, H, C) and over C (b, H, W).
    """
    x, axis = piece.ordered(dim, index)
    value, where = _reduce(x, axis, statistic, index)
    if x is piece.nchw and dim != CHANNELS:
        value, where = value.mT, None if where is None else where.mT
    return value, where


def _reduce(
    x: Tensor, axis: int, statistic: Statistic, index: bool
) -> tuple[Tensor, Tensor | None]:
    if statistic == "avg":
        return x.mean(axis), None
    if statistic in ("l1", "l2"):
        return torch.linalg.vector_norm(x, 1 if statistic == "l1" else 2, axis), None
    if statistic == "max" and not index:
        return x.amax(axis), None
    if statistic == "max" and axis < 3 and x.device.type == "cpu":
        return _max_over_rows(x, axis)
    value, where = x.median(axis) if statistic == "median" else x.max(axis)
    return value, where if index else None


def _max_over_rows(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The maximum over axis 1 or 2 of four and the first place where it is.

    As a pooling in channels_last, which PyTorch vectorises: ten times as fast as `torch.max`.
    """
    size, rest = x.shape[axis], [*x.shape[:axis], *x.shape[axis + 1 :]]
    rows = x.flatten(0, axis - 1).flatten(2)  # (n, size, m)
    value, where = F.max_pool2d(
        rows.unsqueeze(2).permute(0, 3, 1, 2), (size, 1), return_indices=True
    )
    return value.flatten().view(rest), where.flatten().view(rest)


def _index_dtype(size: int) -> torch.dtype:
    return torch.uint8 if size <= 1 << 8 else torch.int16 if size <= 1 << 15 else torch.int32


def _rest(x: Tensor, dim: int) -> tuple[int, int]:
    """The axes that remain when `dim` is pooled, as `Piece.reduce` orders them."""
    _, channels, height, width = x.shape
    return {CHANNELS: (height, width), HEIGHT: (width, channels), WIDTH: (height, channels)}[dim]


def unpooled(plane: Tensor, dim: int) -> Tensor:
    """Give a plane that was pooled over `dim` its place in (B, C, H, W), with 1 for `dim`.

    (B, W, C) -> (B, C, 1, W), (B, H, C) -> (B, C, H, 1) or (B, H, W) -> (B, 1, H, W).
    """
    if dim == CHANNELS:
        return plane.unsqueeze(1)
    return plane.mT.unsqueeze(dim)


class _AxisPool(torch.autograd.Function):
    """x and, for each axis, its statistics.

    x is handed through so that the gradient of what else is made of it arrives here, where that
    of the statistics is added to it in place.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dims: tuple[int, ...], statistics: tuple[Statistic, ...]
    ) -> tuple[Tensor, ...]:
        learns = ctx.needs_input_grad[0]
        pooled = [x.new_empty(x.shape[0], len(statistics), *_rest(x, dim)) for dim in dims]
        indices: list[dict[Statistic, Tensor]] = [
            {
                statistic: torch.empty(
                    x.shape[0], *_rest(x, dim), dtype=_index_dtype(x.shape[dim]), device=x.device
                )
                for statistic in statistics
                if learns and statistic in ("max", "median")
            }
            for dim in dims
        ]
        for images in pieces(x):
            piece = Piece(x[images])
            for dim, out, index in zip(dims, pooled, indices, strict=True):
                for number, statistic in enumerate(statistics):
                    value, where = _reduce_piece(piece, dim, statistic, statistic in index)
                    out[images, number] = value
                    if where is not None:
                        index[statistic][images] = where
        if learns:
            norms = [
                out[:, number].clone()
                for out in pooled
                for number, statistic in enumerate(statistics)
                if statistic == "l2"
            ]
            flat = [where for index in indices for where in index.values()]
            of_x = [x] if {"l1", "l2"} & set(statistics) else []
            ctx.save_for_backward(*of_x, *norms, *flat)
            ctx.dims, ctx.statistics = dims, statistics
        return (x.view_as(x), *pooled)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad: Tensor, *grad_pooled: Tensor
    ) -> tuple[Tensor, None, None]:
        saved = iter(ctx.saved_tensors)
        x = next(saved) if {"l1", "l2"} & set(ctx.statistics) else None
        norms = {dim: next(saved) for dim in ctx.dims if "l2" in ctx.statistics}
        indices = {
            (dim, statistic): next(saved)
            for dim in ctx.dims
            for statistic in ctx.statistics
            if statistic in ("max", "median")
        }
        if torch.is_grad_enabled():
            for dim, pooled in zip(ctx.dims, grad_pooled, strict=True):
                for number, statistic in enumerate(ctx.statistics):
                    step = unpooled(pooled[:, number], dim)
                    where = indices.get((dim, statistic))
                    grad = grad + _spread(statistic, step, dim, grad, x, where)
            return grad, None, None
        if not (grad.is_contiguous() or grad.is_contiguous(memory_format=torch.channels_last)):
            grad = grad.contiguous()  # one value may stand for many
        for images in pieces(grad):
            narrow = grad[images]
            total = widened(narrow)
            part = torch.empty(0) if x is None else widened(x[images])
            for dim, pooled in zip(ctx.dims, grad_pooled, strict=True):
                for number, statistic in enumerate(ctx.statistics):
                    step = unpooled(widened(pooled[images, number]), dim)
                    if statistic == "avg":
                        total.add_(step, alpha=1 / grad.shape[dim])
                    elif statistic == "l1":
                        total.addcmul_(part.sign(), step)
                    elif statistic == "l2":
                        length = unpooled(widened(norms[dim][images]), dim)
                        # The norm has no slope at zero; 0 is its shortest subgradient.
                        total.addcmul_(part, (step / length).masked_fill_(length == 0, 0))
                    else:
                        where = unpooled(indices[dim, statistic][images], dim)
                        total.scatter_add_(dim, where.long(), step)
            if total is not narrow:
                narrow.copy_(total)
        return grad, None, None


def _spread(
    statistic: Statistic,
    step: Tensor,
    dim: int,
    like: Tensor,
    x: Tensor | None,
    where: Tensor | None,
) -> Tensor:
    """A statistic's gradient as a map, in operations that can be differentiated again."""
    if statistic == "avg":
        return (step / like.shape[dim]).expand_as(like)
    if where is not None:
        return torch.zeros_like(like).scatter_add(dim, unpooled(where, dim).long(), step)
    assert x is not None
    if statistic == "l1":
        return x.sign() * step
    length = torch.linalg.vector_norm(x, 2, dim, keepdim=True)
    return x * torch.where(length == 0, 0, step / length.masked_fill(length == 0, 1))


def axis_pool(
    x: Tensor, dims: tuple[int, ...], statistics: tuple[Statistic, ...]
) -> tuple[Tensor, list[Tensor]]:
    """Pool single axes of (B, C, H, W), statistics stacked as channels.

    Returns x itself, of which whatever else needs it must be made (among it a `gated_product`,
    whose gradient is added to in place), and a map for each axis: pooled over H it is
    (B, S, W, C), over W (B, S, H, C) and over C (B, S, H, W). Of equal maxima the first takes the
    gradient, as with `torch.max`; at a norm of zero it is zero.
    """
    out, *pooled = _AxisPool.apply(x, dims, statistics)  # type: ignore[misc]
    return out, pooled
