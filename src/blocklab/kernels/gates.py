"""Products of a map with gates that broadcast over it, with lean backward passes.

Ordinary products, written as `torch.autograd.Function`s because their plain forms save maps of the
full size that are cheaper to compute anew: the sum of several gates, or the map gated once. Here
nothing but the map and the gates as they are is saved.
"""

from typing import Any

import torch
from torch import Tensor

from blocklab.kernels.layout import HEIGHT, WIDTH, Piece, laid_out, pieces, widened
from blocklab.kernels.pooling import sum_over
from blocklab.kernels.recording import is_plain_better


def gated_product(x: Tensor, gates: list[Tensor], divisor: int = 1) -> Tensor:
    """Return x times the sum of the gates / divisor: (B, C, H, W) -> same.

    Each gate has x's sizes, or 1, on each of their axes.
    """
    if is_plain_better(x):
        return _plain_product(x, gates, divisor)
    if len(gates) == 1:  # whose plain product saves no more
        return _plain_product(x, [laid_out(gates[0], x)], divisor)
    return _GatedProduct.apply(x, 1 / divisor, *gates)  # type: ignore[return-value]


def added_gate(x: Tensor, gate: Tensor) -> Tensor:
    """Return x * (1 + gate), where the gate has x's sizes: (B, C, H, W) -> same."""
    if is_plain_better(x):
        return x * (1 + gate)
    return torch.addcmul(x, x, gate)  # which saves no sum


def crossed_gates(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return x * rows * columns: (B, C, H, W), (B, C, H, 1), (B, C, 1, W) -> (B, C, H, W)."""
    if is_plain_better(x):
        return x * rows * columns
    return _CrossedGates.apply(x, rows, columns)  # type: ignore[return-value]


def _plain_product(x: Tensor, gates: list[Tensor], divisor: int) -> Tensor:
    total = sum(gates[1:], gates[0])
    return x * (total if divisor == 1 else total / divisor)


class _GatedProduct(torch.autograd.Function):
    """factor * x * the sum of the gates.

    A backward pass that shall itself be differentiated takes the plain operations.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float, *gates: Tensor) -> Tensor:
        ctx.save_for_backward(x, *gates)
        ctx.factor = factor
        return _product(x, [laid_out(gate, x) for gate in gates], factor, like=x)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, *gates = ctx.saved_tensors
        if torch.is_grad_enabled():
            grad = grad * ctx.factor
            product = grad * x
            grad_gates = [product.sum_to_size(gate.shape) for gate in gates]
            return grad * sum(gates[1:], gates[0]), None, *grad_gates
        learns, _, *gates_learn = ctx.needs_input_grad
        gates = [laid_out(gate, x) for gate in gates]
        grad_x = _product(grad, gates, ctx.factor, like=x) if learns else None
        grad_gates = [
            torch.empty_like(gate) if learns else None
            for gate, learns in zip(gates, gates_learn, strict=True)
        ]
        for images in pieces(x) if any(gates_learn) else ():
            part = x[images]
            product = Piece(torch.mul(part, grad[images], out=torch.empty_like(part)))
            for out in grad_gates:
                if out is not None:
                    total = _sum_to(product, part, out)
                    out[images] = total if ctx.factor == 1 else total * ctx.factor
        return grad_x, None, *grad_gates


def _product(x: Tensor, gates: list[Tensor], factor: float, like: Tensor) -> Tensor:
    """factor * x * the sum of the gates, in the layout of `like`."""
    out = torch.empty_like(like)
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


def _sum_to(product: Piece, x: Tensor, gate: Tensor) -> Tensor:
    """The sum of a piece of x's sizes over the axes on which the gate has 1."""
    axes = [axis for axis in (1, 2, 3) if gate.shape[axis] != x.shape[axis]]
    if len(axes) == 1:
        ordered, axis = product.ordered(axes[0])
        total = ordered.sum(axis, keepdim=True)
        return total if ordered is product.nchw else total.permute(0, 3, 1, 2)
    full = product.nchw if product.nchw is not None else product.channels_last().permute(0, 3, 1, 2)
    return full.sum(axes, keepdim=True) if axes else full


class _CrossedGates(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(x, rows, columns)
        return (x * laid_out(rows, x)).mul_(laid_out(columns, x))

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, *gates = ctx.saved_tensors
        rows, columns = (laid_out(gate, x) for gate in gates)
        learns, rows_learn, columns_learn = ctx.needs_input_grad
        to_rows = grad * columns
        grad_x = to_rows * rows if learns else None
        grad_rows = sum_over(to_rows * x, WIDTH) if rows_learn else None
        grad_columns = sum_over(grad * (x * rows), HEIGHT) if columns_learn else None
        return grad_x, grad_rows, grad_columns
