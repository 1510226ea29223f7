"""Batches on the device, of samples that are augmented there, without a loop over samples.

Which images make a batch and how each is cropped, flipped and cut are a pure function of the seed
and the epoch, drawn on the CPU: the same on every device, and after a resume.
"""

from collections.abc import Generator, Iterator
from contextlib import closing
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blocklab.data.ahead import made_ahead
from blocklab.data.augmentation import (
    NONE,
    Augmentation,
    Draws,
    FurtherDraws,
    augmented,
    blank_parts,
    draw_further,
    each,
    generator_of,
)
from blocklab.data.split import Split
from blocklab.errors import InputError

Triple = tuple[float, float, float]
Size = tuple[int, int]


class Batches:
    """Batches of a split: normalised float32 (B, 3, H, W) and int64 labels (B,), on the device.

    `image_size` is the side of the images that are given, where the split's are kept larger: the
    centre of them, or what a random resized crop makes of a part; None is their own height and
    width. `mean` and `std` are per channel, of pixels in 0..1. `resident` says whether the split's
    pixels are moved to the device once; None does so on a GPU where they take less than a quarter
    of its free memory. Otherwise each batch is gathered on the CPU.

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
        image_size: int | None = None,
        augmentation: Augmentation = NONE,
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
        self.kept: Size = split.images.shape[1:3]
        self.size: Size = (image_size, image_size) if image_size else self.kept
        if self.size[0] > self.kept[0] or self.size[1] > self.kept[1]:
            raise InputError(
                f"images are kept at {self.kept[1]}x{self.kept[0]} pixels, too small for "
                f"image_size={image_size}"
            )
        height, width = self.size
        # (pixel / 255 - mean) / std as one multiplication and one addition, by a row as long as
        # an image: a row of three would keep the CPU from using its vector units.
        std_row = torch.tensor(std, dtype=torch.float64).repeat(height * width)
        mean_row = torch.tensor(mean, dtype=torch.float64).repeat(height * width)
        self._scale = (1 / (255 * std_row)).float().to(device)  # (H * W * 3,)
        self._shift = (-mean_row / std_row).float().to(device)
        self._labels = torch.from_numpy(np.asarray(split.targets, np.int64)).to(device)
        if resident is None:
            resident = _fits(len(split) * self.kept[0] * self.kept[1] * 3, device)
        self._pixels = self._upload() if resident else None

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        full, rest = divmod(len(self.split), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of epoch number `epoch`, or this rank's share of each."""
        order, draws = self._draw(epoch)
        shares = [self._share(number) for number in range(len(self))]
        further, operations = draw_further(
            self.augmentation, self.seed, epoch, len(order), self.kept, self.size, shares
        )
        on_device, draws, further = each(
            (order, draws, further), lambda numbers: _sent(numbers, self.device)
        )
        with closing(self._pixels_of(order, on_device, shares)) as batches:
            for rows, sizes, pixels in zip(shares, operations, batches, strict=True):
                ours = each((draws, further), itemgetter(rows))
                yield self._prepare(pixels, ours[0], ours[1], sizes), self._labels[on_device[rows]]

    def _pixels_of(
        self, order: Tensor, on_device: Tensor, shares: list[slice]
    ) -> Generator[Tensor]:
        """Yield each batch's pixels, uint8 (B, H, W, 3), on the device.

        Those that a GPU does not hold are read and copied while it computes the batch before, on
        a stream beside its own. A CPU gains nothing so: it would read while it could compute.
        """
        if self._pixels is not None:
            for rows in shares:
                yield self._pixels[on_device[rows]]
        elif self.device.type != "cuda":
            for rows in shares:
                yield torch.from_numpy(self.split.pixels(order[rows].numpy()))
        else:
            beside = torch.cuda.Stream(self.device)

            def copied(rows: slice) -> tuple[Tensor, Any]:
                pixels = torch.from_numpy(self.split.pixels(order[rows].numpy())).pin_memory()
                with torch.cuda.stream(beside):
                    return pixels.to(self.device, non_blocking=True), beside.record_event()

            with closing(made_ahead(copied, shares)) as batches:
                for pixels, arrived in batches:
                    computing = torch.cuda.current_stream(self.device)
                    computing.wait_event(arrived)
                    pixels.record_stream(computing)  # not given to another before it is used
                    yield pixels

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
        generator = generator_of(self.seed, epoch)
        count = len(self.split)
        order = torch.randperm(count, generator=generator)
        if not self.shuffle:
            order = torch.arange(count)
        places = 2 * self.augmentation.crop_padding + 1
        highs = (places, places, 2, *self.size)
        return order, Draws(*(torch.randint(h, (count,), generator=generator) for h in highs))

    def _upload(self) -> Tensor:
        """Move the split's pixels to the device, some at a time to spare the main memory."""
        pixels = torch.empty(
            (len(self.split), *self.split.images.shape[1:]), dtype=torch.uint8, device=self.device
        )
        for start in range(0, len(self.split), 4096):
            part = self.split.pixels(slice(start, start + 4096))
            pixels[start : start + len(part)] = torch.from_numpy(part).to(self.device)
        return pixels

    def _prepare(
        self, pixels: Tensor, draws: Draws, further: FurtherDraws, operations: list[int]
    ) -> Tensor:
        """Augment and normalise: uint8 (B, H, W, 3) -> float32 (B, 3, *size)."""
        setting = self.augmentation
        pixels = augmented(pixels, setting, draws, further, operations, self.size)
        images = pixels.flatten(1).float().mul_(self._scale).add_(self._shift)
        images = images.view(pixels.shape)
        blank_parts(images, setting, draws, further)
        # (B, H, W, 3) in memory is (B, 3, H, W) channels_last: a copy only for the other layout
        return images.permute(0, 3, 1, 2).contiguous(memory_format=self.memory_format)


def _sent(numbers: Tensor, device: torch.device) -> Tensor:
    """Copy numbers to the device without waiting for it."""
    if device.type == "cuda":
        numbers = numbers.pin_memory()  # which is kept until it is copied, whoever drops it
    return numbers.to(device, non_blocking=True)


def _fits(size: int, device: torch.device) -> bool:
    """Whether so many bytes of images are better moved to the device once, as a whole."""
    return device.type == "cuda" and size < torch.accelerator.get_memory_info(device)[0] // 4
