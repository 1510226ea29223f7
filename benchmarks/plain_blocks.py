"""Each block as its paper's equations read, operation by operation, to compare ours with.

Parameters carry our names, so that a state dict of ours loads.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PlainGate(nn.Module):
    """Z-pool over axis 1, 7x7 convolution, BatchNorm, sigmoid, product (arXiv:2010.03045)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Module()
        self.conv.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.conv.bn = nn.BatchNorm2d(1, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat([x.max(1, keepdim=True).values, x.mean(1, keepdim=True)], 1)
        scores = self.conv.bn(self.conv.conv(pooled))  # type: ignore[operator]
        return x * torch.sigmoid(scores)


class PlainTriplet(nn.Module):
    """Three gates on permuted copies of x, permuted back; their mean (arXiv:2010.03045)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cw, self.hc, self.hw = PlainGate(), PlainGate(), PlainGate()

    def forward(self, x: Tensor) -> Tensor:
        cw = self.cw(x.permute(0, 2, 1, 3).contiguous()).permute(0, 2, 1, 3).contiguous()
        hc = self.hc(x.permute(0, 3, 2, 1).contiguous()).permute(0, 3, 2, 1).contiguous()
        return (cw + hc + self.hw(x)) / 3


class PlainSE(nn.Module):
    """x times the sigmoid of two linear maps of its channels' means (arXiv:1709.01507)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        means = F.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(means))))


class PlainCoordinate(nn.Module):
    """x times a gate of its rows and one of its columns (arXiv:2103.02907)."""

    def __init__(self, channels: int, reduction: int = 32) -> None:
        super().__init__()
        hidden = max(8, channels // reduction)
        self.conv1 = nn.Conv2d(channels, hidden, 1)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv_h = nn.Conv2d(hidden, channels, 1)
        self.conv_w = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        rows = F.adaptive_avg_pool2d(x, (height, 1))
        columns = F.adaptive_avg_pool2d(x, (1, width)).permute(0, 1, 3, 2)
        features = self.bn1(self.conv1(torch.cat([rows, columns], 2)))
        features = features * (F.relu6(features + 3) / 6)  # h-swish
        rows, columns = features.split([height, width], 2)
        columns = columns.permute(0, 1, 3, 2)
        return x * torch.sigmoid(self.conv_w(columns)) * torch.sigmoid(self.conv_h(rows))


class PlainGlobalContext(nn.Module):
    """x plus a transform of its attended mean (arXiv:1904.11492)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = channels // reduction
        self.conv_mask = nn.Conv2d(channels, 1, 1)
        self.channel_add_conv = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.LayerNorm([hidden, 1, 1]),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        values = x.view(batch, 1, channels, height * width)
        weights = self.conv_mask(x).view(batch, 1, height * width).softmax(2).unsqueeze(3)
        context = torch.matmul(values, weights).view(batch, channels, 1, 1)
        return x + self.channel_add_conv(context)


class _PlainBranch(nn.Module):
    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            channels, channels, 3, padding=dilation, dilation=dilation, groups=32, bias=False
        )
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x)))


class PlainSelectiveKernel(nn.Module):
    """Two branches, stacked, weighted by a softmax over them, and summed (arXiv:1903.06586)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 16, 32)
        self.paths = nn.ModuleList(_PlainBranch(channels, dilation) for dilation in (1, 2))
        self.attn = nn.Module()
        self.attn.fc_reduce = nn.Conv2d(channels, hidden, 1, bias=False)
        self.attn.bn = nn.BatchNorm2d(hidden)
        self.attn.fc_select = nn.Conv2d(hidden, 2 * channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        stacked = torch.stack([path(x) for path in self.paths], 1)  # (B, 2, C, H, W)
        means = stacked.sum(1).mean((2, 3), keepdim=True)
        hidden = torch.relu(self.attn.bn(self.attn.fc_reduce(means)))  # type: ignore[operator]
        scores = self.attn.fc_select(hidden).unflatten(1, (2, -1))  # type: ignore[operator]
        return (stacked * scores.softmax(1)).sum(1)


class PlainLKA(nn.Module):
    """x times 1x1(7x7 dilated by 3(5x5(x))) (arXiv:2202.09741)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.conv_spatial = nn.Conv2d(channels, channels, 7, padding=9, dilation=3, groups=channels)
        self.conv1 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv1(self.conv_spatial(self.conv0(x)))
