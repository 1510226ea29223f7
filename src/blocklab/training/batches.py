"""A split's batches as a recipe wants them."""

from blocklab.data.augmentation import NONE, Augmentation
from blocklab.data.image_data import ImageData
from blocklab.data.loader import Batches
from blocklab.data.normalisation import normalised_by
from blocklab.data.split import Split
from blocklab.training.device import Setup
from blocklab.training.recipe import Recipe

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
    mean, std = normalised_by(recipe.normalize, data.mean, data.std)
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
