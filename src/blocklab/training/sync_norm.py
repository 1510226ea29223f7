"""BatchNorm over the images of all processes, on any device.

PyTorch's own needs a GPU, and is taken there. The one here is written from the definition with
differentiable sums over processes, so that it also runs on CPUs and can be tested against one
process with all images.
"""

import torch
from torch import Tensor, distributed, nn


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
        if not self.training or not distributed.is_initialized():
            return super().forward(input)
        x = input.float()
        channels = x.shape[1]
        count = x.new_full((1,), x.numel() / channels)  # filled where x lies, not copied there
        sums = _SumOverProcesses.apply(torch.cat([x.sum((0, 2, 3)), count]))  # (C + 1,)
        total = sums[-1].detach()
        mean = sums[:-1] / total
        centred = x - mean[:, None, None]
        # Two passes: the mean of squares less the square of the mean loses digits.
        variance = _SumOverProcesses.apply(centred.square().sum((0, 2, 3))) / total
        self._track(mean.detach(), variance.detach(), total)
        scale = (variance + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        y = centred * scale[:, None, None]
        if self.bias is not None:
            y = y + self.bias[:, None, None]
        return y.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, total: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        weight = self.momentum
        if weight is None:
            assert self.num_batches_tracked is not None
            weight = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance * (total / (total - 1)), weight)


def synchronise_batchnorm(model: nn.Module, device: torch.device) -> None:
    """Make every BatchNorm2d of a model one over all processes, in place; names stay."""
    kind = nn.SyncBatchNorm if device.type == "cuda" else SyncBatchNorm2d
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                synced = kind(
                    child.num_features,
                    child.eps,
                    child.momentum,
                    child.affine,
                    child.track_running_stats,
                )
                synced.load_state_dict(child.state_dict())
                module.add_module(name, synced)
