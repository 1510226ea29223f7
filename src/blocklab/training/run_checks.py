"""What is looked at before a run is trained: whether its parts fit each other and the machine."""

from collections.abc import Sequence
from typing import Any

from blocklab.blocks.protocol import mixed_by
from blocklab.data.image_data import ImageData
from blocklab.data.normalisation import CONSTANTS, normalised_by
from blocklab.errors import InputError
from blocklab.measure.cost import Cost, cost
from blocklab.measure.footprint import Footprint, footprint
from blocklab.models.spec import ModelSpec
from blocklab.models.timm_models import check_logits
from blocklab.training.batches import evaluated_at_once
from blocklab.training.device import available_cores
from blocklab.training.freezing import check_rates
from blocklab.training.optimizer import check_optimizer
from blocklab.training.recipe import Recipe
from blocklab.training.run_definition import RunDefinition


def check_batches_fill(recipe: Recipe, data: ImageData) -> None:
    """Check that images make whole batches and survive their augmentation, before any training.

    Raises:
        InputError: if they do not.
    """
    side = data.image_size
    for name, value, most in (
        ("cutout", recipe.cutout, 2 * side - 1),  # from twice the side on nothing is left
        ("crop_padding", recipe.crop_padding, side),
    ):
        if value > most:
            raise InputError(
                f"{name} {value} is more than images of {side} pixels a side can take; set at most "
                f"{most}"
            )
    if recipe.drop_last and len(data.train) < recipe.batch_size:
        raise InputError(
            f"{len(data.train)} training images do not fill one batch of {recipe.batch_size}; "
            f"set batch_size={min(len(data.train), 32)} or use more images"
        )
    if not recipe.drop_last and len(data.train) % recipe.batch_size == 1:
        raise InputError(
            f"{len(data.train)} images leave a last batch of one, which BatchNorm cannot train on; "
            "set drop_last=true or another batch_size"
        )


def check_no_lone_image(definition: RunDefinition, data: ImageData) -> None:
    """Check that a network which mixes the images of a batch is never evaluated on one alone.

    Raises:
        InputError: if its run would train to the end, and could not be evaluated.
    """
    at_once = evaluated_at_once(definition.recipe.batch_size)
    splits = {"training": data.train, "validation": data.validation, "test": data.test}
    lone = [name for name, split in splits.items() if len(split) % at_once == 1]
    if not lone:
        return
    network = definition.model.build_meta(len(data.class_names), input_size=data.image_size)
    if said := mixed_by(network):
        count = len(splits[lone[0]])
        raise InputError(
            f"{count:,} {lone[0]} images, evaluated {at_once} at once, leave one alone at last, "
            f"and this network mixes those of a batch ({said}); use one image fewer, or a "
            f"batch_size above {at_once}"
        )


def count(model: ModelSpec, classes: int, image_size: int) -> tuple[Cost, Footprint]:
    """Count what a model costs and what it takes of memory; nothing is computed.

    Raises:
        InputError: if the network cannot take images of that size.
    """
    network = model.build_meta(classes, input_size=image_size)
    check_logits(network, image_size, classes)
    return cost(network, image_size), footprint(network.train(), image_size)


def check_start(definition: RunDefinition, classes: int, image_size: int) -> None:
    """Check what a run starts from, which of its weights it trains, and by what, before it does.

    Raises:
        InputError: if the weights do not fit the network, it has not the parts that the recipe
            names, or the optimizer is none.
        RunError: if the weights cannot be downloaded.
    """
    recipe = definition.recipe
    check_optimizer(recipe)
    rated = recipe.freeze or recipe.head_lr is not None or recipe.layer_decay is not None
    if not rated and definition.pretrained is None:
        return
    network = definition.model.build_meta(classes, input_size=image_size)
    check_rates(network, recipe)
    if definition.pretrained is not None:
        definition.pretrained.check(network)


def normalisation_warning(definition: RunDefinition, data: ImageData) -> str | None:
    """Say where weights to start from were trained on images normalised otherwise than these are.

    Raises:
        InputError: if the weights are not there.
        RunError: if they cannot be downloaded.
    """
    known = None if definition.pretrained is None else definition.pretrained.normalisation()
    if known is None:
        return None
    given = normalised_by(definition.recipe.normalize, data.mean, data.std)
    if _is_close(known, given):
        return None
    choices = {**CONSTANTS, "dataset": (data.mean, data.std)}
    named = next((name for name, one in choices.items() if _is_close(known, one)), None)
    remedy = f"set normalize: {named}" if named else "no `normalize` of a recipe does that"
    return (
        f"the weights were trained on images normalised {_said(*known)}, and these are "
        f"{_said(*given)}; {remedy}"
    )


def _is_close(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    """Whether the same image comes out much the same: what two splits of a data set differ by."""
    (mean, std), (other_mean, other_std) = one, other
    return all(
        abs(a - b) < 0.1 * d and 0.9 < c / d < 1.1
        for a, c, b, d in zip(mean, std, other_mean, other_std, strict=True)
    )


def _said(mean: Sequence[float], std: Sequence[float]) -> str:
    by, sd = (", ".join(f"{value:.3g}" for value in values) for values in (mean, std))
    return f"by mean {by} and SD {sd}"


def training_memory(taken: Footprint, recipe: Recipe, train_images: int) -> int:
    """Estimate the bytes of memory that training takes on a CPU."""
    copies = 4 + (recipe.ema_decay is not None)
    at_once = -(-min(recipe.batch_size, train_images) // recipe.accumulate)
    return taken.training_bytes(at_once, copies)


def check_threads(threads: int | None) -> None:
    """Check a number of threads that someone asked for.

    Raises:
        InputError: if this machine has fewer cores; many more would bring it to a halt.
    """
    cores = available_cores()
    if threads is not None and not 1 <= threads <= cores:
        raise InputError(
            f"this machine has {cores} cores, not {threads}: set --threads from 1 to {cores}"
        )
