"""Random boxes of pictures, a sample each: what a random resized crop keeps, what erasing blanks.

Boxes are drawn on the CPU for a whole epoch; cutting, resizing and blanking take whole batches.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from blocklab.data.crop_ranges import RandomResizedCrop, Range

TRIES = 10
ERASED_SCALE: Range = (0.02, 0.33)
ERASED_RATIO: Range = (0.3, 3.3)


class Boxes(NamedTuple):
    """Boxes of N samples in pixels, int64 (N,) each; one of height 0 is empty."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def draw_crops(
    count: int, height: int, width: int, crop: RandomResizedCrop, generator: torch.Generator
) -> Boxes:
    """Draw what to keep of pictures of that size; where ten tries do not fit, the centre.

    As torchvision draws them: evenly in area and in the logarithm of the ratio.
    """
    high, wide, found = _draw_sizes(count, height, width, crop.scale, crop.ratio, generator)
    least, most = crop.ratio
    w = min(width, round(height * most))
    h = min(height, round(width / least))
    whole = torch.tensor([h, w])
    high, wide = torch.where(found, high, whole[0]), torch.where(found, wide, whole[1])
    top, left = _draw_places(height, width, high, wide, generator)
    top = torch.where(found, top, (height - high) // 2)
    left = torch.where(found, left, (width - wide) // 2)
    return Boxes(top, left, high, wide)


def draw_erased(
    count: int, height: int, width: int, share: float, generator: torch.Generator
) -> Boxes:
    """Draw what to blank of that share of the samples; of the others, an empty box.

    Zhong et al., AAAI 2020, with torchvision's ranges: 2 to 33 % of the area, ratios 0.3 to 3.3.
    """
    inside = height - 1, width - 1  # no box reaches from one border to the other
    high, wide, found = _draw_sizes(
        count, height, width, ERASED_SCALE, ERASED_RATIO, generator, most=inside
    )
    found &= torch.rand(count, generator=generator) < share
    high, wide = high * found, wide * found
    return Boxes(*_draw_places(height, width, high, wide, generator), high, wide)


def _draw_sizes(
    count: int,
    height: int,
    width: int,
    scale: Range,
    ratio: Range,
    generator: torch.Generator,
    most: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw heights and widths (N,) up to `most`, and whether any of ten tries fits."""
    highest, widest = most or (height, width)
    high, wide = torch.zeros((2, count), dtype=torch.int64)
    found = torch.zeros(count, dtype=torch.bool)
    for _ in range(TRIES):
        random = torch.rand((2, count), generator=generator, dtype=torch.float64)
        area = height * width * (scale[0] + (scale[1] - scale[0]) * random[0])
        start, end = math.log(ratio[0]), math.log(ratio[1])
        aspect = (start + (end - start) * random[1]).exp()
        h = (area / aspect).sqrt().round().long()
        w = (area * aspect).sqrt().round().long()
        fits = ~found & (h > 0) & (h <= highest) & (w > 0) & (w <= widest)
        high, wide = torch.where(fits, h, high), torch.where(fits, w, wide)
        found |= fits
    return high, wide, found


def _draw_places(
    height: int, width: int, high: Tensor, wide: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    random = torch.rand((2, len(high)), generator=generator, dtype=torch.float64)
    top = (random[0] * (height - high + 1)).long()
    return top, (random[1] * (width - wide + 1)).long()


def resized(pixels: Tensor, boxes: Boxes, size: tuple[int, int]) -> Tensor:
    """Cut out each sample's box and resize it: uint8 (B, H, W, C) -> uint8 (B, *size, C).

    Bilinear and antialiased: where it shrinks, the triangle is as much wider, so that no pixel of
    the box is passed over. A sample's resampling is one matrix for the rows and one for the
    columns, and a batch's are two batched products: no loop, and as exact as shrinking by itself.
    """
    batch, height, width, channels = pixels.shape
    rows = _weights(boxes.top, boxes.height, height, size[0])  # (B, size[0], H)
    columns = _weights(boxes.left, boxes.width, width, size[1])  # (B, size[1], W)
    images = rows @ pixels.flatten(2).float()  # (B, size[0], W * C)
    lines = images.view(batch, size[0], width, channels).transpose(2, 3).flatten(1, 2)
    images = lines @ columns.transpose(1, 2)  # (B, size[0] * C, size[1])
    images = images.view(batch, size[0], channels, size[1]).transpose(2, 3)
    return images.round_().clamp_(0, 255).to(torch.uint8, memory_format=torch.contiguous_format)


def _weights(start: Tensor, length: Tensor, pixels: int, size: int) -> Tensor:
    """Return what each pixel of a line adds to each of the resized ones, (B, size, pixels)."""
    place = torch.arange(pixels, device=start.device) + 0.5
    target = torch.arange(size, device=start.device) + 0.5
    shrink = length[:, None].float() / size  # (B, 1)
    centre = start[:, None] + shrink * target  # (B, size)
    distance = (place - centre[..., None]).abs()  # (B, size, pixels)
    weights = (1 - distance / shrink.clamp(min=1)[..., None]).clamp_(min=0)
    inside = (place > start[:, None]) & (place < (start + length)[:, None])  # (B, pixels)
    weights *= inside[:, None]
    return weights / weights.sum(2, keepdim=True)


def blank(images: Tensor, boxes: Boxes) -> None:
    """Set each sample's box to 0, in place: (B, H, W, C)."""
    rows = _within(boxes.top, boxes.height, images.shape[1])[:, :, None, None]
    columns = _within(boxes.left, boxes.width, images.shape[2])[:, None, :, None]
    images.masked_fill_(rows & columns, 0.0)


def _within(start: Tensor, length: Tensor, pixels: int) -> Tensor:
    place = torch.arange(pixels, device=start.device)
    return (place >= start[:, None]) & (place < (start + length)[:, None])  # (B, pixels)
