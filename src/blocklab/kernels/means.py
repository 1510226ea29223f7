"""Means and sums of a map over its height, its width or both, in the way that PyTorch vectorises.

On processors, a reduction of channels_last is no vector code; the average pooling of the whole axis
is. Of contiguous maps the reduction is the faster one.
"""

from torch import Tensor
from torch.nn import functional as F

from blocklab.kernels.layout import is_channels_last
from blocklab.kernels.pieces import HEIGHT, WIDTH
from blocklab.kernels.recording import is_recorded


def mean_over(x: Tensor, *axes: int) -> Tensor:
    """x.mean(axes, keepdim=True) for axes 2, 3 or both: (B, C, H, W) -> 1 on these axes."""
    if _is_pooled(x):
        return F.avg_pool2d(x, _window(x, axes))
    return x.mean(axes, keepdim=True)


def sum_over(x: Tensor, *axes: int) -> Tensor:
    """x.sum(axes, keepdim=True) for axes 2, 3 or both: (B, C, H, W) -> 1 on these axes."""
    if _is_pooled(x):
        return F.avg_pool2d(x, _window(x, axes), divisor_override=1)
    return x.sum(axes, keepdim=True)


def _is_pooled(x: Tensor) -> bool:
    if is_recorded(x) or x.device.type != "cpu" or x.numel() == 0:
        return False
    return is_channels_last(x)


def _window(x: Tensor, axes: tuple[int, ...]) -> list[int]:
    return [x.shape[axis] if axis in axes else 1 for axis in (HEIGHT, WIDTH)]
