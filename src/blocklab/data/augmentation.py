"""Augmentation of whole batches on the device, each sample by numbers of its own.

How each image is changed is a pure function of the seed and the epoch, drawn on the CPU: the same
on every device, and after a resume. Each augmentation that came after crop, flip and cutout draws
from a generator of its own, so that using one leaves the numbers of the others as they were.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from blocklab.data.boxes import Boxes, blank, draw_crops, draw_erased, resized
from blocklab.data.crop_ranges import RandomResizedCrop
from blocklab.data.trivial_augment import Trivial, augment_trivially, draw_trivial
from blocklab.errors import InputError

Size = tuple[int, int]  # height and width in pixels
_CROPS, _TRIVIAL, _ERASED = 1, 2, 3  # generators; 0 is that of order, crop, flip and cutout


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training image, in this order.

    Attributes:
        random_resized_crop: which part of it is cut out and resized; None is its centre.
        crop_padding: pixels of black on each side, of which a window of the old size is cut.
        flip: mirror left to right, every second image on average.
        trivial_augment: one of TrivialAugment's 14 operations.
        cutout: side of a square, in pixels, set to the mean that images are normalised by; its
            centre lies anywhere in the image, so it may reach over the border. 0 is none.
        random_erasing: share of the images of which a random box is set to that mean.
    """

    random_resized_crop: RandomResizedCrop | None = None
    crop_padding: int = 0
    flip: bool = False
    trivial_augment: bool = False
    cutout: int = 0
    random_erasing: float = 0.0

    def __post_init__(self) -> None:
        """Refuse negative sizes."""
        for name, value in (("crop_padding", self.crop_padding), ("cutout", self.cutout)):
            if value < 0:
                raise InputError(f"{name} must be 0 pixels or more (got {value})")


NONE = Augmentation()


class Draws(NamedTuple):
    """Random numbers of N samples, int64 (N,) each: window, mirrored or not, centre of the cut."""

    top: Tensor
    left: Tensor
    mirrored: Tensor
    cut_y: Tensor
    cut_x: Tensor


class FurtherDraws(NamedTuple):
    """Random numbers of N samples for the other augmentations, where they are used."""

    crop: Boxes | None = None
    trivial: Trivial | None = None
    erased: Boxes | None = None


def each(numbers: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return draws with each of their tensors changed."""
    if isinstance(numbers, tuple):
        changed = [each(one, change) for one in numbers]
        return type(numbers)(*changed) if hasattr(numbers, "_fields") else tuple(changed)
    return change(numbers) if isinstance(numbers, Tensor) else numbers


def generator_of(seed: int, epoch: int, *purpose: int) -> torch.Generator:
    """Return a generator on the CPU that is a function of these numbers alone."""
    numbers = [seed % 2**64, epoch, *purpose]
    mixed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed[0]))


def draw_further(
    setting: Augmentation,
    seed: int,
    epoch: int,
    count: int,
    kept: Size,
    size: Size,
    shares: Sequence[slice],
) -> tuple[FurtherDraws, list[list[int]]]:
    """Draw an epoch's numbers of all but crop, flip and cutout.

    Pictures are kept in one size and trained on in another; a share is the samples of one batch.
    Returns the draws, and how many samples of each share each operation of TrivialAugment has.
    """

    def generator(purpose: int) -> torch.Generator:
        return generator_of(seed, epoch, purpose)

    crop, trivial, erased = None, None, None
    sizes: list[list[int]] = [[] for _ in shares]
    if setting.random_resized_crop:
        crop = draw_crops(count, *kept, setting.random_resized_crop, generator(_CROPS))
    if setting.trivial_augment:
        trivial, sizes = draw_trivial(count, shares, generator(_TRIVIAL))
    if setting.random_erasing:
        erased = draw_erased(count, *size, setting.random_erasing, generator(_ERASED))
    return FurtherDraws(crop, trivial, erased), sizes


def augmented(
    pixels: Tensor,
    setting: Augmentation,
    draws: Draws,
    further: FurtherDraws,
    operations: Sequence[int],
    size: Size,
) -> Tensor:
    """Do what is done to pixels, before they are normalised: uint8 (B, ..., 3) -> (B, *size, 3).

    `operations` is how many samples each operation of TrivialAugment has.
    """
    pixels = resized(pixels, further.crop, size) if further.crop else centre(pixels, size)
    if setting.crop_padding:
        pixels = _crop(pixels, setting.crop_padding, draws.top, draws.left)
    if setting.flip:
        pixels = _mirror(pixels, draws.mirrored)
    if further.trivial:
        augment_trivially(pixels, further.trivial, operations)
    return pixels


def blank_parts(images: Tensor, setting: Augmentation, draws: Draws, further: FurtherDraws) -> None:
    """Set parts of normalised images to 0, their mean, in place: (B, H, W, C)."""
    if setting.cutout:
        _cut(images, setting.cutout, draws.cut_y, draws.cut_x)
    if further.erased:
        blank(images, further.erased)


def centre(pixels: Tensor, size: Size) -> Tensor:
    """Cut the centre out: (B, H, W, C) -> (B, *size, C); nothing is copied where that is all."""
    top, left = ((have - want) // 2 for have, want in zip(pixels.shape[1:3], size, strict=True))
    if (top, left) == (0, 0):
        return pixels
    return pixels[:, top : top + size[0], left : left + size[1]].contiguous()


def _crop(pixels: Tensor, padding: int, top: Tensor, left: Tensor) -> Tensor:
    """Cut sample b's window at (top[b], left[b]) of the padded image: (B, H, W, 3) -> the same.

    All windows are a strided view of the padded batch, of which one a sample is copied; rows stay
    whole, which is five times faster than indexing pixel by pixel.
    """
    batch, height, width, channels = pixels.shape
    padded = functional.pad(pixels, (0, 0, padding, padding, padding, padding))
    sample, row, column, _ = padded.stride()
    windows = padded.as_strided(
        (batch, 2 * padding + 1, 2 * padding + 1, height, width * channels),
        (sample, row, column, row, 1),
    )
    return windows[_counting(batch, pixels.device), top, left].view(pixels.shape)


def _mirror(pixels: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror the samples whose number is 1, not 0, left to right: (B, H, W, C) uint8 -> the same.

    Chosen with bits, a whole image a row: ten times faster here than torch.where.
    """
    straight, flipped = pixels.flatten(1), pixels.flip(2).flatten(1)  # (B, H * W * C)
    mask = mirrored.to(torch.uint8).neg()[:, None]  # 0 or 255
    chosen = (straight ^ flipped).bitwise_and_(mask).bitwise_xor_(straight)
    return chosen.view(pixels.shape)


def _cut(images: Tensor, side: int, centre_y: Tensor, centre_x: Tensor) -> None:
    """Set the square around sample b's centre to 0, in place: (B, H, W, C).

    What reaches over the border falls on the border's own pixels, which are in the square too.
    """
    batch, height, width, _ = images.shape
    reach = _counting(side, images.device) - side // 2
    rows = (centre_y[:, None] + reach).clamp_(0, height - 1)  # (B, side)
    columns = (centre_x[:, None] + reach).clamp_(0, width - 1)
    samples = _counting(batch, images.device)
    # By a zero of the images' device: a plain 0 would be copied there, which waits for it.
    places = (samples[:, None, None], rows[:, :, None], columns[:, None, :])
    images.index_put_(places, _zero(images.dtype, images.device))


@lru_cache(maxsize=16)
def _counting(count: int, device: torch.device) -> Tensor:
    """0, 1, ..., count - 1, made once: each time anew is a launch a batch."""
    return torch.arange(count, device=device)


@lru_cache(maxsize=16)
def _zero(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.zeros((), dtype=dtype, device=device)
