"""Pooling of a map (B, C, H, W) over its axes: means and sums, and statistics of single axes.

Means and sums take the way that PyTorch vectorises: on processors, a reduction of channels_last is
no vector code, but the average pooling of the whole axis is; of contiguous maps the reduction is
the faster one.

Statistics of single axes are bound by memory: in their plain form a maximum over an axis writes a
whole map of zeros backward, each other statistic another map. As a `torch.autograd.Function` the
batch is taken in pieces, nothing of the map's size is saved but the map itself, and its gradient is
written once.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from blocklab.kernels.layout import (
    CHANNELS,
    HEIGHT,
    WIDTH,
    Piece,
    is_channels_last,
    pieces,
    widened,
)
from blocklab.kernels.recording import is_plain_better, is_traced

Statistic = Literal["max", "avg", "median", "l1", "l2"]


def mean_over(x: Tensor, *axes: int) -> Tensor:
    """x.mean(axes, keepdim=True) for axes 2, 3 or both: (B, C, H, W) -> 1 on these axes."""
    if is_plain_better(x) or not _is_pooled_faster(x):
        return x.mean(axes, keepdim=True)
    return F.avg_pool2d(x, _window(x, axes))


def sum_over(x: Tensor, *axes: int) -> Tensor:
    """x.sum(axes, keepdim=True) for axes 2, 3 or both: (B, C, H, W) -> 1 on these axes."""
    if is_plain_better(x) or not _is_pooled_faster(x):
        return x.sum(axes, keepdim=True)
    return F.avg_pool2d(x, _window(x, axes), divisor_override=1)


def max_over(x: Tensor) -> Tensor:
    """The maximum of each channel's map, (B, C, 1, 1); of equals the first takes the gradient."""
    if is_plain_better(x) or not _is_pooled_faster(x):
        return x.flatten(2).max(2).values[:, :, None, None]
    return F.max_pool2d(x, list(x.shape[2:]))


def norm_over(x: Tensor) -> Tensor:
    """The sum of each map's absolute values: (B, C, H, W) -> (B, C, 1, 1), float32 of float16."""
    return _norm(x, 1, (HEIGHT, WIDTH), True)


def energy_over(x: Tensor) -> Tensor:
    """The sum of each map's squares: (B, C, H, W) -> (B, C, 1, 1), float32 of float16 maps."""
    return _energy(x)


def _energy(x: Tensor) -> Tensor:
    if not is_traced(x) and x.dtype != torch.float16 and _is_pooled_faster(x):
        return (x * x).sum((HEIGHT, WIDTH), keepdim=True)  # a norm is no vector code there
    return _norm(x, 2, (HEIGHT, WIDTH), True).square()


torch.fx.wrap("_energy")  # a symbolic trace does not know the map's type


def window_means(x: Tensor, size: int) -> Tensor:
    """The means of whole windows beside each other: (B, C, H, W) -> (B, C, H // s, W // s).

    A window is cut to a map that is smaller on an axis.
    """
    return _window_means(x, size)


def _window_means(x: Tensor, size: int) -> Tensor:
    return F.avg_pool2d(x, [min(size, side) for side in x.shape[2:]])


torch.fx.wrap("_window_means")  # a symbolic trace does not know the map's size


def _is_pooled_faster(x: Tensor) -> bool:
    return x.numel() > 0 and is_channels_last(x)


def _window(x: Tensor, axes: tuple[int, ...]) -> list[int]:
    return [x.shape[axis] if axis in axes else 1 for axis in (HEIGHT, WIDTH)]


def map_mean(x: Tensor) -> Tensor:
    """x.mean((2, 3)): (B, C, H, W) -> (B, C), with a gradient that lies in memory as x does.

    PyTorch's is contiguous, and a BatchNorm in channels_last takes many times as long over it.
    """
    if is_traced(x) or not is_channels_last(x):
        return x.mean((2, 3))
    return x.permute(0, 2, 3, 1).mean((1, 2))


def axis_pool(
    x: Tensor, dims: tuple[int, ...], statistics: tuple[Statistic, ...]
) -> tuple[Tensor, list[Tensor]]:
    """Pool single axes, 1, 2 or 3, each to a plane with its statistics as channels.

    Returns x, and the planes: (B, S, W, C) of axis 2, (B, S, H, C) of 3 and (B, S, H, W) of 1.
    Planes with norms of float16 maps are float32: a sum of 66 values near 1,000 is beyond float16.
    Whatever else needs x must be made of the x returned, whose gradient is added to in place. The
    median is PyTorch's, the lower of two middle values; of equal maxima the first takes the
    gradient; at a norm of zero it is zero.
    """
    if is_plain_better(x):
        return x, [plain_axis_pool(x, dim, statistics) for dim in dims]
    out, *planes = _AxisPool.apply(x, dims, statistics)  # type: ignore[misc]
    return out, planes


def plain_axis_pool(x: Tensor, dim: int, statistics: tuple[Statistic, ...]) -> Tensor:
    """Pool one axis as `axis_pool` does, in PyTorch's operations."""
    plane = torch.stack([_reduce(x, dim, statistic) for statistic in statistics], 1)
    return plane if dim == CHANNELS else plane.mT


def unpooled(plane: Tensor, dim: int) -> Tensor:
    """Give a plane of one channel that was pooled over `dim` its place in (B, C, H, W).

    (B, 1, W, C) -> (B, C, 1, W), (B, 1, H, C) -> (B, C, H, 1), (B, 1, H, W) as it is.
    """
    if dim == CHANNELS:
        return plane
    return plane.permute(0, 3, 1, 2) if dim == HEIGHT else plane.permute(0, 3, 2, 1)


def _reduce(x: Tensor, axis: int, statistic: Statistic) -> Tensor:
    if statistic == "max":
        return x.max(axis).values  # amax's backward pass is several times slower
    if statistic == "median":
        return _median(x, axis)[0]
    if statistic == "avg":
        return x.mean(axis)
    return _norm(x, 1 if statistic == "l1" else 2, axis)


def _median(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The lower of the two middle values, and where it is."""
    if not is_traced(x) and x.is_cuda and torch.are_deterministic_algorithms_enabled():
        ordered = x.sort(dim=axis, stable=True)  # CUDA's median may name another of equal values
        middle = (x.shape[axis] - 1) // 2
        return ordered.values.select(axis, middle), ordered.indices.select(axis, middle)
    value, where = x.median(axis)
    return value, where


def _norm(x: Tensor, order: int, axes: int | tuple[int, int], keepdim: bool = False) -> Tensor:
    return torch.linalg.vector_norm(x, order, axes, keepdim, dtype=_plane_type(x, ("l1",)))


torch.fx.wrap("_norm")  # a symbolic trace does not know the map's type


def _plane_type(x: Tensor, statistics: tuple[Statistic, ...]) -> torch.dtype:
    wide = x.dtype == torch.float16 and {"l1", "l2"} & set(statistics)
    return torch.float32 if wide else x.dtype


class _AxisPool(torch.autograd.Function):
    """x and, for each axis, its statistics.

    x is handed through so that the gradient of what else is made of it arrives here, where that
    of the statistics is added to it in place. A backward pass that shall itself be differentiated
    takes the plain operations.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dims: tuple[int, ...], statistics: tuple[Statistic, ...]
    ) -> tuple[Tensor, ...]:
        learns = ctx.needs_input_grad[0]
        dtype = _plane_type(x, statistics)
        planes = [
            x.new_empty(x.shape[0], len(statistics), *_plane_size(x, dim), dtype=dtype)
            for dim in dims
        ]
        # Of a maximum or median, which value along the axis it is.
        indices: list[dict[Statistic, Tensor]] = [
            {
                statistic: plane.new_empty(plane[:, :1].shape, dtype=_index_dtype(x.shape[dim]))
                for statistic in statistics
                if learns and statistic in ("max", "median")
            }
            for dim, plane in zip(dims, planes, strict=True)
        ]
        for images in pieces(x):
            piece = Piece(x[images])
            for dim, plane, index in zip(dims, planes, indices, strict=True):
                for number, statistic in enumerate(statistics):
                    value, where = _reduce_piece(piece, dim, statistic, statistic in index)
                    plane[images, number] = value
                    if where is not None:
                        index[statistic][images, 0] = where
        if learns:
            norms = [
                plane[:, number : number + 1].clone()
                for plane in planes
                for number, statistic in enumerate(statistics)
                if statistic == "l2"
            ]
            flat = [where for index in indices for where in index.values()]
            of_x = [x] if {"l1", "l2"} & set(statistics) else []
            ctx.save_for_backward(*of_x, *norms, *flat)
            ctx.dims, ctx.statistics = dims, statistics
        return (x.view_as(x), *planes)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad: Tensor, *grad_planes: Tensor
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
        parts = [
            (dim, statistic, plane[:, number : number + 1])
            for dim, plane in zip(ctx.dims, grad_planes, strict=True)
            for number, statistic in enumerate(ctx.statistics)
        ]
        if torch.is_grad_enabled():
            for dim, statistic, plane in parts:
                where = indices.get((dim, statistic))
                step = unpooled(plane, dim).to(grad.dtype)
                grad = grad + _spread(statistic, step, dim, grad, x, where)
            return grad, None, None
        if not (grad.is_contiguous() or grad.is_contiguous(memory_format=torch.channels_last)):
            grad = grad.contiguous()  # one value may stand for many
        for images in pieces(grad):
            narrow = grad[images]
            total = widened(narrow)
            part = torch.empty(0) if x is None else widened(x[images])
            for dim, statistic, plane in parts:
                step = unpooled(widened(plane[images]), dim)
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


def _plane_size(x: Tensor, dim: int) -> tuple[int, int]:
    _, channels, height, width = x.shape
    return {CHANNELS: (height, width), HEIGHT: (width, channels), WIDTH: (height, channels)}[dim]


def _index_dtype(size: int) -> torch.dtype:
    return torch.uint8 if size <= 1 << 8 else torch.int16 if size <= 1 << 15 else torch.int32


def _reduce_piece(
    piece: Piece, dim: int, statistic: Statistic, index: bool
) -> tuple[Tensor, Tensor | None]:
    """Reduce an axis to (b, *its plane's size); where asked, say which value was taken."""
    x, axis = piece.ordered(dim, index)
    where = None
    if not index:
        value = x.amax(axis) if statistic == "max" else _reduce(x, axis, statistic)
    elif statistic == "max" and axis < 3 and x.device.type == "cpu":
        value, where = _max_over_rows(x, axis)
    else:
        value, where = x.max(axis) if statistic == "max" else _median(x, axis)
    if x is piece.nchw and dim != CHANNELS:
        value, where = value.mT, None if where is None else where.mT
    return value, where


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
