"""Which weights a recipe trains, and how fast each of them.

A frozen part keeps its weights and the statistics of its norms: it computes as in evaluation, so
that what stands behind it sees one function, whatever the batch (what timm's `freeze` does).
"""

from collections.abc import Mapping
from typing import cast

from timm.models import group_parameters
from torch import nn

from blocklab.errors import InputError
from blocklab.models.parts import BACKBONE, head_names, parameters_of
from blocklab.training.recipe import Recipe


def freeze(model: nn.Module, recipe: Recipe) -> tuple[nn.Module, ...]:
    """Freeze what a recipe says of a network; return the modules that stay in evaluation mode.

    Raises:
        InputError: for a part that the network has not, or if nothing is left to train.
    """
    if not recipe.freeze:
        return ()
    frozen = _frozen_names(model, recipe)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    inside = {
        name: {f"{name}.{p}" if name else p for p, _ in module.named_parameters()}
        for name, module in model.named_modules()
    }
    whole = [name for name, names in inside.items() if names and frozen.issuperset(names)]
    if BACKBONE in recipe.freeze:
        # Beside its parts stand dropout and norms without weights; behind its last, the head's.
        beside = [name for name, _ in model.named_children()]
        last = max((beside.index(name) for name in whole if name in beside), default=0)
        whole += [name for name in beside[:last] if not inside[name]]
    return tuple(map(model.get_submodule, whole))


def check_rates(model: nn.Module, recipe: Recipe) -> None:
    """Check that a network has the parts that a recipe freezes, and the layers that it decays.

    Raises:
        InputError: if it has not.
    """
    _frozen_names(model, recipe)
    rate_scales(model, recipe)


def _frozen_names(model: nn.Module, recipe: Recipe) -> set[str]:
    frozen = parameters_of(model, recipe.freeze)
    if frozen and frozen.issuperset(name for name, _ in model.named_parameters()):
        raise InputError(
            f"freeze {', '.join(recipe.freeze)} leaves nothing to train; leave out a part"
        )
    return frozen


def rate_scales(model: nn.Module, recipe: Recipe) -> Mapping[str, float]:
    """Return by what each parameter's learning rate is multiplied, by name, where not by 1.

    ``layer_decay`` d gives a layer that is n below the head d^n, as timm has it: the stem is the
    lowest layer, and what stands behind the last block goes with the head.

    Raises:
        InputError: for a network that does not tell its layers or its head.
    """
    scales: dict[str, float] = {}
    if recipe.layer_decay is not None:
        matcher = getattr(model, "group_matcher", None)
        if matcher is None:
            raise InputError("it does not tell its layers (group_matcher); leave out layer_decay")
        grouped = group_parameters(model, matcher(coarse=False), reverse=True)
        layers = cast(dict[str, int], grouped)
        last = max(layers.values())
        scales = {name: recipe.layer_decay ** (last - layer) for name, layer in layers.items()}
    if recipe.head_lr is not None:
        heads = tuple(f"{name}." for name in head_names(model))
        inside = [name for name, _ in model.named_parameters() if name.startswith(heads)]
        if not heads or not inside:
            raise InputError("it does not tell which layer is its head; leave out head_lr")
        scales |= dict.fromkeys(inside, recipe.head_lr / recipe.lr)
    return {name: scale for name, scale in scales.items() if scale != 1}
