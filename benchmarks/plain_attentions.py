"""Attentions as their papers' equations read, operation by operation, to compare ours with.

Parameters carry our names, so that a state dict of ours loads.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PlainCBAM(nn.Module):
    """x gated by its channels, then by its positions (arXiv:1807.06521)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.channel, self.spatial = nn.Module(), nn.Module()
        self.channel.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.channel.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)
        self.spatial.conv = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(2, 1, 7, padding=3, bias=False),
                bn=nn.BatchNorm2d(1, momentum=0.01),
            )
        )

    def mlp(self, pooled: Tensor) -> Tensor:
        return self.channel.fc2(torch.relu(self.channel.fc1(pooled)))  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        mean, largest = F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)
        x = x * torch.sigmoid(self.mlp(mean) + self.mlp(largest))
        plane = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True).values], 1)
        return x * torch.sigmoid(self.spatial.conv(plane))  # type: ignore[operator]


class PlainBAM(nn.Module):
    """x * (1 + sigmoid(channels' scores + positions' scores)) (arXiv:1807.06514)."""

    def __init__(self, channels: int, reduction: int = 16, dilation: int = 4) -> None:
        super().__init__()
        hidden = channels // reduction
        self.channel_att, self.spatial_att = nn.Module(), nn.Module()
        self.channel_att.gate_c = nn.Sequential(
            OrderedDict(
                gate_c_fc_0=nn.Conv2d(channels, hidden, 1),
                gate_c_relu_1=nn.ReLU(),
                gate_c_fc_final=nn.Conv2d(hidden, channels, 1),
                gate_c_bn_final=nn.BatchNorm2d(channels),
            )
        )

        def dilated() -> nn.Conv2d:
            return nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation)

        self.spatial_att.gate_s = nn.Sequential(
            OrderedDict(
                gate_s_conv_reduce0=nn.Conv2d(channels, hidden, 1),
                gate_s_relu_reduce0=nn.ReLU(),
                gate_s_conv_di_0=dilated(),
                gate_s_relu_di_0=nn.ReLU(),
                gate_s_conv_di_1=dilated(),
                gate_s_relu_di_1=nn.ReLU(),
                gate_s_conv_final=nn.Conv2d(hidden, 1, 1),
                gate_s_bn_final=nn.BatchNorm2d(1),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        channel = self.channel_att.gate_c(F.adaptive_avg_pool2d(x, 1))  # type: ignore[operator]
        spatial = self.spatial_att.gate_s(x)  # type: ignore[operator]
        return x * (1 + torch.sigmoid(channel.expand_as(x) + spatial.expand_as(x)))


class PlainECA(nn.Module):
    """x times the sigmoid of a convolution along its channels' means (arXiv:1910.03151)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        size = {64: 3, 128: 5, 256: 5, 512: 5}[channels]
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        means = F.adaptive_avg_pool2d(x, 1)
        scores = self.conv(means.squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1)
        return x * torch.sigmoid(scores).expand_as(x)


class PlainSimAM(nn.Module):
    """x times the sigmoid of its inverse energy (PMLR 139:11863)."""

    def forward(self, x: Tensor) -> Tensor:
        others = x.shape[2] * x.shape[3] - 1
        squares = (x - x.mean((2, 3), keepdim=True)).pow(2)
        variance = squares.sum((2, 3), keepdim=True) / others
        return x * torch.sigmoid(squares / (4 * (variance + 1e-4)) + 0.5)


class PlainEMA(nn.Module):
    """Groups gated by two paths across them (arXiv:2305.13563)."""

    def __init__(self, channels: int, factor: int = 32) -> None:
        super().__init__()
        width, self.groups = channels // factor, factor
        self.gn = nn.GroupNorm(width, width)
        self.conv1x1 = nn.Conv2d(width, width, 1)
        self.conv3x3 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        group = x.reshape(batch * self.groups, -1, height, width)
        rows = F.adaptive_avg_pool2d(group, (height, 1))
        columns = F.adaptive_avg_pool2d(group, (1, width)).permute(0, 1, 3, 2)
        rows, columns = self.conv1x1(torch.cat([rows, columns], 2)).split([height, width], 2)
        p = self.gn(group * rows.sigmoid() * columns.permute(0, 1, 3, 2).sigmoid())
        q = self.conv3x3(group)
        means = [F.adaptive_avg_pool2d(path, 1).flatten(1).unsqueeze(1) for path in (p, q)]
        scores = means[0].softmax(2) @ q.flatten(2) + means[1].softmax(2) @ p.flatten(2)
        gate = scores.view(-1, 1, height, width).sigmoid()
        return (group * gate).reshape(batch, channels, height, width)


class PlainShuffle(nn.Module):
    """Halves of groups gated by means and by norms, and shuffled (arXiv:2102.00240)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.groups = min(64, channels // 2)
        width = channels // 2 // self.groups
        self.cweight, self.cbias, self.sweight, self.sbias = (
            nn.Parameter(torch.ones(1, width, 1, 1)) for _ in range(4)
        )
        self.gn = nn.GroupNorm(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        one, two = x.reshape(batch * self.groups, -1, height, width).chunk(2, 1)
        one = one * torch.sigmoid(self.cweight * F.adaptive_avg_pool2d(one, 1) + self.cbias)
        two = two * torch.sigmoid(self.sweight * self.gn(two) + self.sbias)
        mixed = torch.cat([one, two], 1).reshape(batch, 2, -1, height, width)
        return mixed.permute(0, 2, 1, 3, 4).reshape(batch, channels, height, width)


class PlainELA(nn.Module):
    """x times a gate of its rows and one of its columns, each convolved (arXiv:2403.01123)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 7, padding=3, groups=channels, bias=False)
        self.gn = nn.GroupNorm(16, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        rows = x.mean(3, keepdim=True).view(batch, channels, height)
        columns = x.mean(2, keepdim=True).view(batch, channels, width)
        rows = torch.sigmoid(self.gn(self.conv(rows))).view(batch, channels, height, 1)
        columns = torch.sigmoid(self.gn(self.conv(columns))).view(batch, channels, 1, width)
        return x * rows * columns


class PlainGatherExcite(nn.Module):
    """x times the sigmoid of its channels' means (arXiv:1810.12348, GE-theta-)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(F.adaptive_avg_pool2d(x, 1).expand_as(x))


class PlainLearnedGatherExcite(nn.Module):
    """x times what two strided convolutions gather, spread again (GE-theta+, extent 4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        strided = {"stride": 2, "padding": 1, "groups": channels, "bias": False}
        self.gather = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(channels, channels, 3, **strided),
                norm1=nn.BatchNorm2d(channels),
                act1=nn.ReLU(),
                conv2=nn.Conv2d(channels, channels, 3, **strided),
                norm2=nn.BatchNorm2d(channels),
            )
        )
        self.mlp = nn.Module()
        self.mlp.fc1 = nn.Conv2d(channels, channels // 16, 1)
        self.mlp.fc2 = nn.Conv2d(channels // 16, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.mlp.fc2(torch.relu(self.mlp.fc1(self.gather(x))))  # type: ignore[operator]
        return x * torch.sigmoid(F.interpolate(gate, size=x.shape[2:]))


LEARNED = {"type": "gather_excite", "extent": 4, "extra_params": True, "excite": True}
PAIRS = {
    "cbam": ("cbam", PlainCBAM),
    "bam": ("bam", PlainBAM),
    "eca": ("eca", PlainECA),
    "simam": ("simam", lambda channels: PlainSimAM()),
    "ema": ("ema", PlainEMA),
    "shuffle": ("shuffle", PlainShuffle),
    "ela": ("ela", PlainELA),
    "gather_excite": ("gather_excite", lambda channels: PlainGatherExcite()),
    "learned_gather_excite": (LEARNED, PlainLearnedGatherExcite),
}
