"""A map times gates that broadcast over it, with a lean backward pass.

An ordinary product, written as a `torch.autograd.Function` because its plain form writes and saves
the gate at the map's full size. Here the batch is taken in pieces and nothing but the map and the
gates as they are is saved. A backward pass that shall itself be differentiated takes the plain
operations.
"""

import math
from typing import Any

import torch
from torch import Tensor

from blocklab.blocks.pieces import Piece, pieces, widened


class _GatedProduct(torch.autograd.Function):
    """factor * x * (the sum, or the product, of the gates), each of which broadcasts over x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, multiplied: bool, factor: float, *gates: Tensor) -> Tensor:
        ctx.save_for_backward(x, *gates)
        ctx.multiplied, ctx.factor = multiplied, factor
        out = torch.empty_like(x)
        for images in pieces(x):
            part = widened(x[images])
            combined = _combined(part, gates, images, multiplied, factor)
            torch.mul(part, combined, out=out[images])
        return out

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, *gates = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _gated_gradients(x, gates, grad, ctx.multiplied, ctx.factor)
        learns, _, _, *gates_learn = ctx.needs_input_grad
        grad_x = torch.empty_like(x) if learns else None
        grad_gates = [
            torch.empty_like(gate) if learns else None
            for gate, learns in zip(gates, gates_learn, strict=True)
        ]
        for images in pieces(x):
            part, step = widened(x[images]), widened(grad[images])
            if grad_x is not None:
                combined = _combined(part, gates, images, ctx.multiplied, ctx.factor)
                torch.mul(step, combined, out=grad_x[images])
            product = torch.mul(part, step, out=torch.empty_like(part))
            piece = Piece(product)
            for number, out in enumerate(grad_gates):
                others = gates[:number] + gates[number + 1 :]
                if out is None:
                    continue
                if ctx.multiplied and others:
                    scaled = product * _combined(part, others, images, True, 1.0)
                    total = _sum_to(Piece(scaled), part, out)
                else:
                    total = _sum_to(piece, part, out)
                out[images] = total if ctx.factor == 1 else total * ctx.factor
        return grad_x, None, None, *grad_gates


def _gated_gradients(
    x: Tensor, gates: list[Tensor], grad: Tensor, multiplied: bool, factor: float
) -> tuple[Tensor | None, ...]:
    """The gradients of a gated product in operations that can be differentiated again."""

    def combined(parts: list[Tensor]) -> Tensor | float:
        if multiplied:
            return math.prod(parts, start=torch.ones((), dtype=x.dtype, device=x.device))
        return sum(parts[1:], parts[0])

    grad = grad * factor
    grad_gates = []
    for number, gate in enumerate(gates):
        others = combined(gates[:number] + gates[number + 1 :]) if multiplied else 1.0
        grad_gates.append((grad * x * others).sum_to_size(gate.shape))
    return grad * combined(gates), None, None, *grad_gates


def _combined(
    x: Tensor,
    gates: tuple[Tensor, ...] | list[Tensor],
    images: slice,
    multiplied: bool,
    factor: float,
) -> Tensor:
    """Add or multiply the gates of some images, several of them in one map of x's layout."""
    parts = [widened(gate[images]) for gate in gates]
    if factor != 1:
        parts[: 1 if multiplied else None] = [
            part * factor for part in parts[: 1 if multiplied else None]
        ]
    first = parts[0]
    if len(gates) == 1:
        return first
    total = torch.empty_like(x).copy_(first.expand_as(x))
    for part in parts[1:]:
        if multiplied:
            total.mul_(part)
        else:
            total.add_(part)
    return total


def _sum_to(product: Piece, x: Tensor, gate: Tensor) -> Tensor:
    axes = [axis for axis in (1, 2, 3) if gate.shape[axis] != x.shape[axis]]
    if len(axes) == 1:
        ordered, axis = product.ordered(axes[0])
        total = ordered.sum(axis, keepdim=True)
        return total if ordered is product.nchw else total.permute(0, 3, 1, 2)
    full = product.nchw if product.nchw is not None else product.channels_last().permute(0, 3, 1, 2)
    return full.sum(axes, keepdim=True) if axes else full


def gated_product(
    x: Tensor, gates: list[Tensor], multiplied: bool = False, factor: float = 1.0
) -> Tensor:
    """Return factor * x * (the sum of the gates, or their product where they are `multiplied`).

    Gates have x's sizes or 1 on each of their four axes.
    """
    if len(gates) == 1 and factor == 1 and not torch.is_grad_enabled():
        return x * gates[0]
    return _GatedProduct.apply(x, multiplied, factor, *gates)  # type: ignore[return-value]
