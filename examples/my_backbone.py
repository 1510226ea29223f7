"""A backbone of one's own: a stem and stages; the head and the rest are added.

blocklab check examples/my_backbone.py
blocklab describe fire_net --plugin examples/my_backbone.py
"""

from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from blocklab import register_backbone


class Fire(nn.Module):
    """Squeeze to a quarter by 1x1, widen by 1x1 and 3x3 side by side, add the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.Conv2d(channels, channels // 4, 1), nn.ReLU())
        self.one = nn.Conv2d(channels // 4, channels // 2, 1)
        self.three = nn.Conv2d(channels // 4, channels // 2, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = self.squeeze(x)
        wide = torch.cat([self.one(squeezed), self.three(squeezed)], 1)
        return (x + self.norm(wide)).relu()


@register_backbone("fire_net")
class FireNet(nn.Module):
    """(B, in_chans, H, W) -> maps of H / 1, H / 2, H / 4, ... pixels a side, a stage each."""

    native_size = 32

    def __init__(
        self,
        in_chans: int,
        *,
        widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (32, 64, 128),
        depth: PositiveInt = 2,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_chans, widths[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        self.stages = nn.ModuleList()
        for before, width in zip(widths[:1] + widths, widths, strict=False):
            down = nn.Conv2d(before, width, 2, stride=2) if self.stages else nn.Identity()
            self.stages.append(nn.Sequential(down, *(Fire(width) for _ in range(depth))))
