"""Each position's own kernel on its neighbourhood, without a map of neighbourhoods in memory.

The plain form unfolds x, which is k * k maps, and multiplies them by the kernels, as many again. As
a `torch.autograd.Function` the taps are taken one after another, over slices of x with a margin of
zeros; nothing but x and the kernels is saved. On a GPU, where each tap would be a launch or more,
and where the call is recorded, the plain form is taken.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from blocklab.kernels.recording import is_counted, is_plain_better


def local_product(x: Tensor, kernels: Tensor, size: int, stride: int) -> Tensor:
    """Multiply k x k neighbourhoods, padded with zeros, by kernels that groups of channels share.

    x (B, C, H, W) and kernels (B, G * k * k, H', W') -> (B, C, H', W'), with H' = ceil(H / stride):
    y[c, i, j] = sum_{u, v} kernels[g, u, v, i, j] * x[c, s i + u - k // 2, s j + v - k // 2], where
    g is c's group of C / G channels.
    """
    if is_plain_better(x):
        if isinstance(x, Tensor) and (x.is_meta or is_counted()):  # a symbolic trace has no tensor
            return _as_matrix_products(x, kernels, size, stride)
        return _plain(x, kernels, size, stride)
    x, kernels = x.type_as(kernels), kernels.contiguous()
    return _LocalProduct.apply(x, kernels, size, stride)  # type: ignore[return-value]


def _as_matrix_products(x: Tensor, kernels: Tensor, size: int, stride: int) -> Tensor:
    """The same where nothing is computed and costs are counted: each position's k * k products."""
    height, width = kernels.shape[2], kernels.shape[3]
    weights = kernels.unflatten(1, (-1, size * size))  # (B, G, k * k, H', W')
    around = F.unfold(x, size, padding=size // 2, stride=stride).unflatten(2, (height, width))
    around = around.unflatten(1, (weights.shape[1], -1, size * size))
    return torch.einsum("bgkhw,bgckhw->bgchw", weights, around).flatten(1, 2)


def _plain(x: Tensor, kernels: Tensor, size: int, stride: int) -> Tensor:
    height, width = kernels.shape[2], kernels.shape[3]
    weights = kernels.unflatten(1, (-1, 1, size * size))  # (B, G, 1, k * k, H', W')
    around = F.unfold(x, size, padding=size // 2, stride=stride)  # (B, C * k * k, H' * W')
    around = around.unflatten(2, (height, width)).unflatten(1, (weights.shape[1], -1, size * size))
    return (weights * around).sum(3).flatten(1, 2)


class _LocalProduct(torch.autograd.Function):
    """A backward pass that shall itself be differentiated takes the plain operations."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernels: Tensor, size: int, stride: int) -> Tensor:
        ctx.save_for_backward(x, kernels)
        ctx.size, ctx.stride = size, stride
        groups = kernels.shape[1] // (size * size)
        weights = kernels.unflatten(1, (groups, 1, -1))
        padded = _padded(x, size, groups)
        out: Tensor | None = None
        for tap, (rows, columns) in enumerate(_taps(size, stride, kernels)):
            term = padded[..., rows, columns] * weights[:, :, :, tap]
            out = _wide(term) if out is None else out.add_(term)
        assert out is not None
        return out.to(x.dtype).flatten(1, 2)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, kernels = ctx.saved_tensors
        size, stride = ctx.size, ctx.stride
        learns_x, learns_kernels = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():
            with torch.enable_grad():
                out = _plain(x, kernels, size, stride)
            found = torch.autograd.grad(out, (x, kernels), grad, create_graph=True)
            return found[0], found[1], None, None
        groups = kernels.shape[1] // (size * size)
        weights = kernels.unflatten(1, (groups, 1, -1))
        padded = _padded(x, size, groups)
        grad = grad.unflatten(1, (groups, -1))
        grad_padded = _wide(torch.zeros_like(padded)) if learns_x else None
        grad_weights = torch.empty_like(weights) if learns_kernels else None
        for tap, (rows, columns) in enumerate(_taps(size, stride, kernels)):
            if grad_padded is not None:
                grad_padded[..., rows, columns] += grad * weights[:, :, :, tap]
            if grad_weights is not None:
                product = grad * padded[..., rows, columns]
                grad_weights[:, :, :, tap] = product.sum(2, keepdim=True)
        half = size // 2
        height, width = x.shape[2], x.shape[3]
        if grad_padded is not None:
            inner = grad_padded[..., half : half + height, half : half + width]
            grad_padded = inner.to(x.dtype).flatten(1, 2)
        return (
            grad_padded,
            None if grad_weights is None else grad_weights.view_as(kernels),
            None,
            None,
        )


def _wide(values: Tensor) -> Tensor:
    """Return values to add many more to: of half precision in float32, rounded once at the end."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _padded(x: Tensor, size: int, groups: int) -> Tensor:
    """(B, G, C / G, H + k - 1, W + k - 1)."""
    return F.pad(x, (size // 2,) * 4).unflatten(1, (groups, -1))


def _taps(size: int, stride: int, kernels: Tensor) -> Iterator[tuple[slice, slice]]:
    """Where in the padded map each tap of a kernel lies, for all positions."""
    height, width = kernels.shape[2], kernels.shape[3]
    for row in range(size):
        for column in range(size):
            yield (
                slice(row, row + stride * (height - 1) + 1, stride),
                slice(column, column + stride * (width - 1) + 1, stride),
            )
