"""Statistics over single axes and products with broadcast gates, with lean backward passes.

Both are ordinary operations, written as `torch.autograd.Function` because their plain forms are
bound by memory: a maximum over an axis writes a whole map of zeros backward, each statistic
another map, and a product saves the broadcast gate. Here the batch is taken in pieces whose
temporaries stay in the processor's cache, nothing of the map's size is saved but the map itself,
and its gradient is written once.
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Statistic = Literal["max", "avg", "median", "l1", "l2"]

_CHANNELS, _HEIGHT, _WIDTH = 1, 2, 3
_PIECE = 1 << 18  # values of a piece: 1 MiB of float32, what current processors' second cache holds
_SHORT_ROW = 16  # PyTorch's reductions within and over rows shorter than this are not vectorised


def _pieces(x: Tensor) -> Iterator[slice]:
    """Slices of the batch; all of it where there is no cache to stay in."""
    batch = x.shape[0]
    step = max(1, batch)
    if x.device.type == "cpu":
        step = max(1, _PIECE // max(1, x[:1].numel()))
    for start in range(0, batch, step):
        yield slice(start, start + step)


def _widened(x: Tensor) -> Tensor:
    """Half precision is computed in float32 and rounded once."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class _Piece:
    """Some images in the order of their memory, and in the other order where that is faster."""

    def __init__(self, x: Tensor) -> None:
        x = _widened(x)
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
        """Return the map in the order that reduces `dim` fastest, and which axis `dim` is there."""
        first = self.nchw is not None and (
            dim == _CHANNELS or (not index and self.nchw.shape[3] >= _SHORT_ROW)
        )
        if first:
            assert self.nchw is not None
            return self.nchw, dim
        return self.channels_last(), {_CHANNELS: 3, _HEIGHT: 1, _WIDTH: 2}[dim]

    def reduce(self, dim: int, statistic: Statistic, index: bool) -> tuple[Tensor, Tensor | None]:
        """Reduce an axis; where asked, say which value was taken.

        Pooled over H it is (b, W, C), over W (b, H, C) and over C (b, H, W).
        """
        x, axis = self.ordered(dim, index)
        value, where = _reduce(x, axis, statistic, index)
        if x is self.nchw and dim != _CHANNELS:
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
    """The axes that remain when `dim` is pooled, as `_Piece.reduce` orders them."""
    _, channels, height, width = x.shape
    return {_CHANNELS: (height, width), _HEIGHT: (width, channels), _WIDTH: (height, channels)}[dim]


def unpooled(plane: Tensor, dim: int) -> Tensor:
    """Give a plane that was pooled over `dim` its place in (B, C, H, W), with 1 for `dim`.

    (B, W, C) -> (B, C, 1, W), (B, H, C) -> (B, C, H, 1) or (B, H, W) -> (B, 1, H, W).
    """
    if dim == _CHANNELS:
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
        for images in _pieces(x):
            piece = _Piece(x[images])
            for dim, out, index in zip(dims, pooled, indices, strict=True):
                for number, statistic in enumerate(statistics):
                    value, where = piece.reduce(dim, statistic, statistic in index)
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
    @once_differentiable
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
        for images in _pieces(grad):
            narrow = grad[images]
            total = _widened(narrow)
            part = torch.empty(0) if x is None else _widened(x[images])
            for dim, pooled in zip(ctx.dims, grad_pooled, strict=True):
                for number, statistic in enumerate(ctx.statistics):
                    step = unpooled(_widened(pooled[images, number]), dim)
                    if statistic == "avg":
                        total.add_(step, alpha=1 / grad.shape[dim])
                    elif statistic == "l1":
                        total.addcmul_(part.sign(), step)
                    elif statistic == "l2":
                        length = unpooled(_widened(norms[dim][images]), dim)
                        # The norm has no slope at zero; 0 is its shortest subgradient.
                        total.addcmul_(part, (step / length).masked_fill_(length == 0, 0))
                    else:
                        where = unpooled(indices[dim, statistic][images], dim)
                        total.scatter_add_(dim, where.long(), step)
            if total is not narrow:
                narrow.copy_(total)
        return grad, None, None


class _GatedProduct(torch.autograd.Function):
    """x * (the sum, or the product, of the gates), each of which broadcasts over x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, multiplied: bool, *gates: Tensor) -> Tensor:
        ctx.save_for_backward(x, *gates)
        ctx.multiplied = multiplied
        out = torch.empty_like(x)
        for images in _pieces(x):
            part = _widened(x[images])
            torch.mul(part, _combined(part, gates, images, multiplied), out=out[images])
        return out

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, *gates = ctx.saved_tensors
        learns, _, *gates_learn = ctx.needs_input_grad
        grad_x = torch.empty_like(x) if learns else None
        grad_gates = [
            torch.empty_like(gate) if learns else None
            for gate, learns in zip(gates, gates_learn, strict=True)
        ]
        for images in _pieces(x):
            part, step = _widened(x[images]), _widened(grad[images])
            if grad_x is not None:
                combined = _combined(part, gates, images, ctx.multiplied)
                torch.mul(step, combined, out=grad_x[images])
            product = torch.mul(part, step, out=torch.empty_like(part))
            piece = _Piece(product)
            for number, out in enumerate(grad_gates):
                others = gates[:number] + gates[number + 1 :]
                if out is None:
                    continue
                if ctx.multiplied and others:
                    scaled = product * _combined(part, others, images, True)
                    out[images] = _sum_to(_Piece(scaled), part, out)
                else:
                    out[images] = _sum_to(piece, part, out)
        return grad_x, None, *grad_gates


def _combined(
    x: Tensor, gates: tuple[Tensor, ...] | list[Tensor], images: slice, multiplied: bool
) -> Tensor:
    """Add or multiply the gates of some images, several of them in one map of x's layout."""
    first = _widened(gates[0][images])
    if len(gates) == 1:
        return first
    total = torch.empty_like(x).copy_(first.expand_as(x))
    for gate in gates[1:]:
        if multiplied:
            total.mul_(gate[images])
        else:
            total.add_(gate[images])
    return total


def _sum_to(product: _Piece, x: Tensor, gate: Tensor) -> Tensor:
    axes = [axis for axis in (1, 2, 3) if gate.shape[axis] != x.shape[axis]]
    if len(axes) == 1:
        ordered, axis = product.ordered(axes[0])
        total = ordered.sum(axis, keepdim=True)
        return total if ordered is product.nchw else total.permute(0, 3, 1, 2)
    full = product.nchw if product.nchw is not None else product.channels_last().permute(0, 3, 1, 2)
    return full.sum(axes, keepdim=True) if axes else full


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


def gated_product(x: Tensor, gates: list[Tensor], multiplied: bool = False) -> Tensor:
    """Return x * (the sum of the gates), or x * (their product) where they are ``multiplied``.

    Gates have x's sizes or 1 on each of their four axes.
    """
    if len(gates) == 1 and not torch.is_grad_enabled():
        return x * gates[0]
    return _GatedProduct.apply(x, multiplied, *gates)  # type: ignore[return-value]
