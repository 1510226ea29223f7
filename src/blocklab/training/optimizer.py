"""The recipe's optimizer, from timm's registry, in PyTorch's fused form where there is one."""

import inspect
from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_info
from torch import nn

from blocklab.errors import InputError, did_you_mean
from blocklab.training.recipe import Recipe


def make_optimizer(model: nn.Module, recipe: Recipe, device: torch.device) -> torch.optim.Optimizer:
    """Make the optimizer of a model; its weight decay leaves out norms and biases if asked to.

    Raises:
        InputError: for an optimizer that timm does not know, that is not installed, or that the
            loop cannot drive.
    """
    try:
        info = get_optimizer_info(recipe.optimizer.lower().split("_")[-1])
    except ValueError:
        raise InputError(_unknown(recipe.optimizer)) from None
    if info.second_order:
        raise InputError(f"optimizer '{recipe.optimizer}' needs second derivatives; take adamw")
    taken: dict[str, Any] = {}
    if not isinstance(info.opt_class, str):  # a string is the name of another package's class
        taken = dict(inspect.signature(info.opt_class.__init__).parameters)
    extra: dict[str, Any] = {}
    if info.has_betas and info.num_betas == 2 and isinstance(taken["betas"].default, tuple):
        extra["betas"] = (recipe.momentum, taken["betas"].default[1])
    if "fused" in taken and device.type in ("cpu", "cuda"):
        # One kernel for all parameters: on a CPU 2 to 4 times as fast as a loop over them. SGD's
        # bits are the same either way.
        extra["fused"] = True
    try:
        return create_optimizer_v2(
            model,
            opt=recipe.optimizer,
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            filter_bias_and_bn=not recipe.decay_norms_and_biases,
            **extra,
        )
    except Exception as error:  # each optimizer refuses in its own way
        said = " ".join(str(error).split())
        raise InputError(f"optimizer '{recipe.optimizer}' does not work here: {said}") from None


def _unknown(name: str) -> str:
    from timm.optim import list_optimizers

    known = [str(name) for name in list_optimizers()]
    return (
        f"no optimizer '{name}'{did_you_mean(name, known) or ';'} "
        "timm.optim.list_optimizers() lists them"
    )
