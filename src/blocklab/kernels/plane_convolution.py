"""A convolution of a few channels to one over a plane, as one along the plane's second axis.

A k x k convolution of S channels to one is too thin for a processor's vector units: PyTorch's
backward pass of it takes half the time of Triplet Attention. The plane's first axis P can be seen
as channels: then the kernel is a band matrix (P, S * P) for each of its k columns, and the
convolution one of S * P to P channels along the second axis, which is fast although it multiplies
P / k times as much.
"""

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocklab.kernels.depthwise import cut_to_live_taps
from blocklab.kernels.recording import is_compiled, is_recorded

# Measured on float32 and bf16: above, the band's zeros cost more than the thin kernel does. With a
# backward pass the band is 3 times as fast still at 112.
_WIDEST_BAND = 64
_WIDEST_BAND_IN_TRAINING = 128


class PlaneConv2d(nn.Conv2d):
    """One odd kernel (1, S, k, k), padded to keep the size: (B, S, P, Q) -> (B, 1, P, Q).

    Planes that come with their axes `swapped`, (B, S, Q, P) -> (B, 1, Q, P), are convolved with the
    kernel's swapped. Parameters and state dicts are those of `nn.Conv2d`; outputs and gradients are
    equal to rounding. Compiled, the kernel is cut to the taps that can meet the plane. A float32
    plane is convolved in float32 where autocast or the weights are float16, whose range it may
    exceed; what comes of it has the weights' type.
    """

    def __init__(self, channels: int, kernel: int, swapped: bool = False) -> None:
        super().__init__(channels, 1, kernel, padding=kernel // 2, bias=False)
        self.swapped = swapped

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight.mT if self.swapped else self.weight
        return _convolve(input, weight, self.bias)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    device = x.device.type
    if x.is_meta or x.dtype != torch.float32:  # there is no autocast to ask for without values
        return _convolve_cast(x, weight, bias)
    cast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    if cast != torch.float16:
        return _convolve_cast(x, weight, bias)
    with torch.autocast(device, enabled=False):
        wide = _convolve_cast(x, weight.float(), None if bias is None else bias.float())
    return wide.to(weight.dtype)


torch.fx.wrap("_convolve")  # a symbolic trace does not know the plane's type


def _convolve_cast(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if is_recorded(x):
        return F.conv2d(x, weight, bias, padding=weight.shape[2] // 2)
    if is_compiled():  # elsewhere cutting is a launch more, of its gradient another
        weight = cut_to_live_taps(weight, 1, x.shape[2], x.shape[3])
    if is_compiled() or not _pays(x, weight):
        return F.conv2d(x, weight, bias, padding=(weight.shape[2] // 2, weight.shape[3] // 2))
    return _convolve_banded(x, weight, bias)


def _pays(x: Tensor, weight: Tensor) -> bool:
    learns = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    widest = _WIDEST_BAND_IN_TRAINING if learns else _WIDEST_BAND
    return x.device.type == "cpu" and x.shape[2] <= widest


def _convolve_banded(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    _, channels, size, _ = x.shape
    kernel = weight.shape[2]
    columns = weight[0].transpose(1, 2)  # (S, column, row): a row's taps band the first axis
    inference = torch.is_inference_mode_enabled()
    ones = _band(kernel, size, weight.device, weight.dtype, inference)
    band = columns @ ones  # (S, k, P * P)
    band = band.view(channels, kernel, size, size).permute(2, 0, 3, 1)  # (P, S, P, k)
    scores = F.conv1d(x.flatten(1, 2), band.flatten(1, 2), padding=kernel // 2)  # (B, P, Q)
    return scores.unsqueeze(1) if bias is None else scores.unsqueeze(1) + bias.view(1, 1, 1, 1)


@lru_cache(maxsize=64)
def _band(
    kernel: int, size: int, device: torch.device, dtype: torch.dtype, inference: bool
) -> Tensor:
    """(kernel, size * size): one where an output's tap meets an input, so a kernel @ it bands.

    `inference` keeps what inference mode made apart: a backward pass cannot save that.
    """
    taps = torch.arange(kernel, device=device).view(-1, 1, 1) - kernel // 2
    outputs = torch.arange(size, device=device).view(1, -1, 1)
    inputs = torch.arange(size, device=device).view(1, 1, -1)
    return (inputs - outputs == taps).to(dtype).flatten(1)
