"""A map times a gate of its rows and a gate of its columns, with a lean backward pass.

An ordinary product, written as a `torch.autograd.Function` because its plain form saves the map
gated once, as large as the map. Here it is computed anew.
"""

from typing import Any

import torch
from torch import Tensor

from blocklab.kernels.layout import laid_out
from blocklab.kernels.means import sum_over
from blocklab.kernels.pieces import HEIGHT, WIDTH


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


def crossed_gates(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return x * rows * columns: (B, C, H, W), (B, C, H, 1), (B, C, 1, W) -> (B, C, H, W)."""
    return _CrossedGates.apply(x, rows, columns)  # type: ignore[return-value]
