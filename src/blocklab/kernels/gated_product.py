"""A map times a sum of gates that broadcast over it, with a lean backward pass.

An ordinary product, written as a `torch.autograd.Function` because its plain form writes and saves
the sum at the map's full size. Here the batch is taken in pieces and nothing but the map and the
gates as they are is saved. A backward pass that shall itself be differentiated takes the plain
operations.
"""

from typing import Any

import torch
from torch import Tensor

from blocklab.kernels.layout import laid_out
from blocklab.kernels.pieces import Piece, pieces, widened


class _GatedProduct(torch.autograd.Function):
    """factor * x * the sum of the gates, each of which broadcasts over x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float, *gates: Tensor) -> Tensor:
        ctx.save_for_backward(x, *gates)
        ctx.factor = factor
        return _product(x, [laid_out(gate, x) for gate in gates], factor)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, *gates = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _gated_gradients(x, gates, grad * ctx.factor)
        learns, _, *gates_learn = ctx.needs_input_grad
        gates = [laid_out(gate, x) for gate in gates]
        grad_x = _product(grad, gates, ctx.factor, x) if learns else None
        grad_gates = [
            torch.empty_like(gate) if learns else None
            for gate, learns in zip(gates, gates_learn, strict=True)
        ]
        for images in pieces(x) if any(gates_learn) else ():
            part = x[images]
            piece = Piece(torch.mul(part, grad[images], out=torch.empty_like(part)))
            for out in grad_gates:
                if out is not None:
                    total = _sum_to(piece, part, out)
                    out[images] = total if ctx.factor == 1 else total * ctx.factor
        return grad_x, None, *grad_gates


def _product(x: Tensor, gates: list[Tensor], factor: float, like: Tensor | None = None) -> Tensor:
    """factor * x * the sum of the gates, in the layout of `like` (default: x)."""
    out = torch.empty_like(x if like is None else like)
    if factor != 1:
        gates = [gate * factor for gate in gates]  # they are small
    for images in pieces(x):
        written = out[images]
        parts = [widened(gate[images]) for gate in gates]
        total = torch.empty_like(written, dtype=parts[0].dtype)
        torch.add(parts[0], parts[1], out=total)
        for part in parts[2:]:
            total.add_(part)
        # A product into another type is not vectorised: half precision is rounded afterwards.
        written.copy_(total.mul_(widened(x[images])))
    return out


def _gated_gradients(x: Tensor, gates: list[Tensor], grad: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of a gated product in operations that can be differentiated again."""
    product = grad * x
    grad_gates = [product.sum_to_size(gate.shape) for gate in gates]
    return grad * sum(gates[1:], gates[0]), None, *grad_gates


def _sum_to(product: Piece, x: Tensor, gate: Tensor) -> Tensor:
    axes = [axis for axis in (1, 2, 3) if gate.shape[axis] != x.shape[axis]]
    if len(axes) == 1:
        ordered, axis = product.ordered(axes[0])
        total = ordered.sum(axis, keepdim=True)
        return total if ordered is product.nchw else total.permute(0, 3, 1, 2)
    full = product.nchw if product.nchw is not None else product.channels_last().permute(0, 3, 1, 2)
    return full.sum(axes, keepdim=True) if axes else full


def gated_product(x: Tensor, gates: list[Tensor], factor: float = 1.0) -> Tensor:
    """Return factor * x * the sum of the gates, which have x's sizes or 1 on each of their axes."""
    if len(gates) == 1:  # whose plain product saves no more
        product = x * laid_out(gates[0], x)
        return product if factor == 1 else product * factor
    return _GatedProduct.apply(x, factor, *gates)  # type: ignore[return-value]
