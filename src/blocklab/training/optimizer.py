"""The recipe's optimizer, from timm's registry, in PyTorch's fused form where there is one."""

import inspect
from typing import Any

import torch
from timm.optim import OptimInfo, create_optimizer_v2, get_optimizer_info, list_optimizers
from torch import nn

from blocklab.errors import InputError, did_you_mean, error_line
from blocklab.training.freezing import rate_scales
from blocklab.training.recipe import Recipe

LOOKAHEAD = "lookahead"  # before a name, as lookahead_adamw: the one such word that timm knows
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def check_optimizer(recipe: Recipe) -> OptimInfo:
    """Return what timm knows of a recipe's optimizer.

    Raises:
        InputError: for one that timm does not know, that the loop cannot drive, or that has no use
            for the recipe's momentum.
    """
    before, _, name = recipe.optimizer.lower().rpartition("_")
    try:
        if before not in ("", LOOKAHEAD):  # timm would train without it, and say nothing
            raise ValueError
        info = get_optimizer_info(name)
    except ValueError:
        raise InputError(_unknown(recipe.optimizer)) from None
    if info.second_order:
        raise InputError(f"optimizer '{recipe.optimizer}' needs second derivatives; take adamw")
    unheeded = not info.has_momentum and _usual_betas(info) is None
    if unheeded and recipe.momentum != Recipe().momentum:
        raise InputError(
            f"momentum does not reach optimizer '{recipe.optimizer}', which has none or rates of "
            "its own; leave momentum out"
        )
    return info


def make_optimizer(model: nn.Module, recipe: Recipe, device: torch.device) -> torch.optim.Optimizer:
    """Make the optimizer of a model; its weight decay leaves out norms and biases if asked to.

    Raises:
        InputError: for an optimizer that timm does not know, that is not installed, or that the
            loop cannot drive.
    """
    info = check_optimizer(recipe)
    taken, usual_betas = _taken(info), _usual_betas(info)
    extra: dict[str, Any] = {}
    if usual_betas is not None:
        extra["betas"] = (recipe.momentum, usual_betas[1])
    if "fused" in taken and device.type in ("cpu", "cuda", "mps"):
        # One kernel for all parameters: on a CPU 2 to 4 times as fast as a loop over them.
        extra["fused"] = True
        if "capturable" in taken and device.type == "cuda":
            extra["capturable"] = True  # its count of steps is on the device, for CUDA graphs
    groups = _groups(model, recipe)
    try:
        return create_optimizer_v2(
            model,
            opt=recipe.optimizer,
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            param_group_fn=lambda model: groups,
            **extra,
        )
    except Exception as error:  # each optimizer refuses in its own way
        raise InputError(
            f"optimizer '{recipe.optimizer}' does not work here: {error_line(error, kind=False)}"
        ) from None


def _taken(info: OptimInfo) -> dict[str, inspect.Parameter]:
    """Return the arguments of an optimizer; none of one whose package may not be here."""
    if isinstance(info.opt_class, str):  # the name of another package's class
        return {}
    return dict(inspect.signature(info.opt_class.__init__).parameters)


def _usual_betas(info: OptimInfo) -> tuple[float, float] | None:
    """Return an optimizer's two rates of averaging, the first of which stands for momentum."""
    usual = getattr(_taken(info).get("betas"), "default", None)
    return usual if info.num_betas == 2 and isinstance(usual, tuple) else None


def _groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Part the parameters by whether they decay, and by their share of the learning rate.

    Decay goes by what they are, as a norm's weights may have the shape (C, 1, 1), and by what the
    network, as timm's, or a part of it says in ``no_weight_decay``. The share is
    ``lr_scale``, as timm calls it, where it is not 1.
    """
    left_out: set[int] = set()
    if not recipe.decay_norms_and_biases:
        named: set[str] = set(getattr(model, "no_weight_decay", set)())
        for owner, module in model.named_modules():
            own: Any = getattr(type(module), "no_weight_decay", None)
            if owner and own is not None:
                named |= {f"{owner}.{name}" for name in own(module)}
            for name, parameter in module.named_parameters(owner, recurse=False):
                plain = parameter.ndim <= 1 or name.endswith("bias") or name in named
                if plain or isinstance(module, NORMS):
                    left_out.add(id(parameter))
    scales = rate_scales(model, recipe)
    groups: dict[tuple[bool, float], dict[str, Any]] = {}
    for scale in sorted({1.0, *scales.values()}):
        for out in (True, False):
            group = {"params": [], "weight_decay": 0.0 if out else recipe.weight_decay}
            groups[out, scale] = group | ({} if scale == 1 else {"lr_scale": scale})
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[id(parameter) in left_out, scales.get(name, 1.0)]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


def _unknown(name: str) -> str:
    names = [str(known) for known in list_optimizers()]
    known = [*names, *(f"{LOOKAHEAD}_{one}" for one in names)]
    return (
        f"no optimizer '{name}'{did_you_mean(name, known) or '.'} Known, also after "
        f"'{LOOKAHEAD}_': {', '.join(names)}"
    )
