"""A split's batches as a recipe wants them."""

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from blocklab.data.augmentation import NONE, Augmentation
from blocklab.data.image_data import ImageData
from blocklab.data.loader import Batches
from blocklab.data.split import Split
from blocklab.training.device import Setup
from blocklab.training.recipe import Recipe

Channels = tuple[float, float, float]

# By the value of a recipe's `normalize`: mean and SD a channel of pixels from 0 to 1. The means of
# `cifar10` are those of its training images. Its SDs, which scripts have handed on for years, are
# means of each image's own SD; over all pixels they are 0.247, 0.243 and 0.262.
CONSTANTS: dict[str, tuple[Channels, Channels]] = {
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
}
FEWEST_EVALUATED_AT_ONCE = 250


def evaluated_at_once(batch_size: int) -> int:
    """Return how many images of a split a network is evaluated on at once."""
    return max(batch_size, FEWEST_EVALUATED_AT_ONCE)


def make_batches(
    split: Split, data: ImageData, recipe: Recipe, setup: Setup, seed: int, train: bool
) -> Batches:
    """Batches of a split, normalised as the recipe says; augmented and shuffled for training.

    In training each of several processes gets its part of every batch.
    """
    mean, std = CONSTANTS.get(recipe.normalize, (data.mean, data.std))
    return Batches(
        split,
        recipe.batch_size if train else evaluated_at_once(recipe.batch_size),
        mean=mean,
        std=std,
        device=setup.device,
        memory_format=setup.memory_format,
        image_size=data.image_size,
        augmentation=_augmentation(recipe) if train else NONE,
        shuffle=train,
        drop_last=train and recipe.drop_last,
        seed=seed,
        rank=setup.rank if train else 0,
        world_size=setup.world_size if train else 1,
    )


def _augmentation(recipe: Recipe) -> Augmentation:
    return Augmentation(
        recipe.random_resized_crop,
        recipe.crop_padding,
        recipe.flip,
        recipe.trivial_augment,
        recipe.cutout,
        recipe.random_erasing,
    )
