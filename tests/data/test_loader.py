"""Batches against slow loops over samples and pixels, written from what the settings say."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from blocklab.data.augmentation import Augmentation, Draws, _crop, _cut, _mirror
from blocklab.data.loader import Batches
from blocklab.data.split import Split
from blocklab.errors import InputError, RunError

MEAN, STD = (0.5, 0.25, 0.75), (0.25, 0.5, 0.125)
HEIGHT, WIDTH = 5, 9
ALL = Augmentation(crop_padding=2, flip=True, cutout=3)
Epoch = list[tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture
def split(rng: np.random.Generator) -> Split:
    """23 images of a store of 40, in an order of its own."""
    images = rng.integers(0, 256, (40, HEIGHT, WIDTH, 3), np.uint8)
    return Split(images, rng.integers(0, 7, 40), rng.permutation(40)[:23])


def batches(split: Split, size: int = 4, **options: Any) -> Batches:
    given = {"mean": MEAN, "std": STD, "shuffle": True, "seed": 3, **options}
    return Batches(split, size, **given)


def equal(one: Epoch, other: Epoch) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, other, strict=True)
    )


def slow_crop(image: np.ndarray, padding: int, top: int, left: int) -> np.ndarray:
    result = np.zeros_like(image)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            source_y, source_x = y + top - padding, x + left - padding
            if 0 <= source_y < image.shape[0] and 0 <= source_x < image.shape[1]:
                result[y, x] = image[source_y, source_x]
    return result


def slow_mirror(image: np.ndarray, mirrored: int) -> np.ndarray:
    return image[:, ::-1] if mirrored else image


def slow_cut(image: np.ndarray, side: int, centre_y: int, centre_x: int) -> np.ndarray:
    result = image.copy()
    for y in range(centre_y - side // 2, centre_y - side // 2 + side):
        for x in range(centre_x - side // 2, centre_x - side // 2 + side):
            if 0 <= y < image.shape[0] and 0 <= x < image.shape[1]:
                result[y, x] = 0
    return result


def slow_epoch(batch: Batches, epoch: int) -> Iterator[tuple[np.ndarray, int]]:
    """The epoch sample by sample: float64 (3, H, W) and a label, from the same draws."""
    order, draws = batch._draw(epoch)
    setting = batch.augmentation
    for place, sample in enumerate(order.tolist()):
        top, left, mirrored, cut_y, cut_x = (int(numbers[place]) for numbers in draws)
        image = batch.split.images[batch.split.indices[sample]]
        if setting.crop_padding:
            image = slow_crop(image, setting.crop_padding, top, left)
        if setting.flip:
            image = slow_mirror(image, mirrored)
        image = (image / 255 - MEAN) / STD
        if setting.cutout:
            image = slow_cut(image, setting.cutout, cut_y, cut_x)
        yield image.transpose(2, 0, 1), int(batch.split.targets[sample])


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(),
        Augmentation(crop_padding=1),
        Augmentation(crop_padding=7),  # larger than the image is high
        Augmentation(flip=True),
        Augmentation(cutout=1),
        Augmentation(cutout=4),
        Augmentation(cutout=30),
        ALL,
    ],
)
@pytest.mark.parametrize("resident", [False, True])
def test_an_epoch_is_that_of_the_slow_loop(
    augmentation: Augmentation, resident: bool, split: Split
) -> None:
    fast = batches(split, augmentation=augmentation, resident=resident)
    images, labels = (torch.cat(parts) for parts in zip(*fast.epoch(5), strict=True))
    slow_images, slow_labels = zip(*slow_epoch(fast, 5), strict=True)
    assert labels.tolist() == list(slow_labels)
    np.testing.assert_allclose(images, np.stack(slow_images), rtol=0, atol=2e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(1, 9), st.integers(0, 6), st.integers(0, 12), st.data())
def test_every_draw_is_that_of_the_slow_loop(
    height: int, width: int, padding: int, side: int, data: st.DataObject
) -> None:
    count = 3
    pixels = np.random.default_rng(height * 31 + width).integers(
        0, 256, (count, height, width, 3), np.uint8
    )
    draw = {
        "top": 2 * padding, "left": 2 * padding, "mirrored": 1, "y": height - 1, "x": width - 1,
    }  # fmt: skip
    numbers = {
        name: data.draw(st.lists(st.integers(0, high), min_size=count, max_size=count))
        for name, high in draw.items()
    }
    tensors = Draws(*(torch.tensor(values) for values in numbers.values()))
    given = torch.from_numpy(pixels)
    cropped = _crop(given, padding, tensors.top, tensors.left)
    mirrored = _mirror(given, tensors.mirrored)
    cut = given.float()
    _cut(cut, side, tensors.cut_y, tensors.cut_x)
    for n, image in enumerate(pixels):
        top, left, flip, y, x = (values[n] for values in numbers.values())
        assert (cropped[n].numpy() == slow_crop(image, padding, top, left)).all()
        assert (mirrored[n].numpy() == slow_mirror(image, flip)).all()
        assert (cut[n].numpy() == slow_cut(image, side, y, x)).all()


def test_the_draws_cover_their_ranges_evenly(rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (1, HEIGHT, WIDTH, 3), np.uint8)
    split = Split(images, np.zeros(1, np.int64), np.zeros(20_000, np.int64))
    _, draws = batches(split, augmentation=ALL)._draw(0)
    for numbers, high in zip(draws, (5, 5, 2, HEIGHT, WIDTH), strict=True):
        counts = np.bincount(numbers.numpy())
        assert len(counts) == high
        deviation = (counts - 20_000 / high) / np.sqrt(20_000 / high)
        assert np.abs(deviation).max() < 4.5


def test_batches_are_a_function_of_seed_and_epoch(split: Split) -> None:
    def epoch(seed: int, number: int, **options: Any) -> Epoch:
        return list(batches(split, seed=seed, augmentation=ALL, **options).epoch(number))

    first = epoch(3, 2)
    torch.manual_seed(99)  # no other random state counts
    np.random.seed(99)
    again = batches(split, augmentation=ALL)
    list(again.epoch(0))  # nor what was drawn before
    assert equal(list(again.epoch(2)), first)
    assert not equal(epoch(4, 2), first) and not equal(epoch(3, 3), first)
    assert not equal(epoch(4, 1), first)  # no mere sum of the two
    assert equal(epoch(-1, 0), epoch(2**64 - 1, 0))


def test_an_augmentation_leaves_the_order_and_the_other_draws_alone(split: Split) -> None:
    plain, flipped = (
        batches(split, augmentation=Augmentation(crop_padding=2, flip=flip))
        for flip in (False, True)
    )
    for (order, draws), (other, others) in ((plain._draw(1), flipped._draw(1)),):
        assert torch.equal(order, other)
        assert all(torch.equal(a, b) for a, b in zip(draws, others, strict=True))


def test_normalising_is_exact_to_rounding(rng: np.random.Generator) -> None:
    """Each of the 256 values of each channel, against double precision."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), 3, 3)
    mean, std = (0.50707516, 0.48654887, 0.44091784), (0.26733429, 0.25643846, 0.27615047)
    split = Split.whole(ramp, np.zeros(1, np.int64))
    ((images, _),) = Batches(split, 1, mean=mean, std=std, shuffle=False).epoch(0)
    exact = ((ramp[0] / 255 - mean) / std).transpose(2, 0, 1)
    np.testing.assert_allclose(images[0], exact, rtol=0, atol=4e-7)
    assert images.dtype == torch.float32


def test_layout_changes_no_value(split: Split) -> None:
    formats = (torch.contiguous_format, torch.channels_last)
    for resident in (False, True):
        first, last = (
            list(batches(split, augmentation=ALL, memory_format=f, resident=resident).epoch(0))
            for f in formats
        )
        assert equal(first, last)
        for one, other in zip(first, last, strict=True):
            assert one[0].is_contiguous()
            assert other[0].is_contiguous(memory_format=torch.channels_last)


def test_the_batches_own_their_memory(split: Split) -> None:
    """A step that works in place must not change the store or the next epoch."""
    before = split.images.copy()
    for resident in (False, True):
        given = batches(split, resident=resident)
        first = [(images.clone(), labels) for images, labels in given.epoch(0)]
        for images, _ in given.epoch(0):
            images.zero_()
        assert equal(list(given.epoch(0)), first)
    assert (split.images == before).all()


@pytest.mark.parametrize(
    ("size", "drop_last", "sizes"),
    [
        (4, False, [4] * 5 + [3]),
        (4, True, [4] * 5),
        (23, True, [23]),
        (50, False, [23]),
        (1, True, [1] * 23),
    ],
)
def test_sizes_of_batches(size: int, drop_last: bool, sizes: list[int], split: Split) -> None:
    given = batches(split, size, drop_last=drop_last)
    assert [len(labels) for _, labels in given.epoch(0)] == sizes
    assert len(given) == len(sizes)


def test_without_shuffling_the_order_is_the_splits(split: Split) -> None:
    given = batches(split, shuffle=False)
    labels = torch.cat([labels for _, labels in given.epoch(7)])
    assert labels.tolist() == split.targets.tolist()


def test_each_image_comes_once_an_epoch(rng: np.random.Generator) -> None:
    split = Split.whole(rng.integers(0, 256, (23, 2, 3, 3), np.uint8), np.arange(23))
    orders = [torch.cat([n for _, n in batches(split).epoch(e)]).tolist() for e in range(3)]
    assert all(sorted(order) == list(range(23)) for order in orders)
    assert orders[0] != orders[1] != orders[2]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [4, 7, 23, 30])
@pytest.mark.parametrize("drop_last", [False, True])
def test_shares_make_up_the_batch_of_a_single_process(
    world_size: int, size: int, drop_last: bool, split: Split
) -> None:
    if drop_last and size > len(split):
        return
    for resident in (False, True):
        options = {"augmentation": ALL, "drop_last": drop_last, "resident": resident}
        whole = batches(split, size, **options)
        ranks = [
            batches(split, size, rank=rank, world_size=world_size, **options)
            for rank in range(world_size)
        ]
        assert {len(rank) for rank in ranks} == {len(whole)}
        for epoch in (0, 3):
            shares = zip(*(rank.epoch(epoch) for rank in ranks), strict=True)
            joined = []
            for share in shares:
                counts = [len(labels) for _, labels in share]
                assert max(counts) - min(counts) <= 1
                parts = zip(*share, strict=True)
                joined.append(tuple(torch.cat(part) for part in parts))
            assert equal(joined, list(whole.epoch(epoch)))


def test_an_empty_share_has_the_shape_of_a_batch(split: Split) -> None:
    single = split.part(np.arange(1))
    shares = [
        next(batches(single, 4, rank=rank, world_size=3, augmentation=ALL).epoch(0))
        for rank in range(3)
    ]
    assert sorted(len(labels) for _, labels in shares) == [0, 0, 1]
    assert {tuple(images.shape[1:]) for images, _ in shares} == {(3, HEIGHT, WIDTH)}


def test_images_to_be_checked_are_checked_as_they_are_read(split: Split) -> None:
    import zlib

    checksums = np.array([zlib.crc32(image) for image in split.images], np.uint32)
    good = Split(split.images, split.labels, split.indices, checksums)
    assert equal(list(batches(good).epoch(0)), list(batches(split).epoch(0)))
    split.images[split.indices[11], 0, 0, 0] ^= 1
    list(batches(good).epoch(1))  # each is looked at once
    good = Split(split.images, split.labels, split.indices, checksums)
    for resident in (False, True):
        with pytest.raises(RunError, match=f"image {split.indices[11]} of .* is damaged; delete"):
            list(batches(good, resident=resident).epoch(0))
    list(batches(good.part(np.arange(11))).epoch(0))  # what is not used is not read


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "batch_size must be at least 1"),
        ({"size": -3}, "batch_size must be at least 1"),
        ({"size": 24, "drop_last": True}, "23 images do not fill one batch of 24"),
        ({"rank": 2, "world_size": 2}, "rank 2 is none of 2 processes"),
        ({"rank": -1, "world_size": 2}, "rank -1 is none of 2 processes"),
        ({"rank": 0, "world_size": 0}, "rank 0 is none of 0 processes"),
        ({"size": 2, "rank": 0, "world_size": 3}, "cannot be shared by 3 processes"),
    ],
)
def test_settings_that_give_no_batch_are_refused(
    options: dict[str, Any], message: str, split: Split
) -> None:
    with pytest.raises(InputError, match=message):
        batches(split, **options)


def test_an_empty_split_says_what_to_set(split: Split) -> None:
    with pytest.raises(InputError, match="set validation_fraction above 0"):
        batches(split.part(np.arange(0)))


@pytest.mark.parametrize("field", ["crop_padding", "cutout"])
def test_negative_sizes_are_refused(field: str) -> None:
    sizes: dict[str, Any] = {field: -1}
    with pytest.raises(InputError, match=f"{field} must be 0 pixels or more"):
        Augmentation(**sizes)
