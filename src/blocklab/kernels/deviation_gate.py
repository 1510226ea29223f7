"""A map gated by how far each value is from its channel's mean.

In plain operations a dozen maps pass through memory, and three are saved beside the map. Where the
map is contiguous, normalisation is one fast operation, and two are saved. In channels_last it is a
slow one; there, as a `torch.autograd.Function`, the batch is taken in pieces that stay in the
cache, nothing but the map is saved, and what is needed of it backward is computed anew.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from blocklab.kernels.layout import is_channels_last, pieces, widened
from blocklab.kernels.recording import is_memory_counted, is_plain_better, is_traced


def deviation_gate(x: Tensor, factor: float, offset: float, eps: float) -> Tensor:
    """x * sigmoid(factor * (x - mean)^2 / (variance + eps) + offset): (B, C, H, W) -> same.

    Mean and variance are those of each channel's map; the variance is the sample's,
    sum (x - mean)^2 / (n - 1) over n positions, and 0 of one. What is squared is x - mean divided
    by the deviation: squares of x are beyond float16 where x is near 300.
    """
    counted = is_memory_counted(x)
    if is_traced(x) and not counted:  # whose size may be free
        return _recorded(x, factor, offset, eps)
    # The same by a variance over n, as norms have it.
    positions = x.shape[2] * x.shape[3]
    part = (positions - 1) / positions
    eps, factor = eps * (part or 1), factor * part
    if counted or (not is_plain_better(x) and is_channels_last(x)):
        return _DeviationGate.apply(x, factor, offset, eps)  # type: ignore[return-value]
    with torch.autocast(x.device.type, enabled=False):  # its sums are float32 in any case
        normal = torch.group_norm(x, x.shape[1], eps=eps)
    start = torch.full((), offset, dtype=x.dtype, device=x.device)
    return x * torch.addcmul(start, normal, normal, value=factor).sigmoid()


def _recorded(x: Tensor, factor: float, offset: float, eps: float) -> Tensor:
    positions = x.shape[2] * x.shape[3]
    others: Any = torch.sym_max(positions - 1, 1)
    deviation = torch.std(x, (2, 3), correction=0, keepdim=True).float()
    scale = (deviation.square() * (positions / others) + eps).rsqrt()
    normal = (x - x.mean((2, 3), keepdim=True)) * scale.type_as(x)
    return x * (normal.square() * factor + offset).sigmoid()


class _DeviationGate(torch.autograd.Function):
    """x * sigmoid(factor * n^2 + offset), n = (x - mean) / sqrt(variance over n positions + eps).

    A backward pass that shall itself be differentiated takes the plain operations.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float, offset: float, eps: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.numbers = factor, offset, eps
        out = torch.empty_like(x)
        for images in pieces(x):
            part = widened(x[images])
            normal, _ = _normal(part, eps)
            gate = normal.square_().mul_(factor).add_(offset).sigmoid_()
            out[images].copy_(gate.mul_(part))
        return out

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        factor, offset, eps = ctx.numbers
        if torch.is_grad_enabled():
            with torch.enable_grad():
                variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
                normal = (x - mean) * (variance + eps).rsqrt()
                out = x * (normal.square() * factor + offset).sigmoid()
                (grad_x,) = torch.autograd.grad(out, x, grad, create_graph=True)
            return grad_x, None, None, None
        grad_x = torch.empty_like(x)
        for images in pieces(x):
            part, given = widened(x[images]), widened(grad[images])
            normal, scale = _normal(part, eps)
            gate = normal.square().mul_(factor).add_(offset).sigmoid_()
            to_normal = (1 - gate).mul_(gate).mul_(part).mul_(given).mul_(normal).mul_(2 * factor)
            along = _means(to_normal * normal)
            to_normal.sub_(_means(to_normal)).sub_(normal.mul_(along)).mul_(scale)
            grad_x[images].copy_(to_normal.add_(gate.mul_(given)))
        return grad_x, None, None, None


def _normal(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(x - mean) * scale and scale = 1 / sqrt(variance + eps), of a piece."""
    centred = x - _means(x)
    scale = (_means(centred.square()) + eps).rsqrt()
    return centred.mul_(scale), scale


def _means(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, list(x.shape[2:]))  # in channels_last, means are no vector code
