"""Groups of channels, split off a map, put back and shuffled, in the map's layout."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blocklab.kernels.layout import is_channels_last, with_gradient_laid_out
from blocklab.kernels.recording import is_traced


def grouped(x: Tensor, groups: int) -> Tensor:
    """Take groups of channels as images, contiguous: (B, GC, H, W) -> (BG, C, H, W)."""
    if not is_traced(x) and x.device.type == "cpu":  # a GPU would launch one kernel more
        x = with_gradient_laid_out(x)
    return x.unflatten(1, (groups, -1)).flatten(0, 1)


def ungrouped(x: Tensor, groups: int, like: Tensor) -> Tensor:
    """Undo `grouped`, in the layout of `like`: (BG, C, H, W) -> (B, GC, H, W)."""
    whole = x.unflatten(0, (-1, groups)).flatten(1, 2)
    if is_traced(x) or not is_channels_last(like):
        return whole
    return whole.contiguous(memory_format=torch.channels_last)


class SharedConv2d(nn.Conv2d):
    """`nn.Conv2d`, with its arguments, that a map's groups of channels share."""

    def of_groups(self, groups: Tensor, x: Tensor) -> Tensor:
        """Convolve the groups, (BG, C, H, W), which were split off x: -> (BG, C_out, H', W').

        On processors, many images of few channels are slow; a map in channels_last takes one
        grouped convolution with the weights repeated, up to six times as fast.
        """
        if is_traced(x) or x.device.type != "cpu" or not is_channels_last(x):
            return self(groups)
        count = groups.shape[0] // x.shape[0]
        weight = self.weight.repeat(count, 1, 1, 1)
        bias = None if self.bias is None else self.bias.repeat(count)
        assert not isinstance(self.padding, str)
        out = F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, count)
        return grouped(out, count)


def shuffled(x: Tensor, parts: int, like: Tensor) -> Tensor:
    """Let the channels of so many equal parts of a map take turns, in the layout of `like`.

    Channel i of part j becomes channel i * parts + j: (B, C, H, W) -> same.
    """
    split = x.unflatten(1, (parts, -1))  # (B, j, i, H, W)
    if is_traced(x) or not is_channels_last(like):
        return split.transpose(1, 2).flatten(1, 2)
    return split.permute(0, 3, 4, 2, 1).flatten(3).permute(0, 3, 1, 2)
