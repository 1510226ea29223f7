"""Batches and augmentation on the device, per sample and without a loop over samples.

Which images make a batch and how each is cropped, flipped and cut are a pure function of the seed
and the epoch, drawn on the CPU: the same on every device, and after a resume.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from blocklab.data.split import Split
from blocklab.errors import InputError

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training image, in this order.

    Attributes:
        crop_padding: pixels of black on each side, of which a window of the old size is cut.
        flip: mirror left to right, every second image on average.
        cutout: side of a square, in pixels, set to the data's mean; its centre lies anywhere in
            the image, so it may reach over the border. 0 is none.
    """

    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0

    def __post_init__(self) -> None:
        """Refuse negative sizes."""
        for name, value in (("crop_padding", self.crop_padding), ("cutout", self.cutout)):
            if value < 0:
                raise InputError(f"{name} must be 0 pixels or more (got {value})")


class Draws(NamedTuple):
    """Random numbers of N samples, int64 (N,) each: window, mirrored or not, centre of the cut."""

    top: Tensor
    left: Tensor
    mirrored: Tensor
    cut_y: Tensor
    cut_x: Tensor

    def rows(self, rows: slice) -> "Draws":
        """Return the numbers of some samples."""
        return Draws(*(numbers[rows] for numbers in self))


class Batches:
    """Batches of a split: normalised float32 (B, 3, H, W) and int64 labels (B,), on the device.

    `mean` and `std` are per channel, of pixels in 0..1. `resident` says whether the split's pixels
    are moved to the device once; None does so on a GPU where they take less than a quarter of its
    free memory. Otherwise each batch is gathered on the CPU.

    Of `world_size` processes, each gets a contiguous share of every batch: in the order of their
    ranks the shares make up the batch of a single process, to the bit. `batch_size` is that of
    the whole batch. Shares differ by one image at most, and of a last batch of fewer images than
    processes some are empty: there are as many batches on each rank, which may thus wait for one
    another.

    Raises:
        InputError: if there is no batch to give, or a batch is smaller than the processes are many.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        mean: Triple,
        std: Triple,
        device: torch.device = torch.device("cpu"),  # noqa: B008 (a device is immutable)
        memory_format: torch.memory_format = torch.contiguous_format,
        augmentation: Augmentation = Augmentation(),
        shuffle: bool,
        drop_last: bool = False,
        seed: int = 0,
        resident: bool | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1 (got {batch_size})")
        if not len(split):
            raise InputError(
                "this split has no images; for validation, set validation_fraction above 0"
            )
        if drop_last and len(split) < batch_size:
            raise InputError(
                f"{len(split)} images do not fill one batch of {batch_size}; set batch_size to "
                f"{len(split)} or less"
            )
        if not 0 <= rank < world_size:
            raise InputError(f"rank {rank} is none of {world_size} processes; they count from 0")
        if batch_size < world_size:
            raise InputError(
                f"a batch of {batch_size} cannot be shared by {world_size} processes; set "
                f"batch_size to {world_size} or more"
            )
        self.split = split
        self.rank = rank
        self.world_size = world_size
        self.batch_size = batch_size
        self.device = device
        self.memory_format = memory_format
        self.augmentation = augmentation
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.seed = seed
        height, width = split.images.shape[1:3]
        # (pixel / 255 - mean) / std as one multiplication and one addition, by a row as long as
        # an image: a row of three would keep the CPU from using its vector units.
        std_row = torch.tensor(std, dtype=torch.float64).repeat(height * width)
        mean_row = torch.tensor(mean, dtype=torch.float64).repeat(height * width)
        self._scale = (1 / (255 * std_row)).float().to(device)  # (H * W * 3,)
        self._shift = (-mean_row / std_row).float().to(device)
        self._labels = torch.from_numpy(np.asarray(split.targets, np.int64)).to(device)
        if resident is None:
            size = len(split) * height * width * 3
            free = torch.accelerator.get_memory_info(device)[0] if device.type == "cuda" else 0
            resident = size < free // 4
        self._pixels = self._upload() if resident else None

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        full, rest = divmod(len(self.split), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of epoch number `epoch`, or this rank's share of each."""
        order, draws = self._draw(epoch)
        on_device = order.to(self.device, non_blocking=True)
        draws = Draws(*(numbers.to(self.device, non_blocking=True) for numbers in draws))
        for number in range(len(self)):
            rows = self._share(number)
            if self._pixels is None:
                pixels = self._gather(order[rows])
            else:
                pixels = self._pixels[on_device[rows]]
            yield self._prepare(pixels, draws.rows(rows)), self._labels[on_device[rows]]

    def _share(self, number: int) -> slice:
        """Return which places of the epoch's order this rank has of batch `number`."""
        start = number * self.batch_size
        size = min(self.batch_size, len(self.split) - start)
        first, last = (size * rank // self.world_size for rank in (self.rank, self.rank + 1))
        return slice(start + first, start + last)

    def _draw(self, epoch: int) -> tuple[Tensor, Draws]:
        """Draw the order and all numbers of an epoch, whichever of them are used.

        So switching an augmentation on or off leaves the order and the others as they were.
        """
        mixed = np.random.SeedSequence([self.seed % 2**64, epoch]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(mixed[0]))
        count = len(self.split)
        height, width = self.split.images.shape[1:3]
        order = torch.randperm(count, generator=generator)
        if not self.shuffle:
            order = torch.arange(count)
        places = 2 * self.augmentation.crop_padding + 1
        highs = (places, places, 2, height, width)
        return order, Draws(*(torch.randint(h, (count,), generator=generator) for h in highs))

    def _gather(self, order: Tensor) -> Tensor:
        """Copy the batch's pixels from the store to the device, uint8 (B, H, W, 3)."""
        pixels = torch.from_numpy(self.split.pixels(order.numpy()))
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()
        return pixels.to(self.device, non_blocking=True)

    def _upload(self) -> Tensor:
        """Move the split's pixels to the device, some at a time to spare the main memory."""
        pixels = torch.empty(
            (len(self.split), *self.split.images.shape[1:]), dtype=torch.uint8, device=self.device
        )
        for start in range(0, len(self.split), 4096):
            part = self.split.pixels(slice(start, start + 4096))
            pixels[start : start + len(part)] = torch.from_numpy(part).to(self.device)
        return pixels

    def _prepare(self, pixels: Tensor, draws: Draws) -> Tensor:
        """Augment and normalise: uint8 (B, H, W, 3) -> float32 (B, 3, H, W)."""
        if self.augmentation.crop_padding:
            pixels = _crop(pixels, self.augmentation.crop_padding, draws.top, draws.left)
        if self.augmentation.flip:
            pixels = _mirror(pixels, draws.mirrored)
        images = pixels.flatten(1).float().mul_(self._scale).add_(self._shift)
        images = images.view(pixels.shape)
        if self.augmentation.cutout:
            _cut(images, self.augmentation.cutout, draws.cut_y, draws.cut_x)
        # (B, H, W, 3) in memory is (B, 3, H, W) channels_last: a copy only for the other layout
        return images.permute(0, 3, 1, 2).contiguous(memory_format=self.memory_format)


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
