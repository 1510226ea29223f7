"""Random resized crops, TrivialAugment and erasing, against torchvision a sample at a time."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as vision

from blocklab.data.augmentation import Augmentation, draw_further
from blocklab.data.boxes import Boxes, blank, draw_crops, draw_erased, resized
from blocklab.data.crop_ranges import RandomResizedCrop
from blocklab.data.loader import Batches
from blocklab.data.split import Split
from blocklab.data.trivial_augment import (
    OPERATIONS,
    Trivial,
    augment_trivially,
    draw_trivial,
    strengths,
)
from blocklab.errors import InputError

MEAN, STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
EVERY = Augmentation(RandomResizedCrop(), 0, True, True, 3, 0.5)


@pytest.fixture
def pixels() -> Tensor:
    """Smooth pictures, as photographs are: uint8 (6, 37, 45, 3)."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((6, 3, 8, 8), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (37, 45), mode="bilinear")
    return (smooth * 200 + 20).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def expected(name: str, image: Tensor, strength: float) -> Tensor:
    """Do an operation as torchvision does: uint8 (3, H, W)."""

    def affine(move: tuple[int, int] = (0, 0), shear: tuple[float, float] = (0, 0)) -> Tensor:
        centre = [0.0, 0.0] if any(shear) else None
        nearest = InterpolationMode.NEAREST
        return vision.affine(image, 0, list(move), 1, list(shear), nearest, center=centre)

    lean = math.degrees(math.atan(strength))
    shift = int(strength)
    operations: dict[str, Any] = {
        "identity": lambda: image,
        "shear_x": lambda: affine(shear=(lean, 0)),
        "shear_y": lambda: affine(shear=(0, lean)),
        "translate_x": lambda: affine((shift, 0)),
        "translate_y": lambda: affine((0, shift)),
        "rotate": lambda: vision.rotate(image, strength),
        "brightness": lambda: vision.adjust_brightness(image, 1 + strength),
        "color": lambda: vision.adjust_saturation(image, 1 + strength),
        "contrast": lambda: vision.adjust_contrast(image, 1 + strength),
        "sharpness": lambda: vision.adjust_sharpness(image, 1 + strength),
        "posterize": lambda: vision.posterize(image, int(strength)),
        "solarize": lambda: vision.solarize(image, strength),
        "autocontrast": lambda: vision.autocontrast(image),
        "equalize": lambda: vision.equalize(image),
    }
    return operations[name]()


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("level", [0, 1, 7, 16, 30])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_operation_is_torchvisions(name: str, level: int, sign: int, pixels: Tensor) -> None:
    """To the bit, but where a sum that is a whole number may be cut to it or to the one below."""
    number = OPERATIONS.index(name)
    strength = strengths()[number, level] * (1 if name in ("posterize", "solarize") else sign)
    count = len(pixels)
    sizes = [count if one == name else 0 for one in OPERATIONS]
    drawn = Trivial(torch.full((count,), number), strength.repeat(count), torch.arange(count))
    found = pixels.clone()
    augment_trivially(found, drawn, sizes)
    right = torch.stack([expected(name, p.permute(2, 0, 1), float(strength)) for p in pixels])
    differ = (found.int() - right.permute(0, 2, 3, 1).int()).abs()
    blends = ("color", "contrast", "sharpness", "autocontrast")
    assert differ.max() <= (name in blends), name
    assert (differ > 0).float().mean() < (0.1 if name in blends else 1e-9)


def test_strengths_are_torchvisions() -> None:
    for name, (levels, _) in (
        transforms.TrivialAugmentWide()._augmentation_space(31).items()
    ):  # {"ShearX": (31 strengths, signed), ...}
        ours = "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
        ours = {"auto_contrast": "autocontrast"}.get(ours, ours)
        given = levels.expand(31).float()
        if ours.startswith("translate"):
            given = (given + 1e-4).trunc()  # 15 / 30 of 32 is 16, in float32 too
        torch.testing.assert_close(strengths()[OPERATIONS.index(ours)], given)


def test_each_sample_of_a_mixed_batch_gets_its_own_operation(pixels: Tensor) -> None:
    many = pixels.repeat(20, 1, 1, 1)
    drawn, (sizes,) = draw_trivial(120, [slice(0, 120)], torch.Generator().manual_seed(0))
    found = many.clone()
    augment_trivially(found, drawn, sizes)
    assert min(sizes) > 0
    for place in range(120):
        name, strength = OPERATIONS[int(drawn.operation[place])], float(drawn.strength[place])
        right = expected(name, many[place].permute(2, 0, 1), strength).permute(1, 2, 0)
        assert (found[place].int() - right.int()).abs().max() <= 1, name


def test_operations_strengths_and_signs_are_drawn_evenly() -> None:
    drawn, sizes = draw_trivial(28_000, [slice(0, 28_000)], torch.Generator().manual_seed(0))
    assert np.abs(np.array(sizes[0]) - 2000).max() < 4.5 * 2000**0.5
    of_rotate = drawn.strength[drawn.operation == OPERATIONS.index("rotate")]
    assert 0.45 < (of_rotate > 0).float().mean() / (of_rotate != 0).float().mean() < 0.55
    assert len(of_rotate.unique()) == 61  # 30 to each side, and 0
    assert (drawn.strength[drawn.operation == OPERATIONS.index("solarize")] >= 0).all()


@pytest.mark.parametrize("size", [(24, 24), (60, 50), (7, 9)])
def test_a_resized_part_is_torchvisions(size: tuple[int, int], pixels: Tensor) -> None:
    """Before rounding to a thousandth of a level; rounded, to the one level that a tie may be."""
    boxes = Boxes(*torch.tensor([
        [0, 3, 10, 0, 36, 5], [0, 5, 0, 20, 44, 1], [37, 20, 7, 1, 1, 32], [45, 11, 45, 25, 1, 3],
    ]).unbind())  # fmt: skip
    found = resized(pixels, boxes, size)
    for one, picture, box in zip(found, pixels, torch.stack(boxes, 1).tolist(), strict=True):
        exact = vision.resized_crop(
            picture.permute(2, 0, 1).float(),
            box[0],
            box[1],
            box[2],
            box[3],
            list(size),
            antialias=True,
        )
        assert (one.permute(2, 0, 1) - exact).abs().max() < 0.501
    assert found.is_contiguous()


@pytest.mark.parametrize(("height", "width"), [(100, 100), (40, 130)])
def test_boxes_of_crops_are_drawn_as_torchvisions(height: int, width: int) -> None:
    """Means and SDs of place and size over 6,000 boxes, within 4.5 standard errors of a mean."""
    crop, count = RandomResizedCrop(), 6000
    ours = torch.stack(
        draw_crops(count, height, width, crop, torch.Generator().manual_seed(0))
    ).double()
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = torch.tensor(
        [
            transforms.RandomResizedCrop.get_params(image, list(crop.scale), list(crop.ratio))
            for _ in range(count)
        ]
    ).T.double()
    check_alike(ours, theirs)


def test_erased_boxes_are_drawn_as_torchvisions() -> None:
    count = 6000
    ours = torch.stack(draw_erased(count, 40, 130, 1.0, torch.Generator().manual_seed(0))).double()
    torch.manual_seed(0)
    image = torch.empty(3, 40, 130)
    theirs = torch.tensor(
        [
            transforms.RandomErasing.get_params(image, (0.02, 0.33), (0.3, 3.3), [0.0])[:4]
            for _ in range(count)
        ]
    ).T.double()
    whole = theirs[2] == 40  # torchvision's way to leave an image as it is
    check_alike(ours[:, ours[2] > 0], theirs[:, ~whole])
    # A try that does not fit is drawn again, also where its box is as high as the picture.
    small = draw_erased(count, 8, 8, 1.0, torch.Generator().manual_seed(0))
    assert bool((small.height > 0).all()) and int(small.height.max()) == 7
    some = draw_erased(count, 40, 130, 0.25, torch.Generator().manual_seed(1))
    assert 0.22 < (some.height > 0).float().mean() < 0.28


def check_alike(ours: Tensor, theirs: Tensor) -> None:
    for one, other in zip(ours, theirs, strict=True):
        error = float((one.var() / len(one) + other.var() / len(other)).sqrt())
        assert abs(float(one.mean() - other.mean())) < 4.5 * error
        assert float(one.std() / other.std()) == pytest.approx(1, abs=0.05)


def test_a_box_is_blanked_and_an_empty_one_is_not() -> None:
    images = torch.ones(2, 5, 7, 3)
    boxes = Boxes(*torch.tensor([[1, 0], [2, 0], [3, 0], [4, 0]]).unbind())
    blank(images, boxes)
    right = torch.ones(2, 5, 7, 3)
    right[0, 1:4, 2:6] = 0
    assert torch.equal(images, right)


def test_shares_of_augmented_batches_make_up_the_whole(rng: np.random.Generator) -> None:
    split = Split.whole(rng.integers(0, 256, (23, 20, 20, 3), np.uint8), np.arange(23))

    def batches(rank: int, of: int, seed: int = 3) -> list[Tensor]:
        given = Batches(
            split, 7, mean=MEAN, std=STD, image_size=16, augmentation=EVERY,
            shuffle=True, seed=seed, rank=rank, world_size=of,
        )  # fmt: skip
        return [images for images, _ in given.epoch(2)]

    whole = batches(0, 1)
    assert whole[0].shape == (7, 3, 16, 16)
    for one, *parts in zip(whole, *(batches(rank, 3) for rank in range(3)), strict=True):
        assert torch.equal(one, torch.cat(parts))
    assert not torch.equal(whole[0], batches(0, 1, seed=4)[0])


def test_one_augmentation_leaves_the_draws_of_the_others_alone() -> None:
    def drawn(setting: Augmentation, epoch: int = 1) -> Any:
        return draw_further(setting, 3, epoch, 9, (20, 20), (16, 16), [slice(0, 9)])[0]

    every = drawn(EVERY)
    assert torch.equal(drawn(Augmentation(random_erasing=0.5)).erased.top, every.erased.top)
    alone = drawn(Augmentation(trivial_augment=True))
    assert torch.equal(alone.trivial.strength, every.trivial.strength)
    assert not torch.equal(drawn(EVERY, 2).crop.height, every.crop.height)
    assert not torch.equal(drawn(EVERY, 2).trivial.strength, every.trivial.strength)


def test_larger_pictures_are_cut_to_their_centre(rng: np.random.Generator) -> None:
    split = Split.whole(rng.integers(0, 256, (2, 8, 8, 3), np.uint8), np.arange(2))
    given = Batches(split, 2, mean=MEAN, std=STD, image_size=6, shuffle=False)
    ((images, _),) = given.epoch(0)
    right = torch.from_numpy(split.images[:, 1:7, 1:7]).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(images, right)
    with pytest.raises(InputError, match="images are kept at 8x8 pixels, too small for"):
        Batches(split, 2, mean=MEAN, std=STD, image_size=9, shuffle=False)
