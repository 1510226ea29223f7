"""A convolution of one or two channels over a narrow plane, as a convolution along its long axis.

A k x k convolution of S channels to one is too thin for a processor's vector units: PyTorch's
backward pass of it takes half the time of Triplet Attention. Its short axis P can be seen as
channels: then the kernel is a band matrix (P, S * P) for each of its k columns, and the
convolution one of S * P to P channels along the long axis, which is fast although it multiplies
P / k times as much.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

# Measured on float32 and bf16: above, the band's zeros cost more than the thin kernel does. With a
# backward pass the band is 3 times as fast still at 112.
_WIDEST_BAND = 64
_WIDEST_BAND_IN_TRAINING = 128


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


def banded_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve (B, S, P, Q) to one channel, padded to keep its size, with (1, S, k, k) of odd k.

    The same as `conv2d` to rounding, gradients too.
    """
    _, channels, size, _ = x.shape
    kernel = weight.shape[2]
    learns = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if size > (_WIDEST_BAND_IN_TRAINING if learns else _WIDEST_BAND) or x.device.type != "cpu":
        return F.conv2d(x, weight, bias, padding=kernel // 2)
    columns = weight[0].transpose(1, 2)  # (S, column, row): a row's taps band the short axis
    inference = torch.is_inference_mode_enabled()
    ones = _band(kernel, size, weight.device, weight.dtype, inference)
    band = columns @ ones  # (S, k, P * P)
    band = band.view(channels, kernel, size, size).permute(2, 0, 3, 1)  # (P, S, P, k)
    scores = F.conv1d(x.flatten(1, 2), band.flatten(1, 2), padding=kernel // 2)  # (B, P, Q)
    return scores.unsqueeze(1) if bias is None else scores.unsqueeze(1) + bias.view(1, 1, 1, 1)
