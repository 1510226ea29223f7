"""TrivialAugment: one operation a sample, of one strength, on whole batches of uint8 images.

Müller and Hutter, ICCV 2021, arXiv:2103.10158: the wide space, of 14 operations and 31 strengths,
with torchvision's conventions (nearest pixels, black beyond the border, strength 1 is as it was).

Which sample gets which operation is known before the batch is on the device, so that each
operation is given its samples alone, and nothing waits for the device.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

STRENGTHS = 31
OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "color",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)
_LARGEST_SHIFT = 32.0  # pixels
_LARGEST_ANGLE = 135.0  # degrees
_GREY = (0.2989, 0.587, 0.114)  # of red, green and blue, ITU-R 601-2


class Trivial(NamedTuple):
    """Operations and strengths of N samples, (N,); and their places in the batch by operation."""

    operation: Tensor
    strength: Tensor
    by_operation: Tensor


def strengths() -> Tensor:
    """Return the strengths by operation, before their sign is drawn: float32 (14, 31).

    Shear in pixels a pixel, shifts in whole pixels, angles in degrees, blending as what is added
    to 1, posterize in bits that are kept, solarize as the value from which pixels are inverted.
    """
    step = torch.linspace(0, 1, STRENGTHS, dtype=torch.float64)
    still = torch.zeros(STRENGTHS, dtype=torch.float64)
    table = {
        "shear_x": 0.99 * step,
        "shear_y": 0.99 * step,
        "translate_x": (_LARGEST_SHIFT * step).floor(),
        "translate_y": (_LARGEST_SHIFT * step).floor(),
        "rotate": _LARGEST_ANGLE * step,
        **dict.fromkeys(("brightness", "color", "contrast", "sharpness"), 0.99 * step),
        "posterize": 8 - (6 * step).round(),
        "solarize": 255 * (1 - step),
    }
    return torch.stack([table.get(name, still) for name in OPERATIONS]).float()


def draw_trivial(
    count: int, shares: Sequence[slice], generator: torch.Generator
) -> tuple[Trivial, list[list[int]]]:
    """Draw for an epoch of `count` samples, of which each share is a batch.

    Returns the draws, and for each share how many samples each operation has.
    """
    names = len(OPERATIONS)
    operation = torch.randint(names, (count,), generator=generator)
    level = torch.randint(STRENGTHS, (count,), generator=generator)
    sign = 1 - 2 * torch.randint(2, (count,), generator=generator)
    signed = torch.tensor([name not in ("posterize", "solarize") for name in OPERATIONS])
    strength = strengths()[operation, level] * torch.where(signed[operation], sign, 1)
    by_operation = torch.zeros(count, dtype=torch.int64)
    sizes: list[list[int]] = []
    for rows in shares:
        by_operation[rows] = operation[rows].argsort(stable=True)
        sizes.append(operation[rows].bincount(minlength=names).tolist())
    return Trivial(operation, strength, by_operation), sizes


def augment_trivially(pixels: Tensor, drawn: Trivial, sizes: Sequence[int]) -> None:
    """Do each sample's operation, in place: uint8 (B, H, W, 3).

    `sizes` says how many samples each operation has: on the host, where it is asked.
    """
    place = 0
    for names, function in _GROUPS:
        count = sum(sizes[OPERATIONS.index(name)] for name in names)
        rows = drawn.by_operation[place : place + count]
        place += count
        if count and function is not None:
            some, strength = pixels[rows], drawn.strength[rows]
            pixels.index_copy_(0, rows, function(some, strength, drawn.operation[rows]))


def _moved(pixels: Tensor, strength: Tensor, operation: Tensor) -> Tensor:
    """Shear from the upper left corner, shift, or rotate about the centre counter-clockwise.

    Each pixel of the result is the nearest of where it comes from, black beyond the border.
    """
    batch, height, width, _ = pixels.shape

    def of(name: str) -> Tensor:  # (B, 1, 1), 0 for samples of another operation
        return (strength * (operation == OPERATIONS.index(name)))[:, None, None]

    x = torch.arange(width, device=pixels.device) + 0.5  # (W,)
    y = (torch.arange(height, device=pixels.device) + 0.5)[:, None]  # (H, 1)
    angle = of("rotate").deg2rad()
    from_x, from_y = x - width / 2, y - height / 2
    source_x = angle.cos() * from_x - angle.sin() * from_y + width / 2
    source_y = angle.sin() * from_x + angle.cos() * from_y + height / 2
    source_x = (source_x + of("shear_x") * y - of("translate_x") - 0.5).round().long()
    source_y = (source_y + of("shear_y") * x - of("translate_y") - 0.5).round().long()
    inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
    place = source_y.clamp_(0, height - 1) * width + source_x.clamp_(0, width - 1)  # (B, H, W)
    place += torch.arange(batch, device=pixels.device)[:, None, None] * (height * width)
    return pixels.flatten(0, 2)[place] * inside[..., None]


def _blended(degenerate: Tensor, pixels: Tensor, strength: Tensor) -> Tensor:
    """Go from what the operation would leave at factor 0 past the image, at 1."""
    # As a step from the image: where both are alike, not even the last bit moves.
    images = pixels - strength[:, None, None, None] * (degenerate - pixels)
    return images.clamp_(0, 255).to(torch.uint8)


def _grey(pixels: Tensor) -> Tensor:
    """Grey values, whole numbers as float32: (B, H, W, 1)."""
    red, green, blue = (pixels[..., channel, None] for channel in range(3))
    return (_GREY[0] * red + _GREY[1] * green + _GREY[2] * blue).floor_()


def _brightness(pixels: Tensor, strength: Tensor, _: Tensor) -> Tensor:
    factor = (1 + strength)[:, None, None, None]
    return (factor * pixels).clamp_(0, 255).to(torch.uint8)


def _color(pixels: Tensor, strength: Tensor, _: Tensor) -> Tensor:
    return _blended(_grey(pixels), pixels, strength)


def _contrast(pixels: Tensor, strength: Tensor, _: Tensor) -> Tensor:
    return _blended(_grey(pixels).mean((1, 2, 3), keepdim=True), pixels, strength)


def _sharpness(pixels: Tensor, strength: Tensor, _: Tensor) -> Tensor:
    """Blend with the image smoothed by (1 1 1, 1 5 1, 1 1 1) / 13; its border stays."""
    height, width = pixels.shape[1:3]
    if min(height, width) < 3:
        return pixels
    images = pixels.permute(0, 3, 1, 2).float()  # (B, 3, H, W)
    total = 9 * functional.avg_pool2d(images, 3, stride=1)  # (B, 3, H - 2, W - 2)
    smooth = images.clone()
    smooth[..., 1:-1, 1:-1] = ((total + 4 * images[..., 1:-1, 1:-1]) / 13).round_()
    return _blended(smooth.permute(0, 2, 3, 1), pixels, strength)


def _posterize(pixels: Tensor, strength: Tensor, _: Tensor) -> Tensor:
    dropped = (8 - strength).to(torch.uint8)[:, None, None, None]
    return (pixels >> dropped) << dropped


def _solarize(pixels: Tensor, strength: Tensor, _: Tensor) -> Tensor:
    return torch.where(pixels >= strength[:, None, None, None], 255 - pixels, pixels)


def _autocontrast(pixels: Tensor, _: Tensor, __: Tensor) -> Tensor:
    """Stretch each channel from 0 to 255; one of a single value stays."""
    least, most = (f((1, 2), keepdim=True).float() for f in (pixels.amin, pixels.amax))
    flat = least == most
    least = least.masked_fill(flat, 0.0)
    span = (most - least).masked_fill(flat, 255.0)
    return (255 * (pixels - least) / span).clamp_(0, 255).to(torch.uint8)


def _equalize(pixels: Tensor, _: Tensor, __: Tensor) -> Tensor:
    """Spread each channel's values so that each is taken by as many pixels.

    The cumulative histogram is looked up in the sorted pixels: counting them by atomic additions
    would be what `deterministic` forbids.
    """
    batch, height, width, channels = pixels.shape
    flat = pixels.permute(0, 3, 1, 2).reshape(batch * channels, height * width)
    ordered = flat.sort(1).values.short().contiguous()
    values = torch.arange(256, dtype=torch.int16, device=pixels.device)
    below = torch.searchsorted(ordered, values.expand(len(flat), -1).contiguous())  # less than it
    # All but the largest value's pixels are shared over 255 steps; the rest of a step rounds.
    step = below.gather(1, ordered[:, -1:].long()) // 255
    table = ((below + step // 2) // step.clamp(min=1)).clamp_(0, 255)
    table = torch.where(step == 0, values, table).to(torch.uint8)
    equal = table.gather(1, flat.long())
    return equal.view(batch, channels, height, width).permute(0, 2, 3, 1)


# In the order of `OPERATIONS`, by which the samples of a batch are sorted.
_GROUPS: tuple[tuple[tuple[str, ...], Callable[[Tensor, Tensor, Tensor], Tensor] | None], ...] = (
    (OPERATIONS[:1], None),
    (OPERATIONS[1:6], _moved),
    (OPERATIONS[6:7], _brightness),
    (OPERATIONS[7:8], _color),
    (OPERATIONS[8:9], _contrast),
    (OPERATIONS[9:10], _sharpness),
    (OPERATIONS[10:11], _posterize),
    (OPERATIONS[11:12], _solarize),
    (OPERATIONS[12:13], _autocontrast),
    (OPERATIONS[13:], _equalize),
)
