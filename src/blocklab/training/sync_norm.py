"""BatchNorm over the images of all processes, on any device.

PyTorch's own needs a GPU, and is taken there. The one here is written from the definition with
differentiable sums over processes, so that it also runs on CPUs and can be tested against one
process with all images.
"""

from typing import Any

import torch
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from blocklab.errors import InputError


class _SumOverProcesses(torch.autograd.Function):
    """y = sum of all processes' x. As every process's loss uses y, so does x's gradient."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous()
        total = total.clone() if total is grads[0] else total
        distributed.all_reduce(total)
        return total


class SyncBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm whose mean and variance in training are those of the whole batch.

    (B, C, H, W) -> the same; B may differ between processes. Parameters and buffers are
    `nn.BatchNorm2d`'s.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise; in evaluation as BatchNorm does."""
        return _normalised(self, input) if _spans(self) else super().forward(input)


class SyncBatchNorm1d(nn.BatchNorm1d):
    """The same of (B, C) or (B, C, L)."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise; in evaluation as BatchNorm does."""
        return _normalised(self, input) if _spans(self) else super().forward(input)


class SyncBatchNormAct2d(BatchNormAct2d):
    """The same of timm's BatchNorm, which an activation follows."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise and activate; in evaluation as BatchNorm does."""
        if not _spans(self):
            return super().forward(x)
        drop: Any = self.drop
        act: Any = self.act
        return act(drop(_normalised(self, x)))


_OF_KIND: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: SyncBatchNorm1d,
    nn.BatchNorm2d: SyncBatchNorm2d,
    BatchNormAct2d: SyncBatchNormAct2d,
}


def _spans(norm: nn.Module) -> bool:
    return norm.training and distributed.is_initialized()


def _normalised(norm: Any, input: Tensor) -> Tensor:
    x = input.float()
    channels = x.shape[1]
    others = [dim for dim in range(x.ndim) if dim != 1]
    as_map = [-1 if dim == 1 else 1 for dim in range(x.ndim)]
    count = x.new_full((1,), x.numel() / channels)  # filled where x lies, not copied there
    sums = _SumOverProcesses.apply(torch.cat([x.sum(others), count]))  # (C + 1,)
    total = sums[-1].detach()
    mean = sums[:-1] / total
    centred = x - mean.view(as_map)
    # Two passes: the mean of squares less the square of the mean loses digits.
    variance = _SumOverProcesses.apply(centred.square().sum(others)) / total
    _track(norm, mean.detach(), variance.detach(), total)
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    y = centred * scale.view(as_map)
    if norm.bias is not None:
        y = y + norm.bias.view(as_map)
    return y.to(input.dtype)


@torch.no_grad()
def _track(norm: Any, mean: Tensor, variance: Tensor, total: Tensor) -> None:
    if norm.running_mean is None or norm.running_var is None:
        return
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    weight = norm.momentum
    if weight is None:
        assert norm.num_batches_tracked is not None
        weight = 1 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean, weight)
    norm.running_var.lerp_(variance * (total / (total - 1)), weight)


def synchronise_batchnorm(model: nn.Module, device: torch.device) -> nn.Module:
    """Make every BatchNorm of a model one over all processes; names stay, and so does the model.

    Raises:
        InputError: if a norm is of a kind of its own, of which it is not known how to.
    """
    for name, part in model.named_modules():
        if isinstance(part, _BatchNorm) and type(part) not in _OF_KIND:
            raise InputError(
                f"sync_batchnorm cannot take {name}, a {type(part).__name__}, over several "
                "devices; set sync_batchnorm=false, or use BatchNorm1d or BatchNorm2d there"
            )
    if device.type == "cuda":
        return _with_pytorchs(model)
    for part in model.modules():
        if type(part) in _OF_KIND:
            part.__class__ = _OF_KIND[type(part)]  # with its tensors, activation and hooks
    return model


def _with_pytorchs(model: nn.Module) -> nn.Module:
    """Put PyTorch's in the norms' places: one that has several, the same in each."""
    made: dict[nn.Module, nn.Module] = {}
    for part in list(model.modules()):
        if type(part) in _OF_KIND:
            made[part] = convert_sync_batchnorm(part)
    for part in list(model.modules()):
        for name, child in part._modules.items():
            if child in made:
                part._modules[name] = made[child]
    return made.get(model, model)
