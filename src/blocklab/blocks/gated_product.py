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

# Bytes of a map from where on the system hands out its memory page by page, each time anew: a
# product with one gate is faster in pieces only there.
_LARGE = 1 << 24


class _GatedProduct(torch.autograd.Function):
    """factor * x * (the sum, or the product, of the gates), each of which broadcasts over x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, multiplied: bool, factor: float, *gates: Tensor) -> Tensor:
        ctx.save_for_backward(x, *gates)
        ctx.multiplied, ctx.factor = multiplied or len(gates) == 1, factor
        return _product(x, [_laid_out(gate, x) for gate in gates], ctx.multiplied, factor)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, *gates = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _gated_gradients(x, gates, grad, ctx.multiplied, ctx.factor)
        learns, _, _, *gates_learn = ctx.needs_input_grad
        gates = [_laid_out(gate, x) for gate in gates]
        grad_x = _product(grad, gates, ctx.multiplied, ctx.factor, x) if learns else None
        grad_gates = [
            torch.empty_like(gate) if learns else None
            for gate, learns in zip(gates, gates_learn, strict=True)
        ]
        for images in pieces(x) if any(gates_learn) else ():
            part = x[images]
            product = torch.mul(part, grad[images], out=torch.empty_like(part))
            piece = Piece(product)
            for number, out in enumerate(grad_gates):
                if out is None:
                    continue
                if ctx.multiplied and len(gates) > 1:
                    scaled = product
                    for other in gates[:number] + gates[number + 1 :]:
                        scaled = scaled * other[images]
                    total = _sum_to(Piece(scaled), part, out)
                else:
                    total = _sum_to(piece, part, out)
                out[images] = total if ctx.factor == 1 else total * ctx.factor
        return grad_x, None, None, *grad_gates


def _product(
    x: Tensor, gates: list[Tensor], multiplied: bool, factor: float, like: Tensor | None = None
) -> Tensor:
    """factor * x * the gates, in the layout of `like` (default: x)."""
    out = torch.empty_like(x if like is None else like)
    if factor != 1:  # the gates are small
        gates = [gate * factor for gate in gates[: 1 if multiplied else None]] + gates[
            1 if multiplied else len(gates) :
        ]
    for images in pieces(x):
        written = out[images]
        if multiplied:
            torch.mul(x[images], gates[0][images], out=written)
            for gate in gates[1:]:
                written.mul_(gate[images])
            continue
        parts = [widened(gate[images]) for gate in gates]
        total = torch.empty_like(written, dtype=parts[0].dtype)
        torch.add(parts[0], parts[1], out=total)
        for part in parts[2:]:
            total.add_(part)
        # A product into another type is not vectorised: half precision is rounded afterwards.
        written.copy_(total.mul_(widened(x[images])))
    return out


def _laid_out(gate: Tensor, x: Tensor) -> Tensor:
    """Copy a gate, which is small, into the layout of x, so that both are read in one order."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return gate.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


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
    small = x.numel() * x.element_size() < _LARGE or x.device.type != "cpu"
    learns = torch.is_grad_enabled()
    if (len(gates) == 1 and (small or not learns)) or (multiplied and small and not learns):
        for gate in gates:
            x = x * _laid_out(gate, x)
        return x if factor == 1 else x * factor
    return _GatedProduct.apply(x, multiplied, factor, *gates)  # type: ignore[return-value]
