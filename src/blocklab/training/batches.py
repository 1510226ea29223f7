"""A split's batches as a recipe wants them."""

from blocklab.data.image_data import ImageData
from blocklab.data.loader import Augmentation, Batches
from blocklab.data.split import Split
from blocklab.training.device import Setup
from blocklab.training.recipe import Recipe

HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
FEWEST_EVALUATED_AT_ONCE = 250


def make_batches(
    split: Split, data: ImageData, recipe: Recipe, setup: Setup, seed: int, train: bool
) -> Batches:
    """Batches of a split, normalised as the recipe says; augmented and shuffled for training.

    In training each of several processes gets its part of every batch.
    """
    mean, std = HALF if recipe.normalize == "half" else (data.mean, data.std)
    return Batches(
        split,
        recipe.batch_size if train else max(recipe.batch_size, FEWEST_EVALUATED_AT_ONCE),
        mean=mean,
        std=std,
        device=setup.device,
        memory_format=setup.memory_format,
        augmentation=Augmentation(recipe.crop_padding, recipe.flip, recipe.cutout)
        if train
        else Augmentation(),
        shuffle=train,
        drop_last=train and recipe.drop_last,
        seed=seed,
        rank=setup.rank if train else 0,
        world_size=setup.world_size if train else 1,
    )
