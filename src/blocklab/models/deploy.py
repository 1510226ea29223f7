"""The form of a network for use: kernels merged, BatchNorm folded, what training needs left out.

What may be merged and folded is declared, never guessed: by the methods ``merge()`` and
``fold_norms()`` of a part's class (see `blocklab.blocks.protocol`). A part that declares nothing
stays as it is.
"""

import copy
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from blocklab.blocks.folding import (
    DROPS,
    convolution_obstacle,
    drop,
    drop_obstacle,
    is_norm,
    set_convolution,
)
from blocklab.blocks.obstacles import keep, looking_at
from blocklab.blocks.plugins import plugin_errors
from blocklab.blocks.protocol import fold_parts, merge_parts
from blocklab.errors import InputError, error_line
from blocklab.kernels.depthwise import DepthwiseConv2d, cut_to_live_taps
from blocklab.models.probe import ImageSize, maps_met, plain_size, size_text

_NAMED = 3  # of the parts that stay for one reason, how many a line names


@dataclass(frozen=True)
class DeployReport:
    """What `deploy` did, by the training form's names."""

    merged: tuple[str, ...]  # parts in their merged form, such as large kernels
    folded: tuple[str, ...]  # BatchNorms and layer scales that are now part of convolutions
    dropped: tuple[str, ...]  # stochastic depth and dropout
    cut: tuple[str, ...]  # kernels cut to the taps that meet their maps
    kept: Mapping[str, str]  # norms, and whatever else might have gone, that remain; and why
    input_size: ImageSize | None  # the largest images that the kernels were cut for

    def __str__(self) -> str:
        parts = [
            f"kernels merged: {len(self.merged)}",
            f"norms and scales folded: {len(self.folded)}",
            f"drops left out: {len(self.dropped)}",
        ]
        if self.input_size is not None:
            parts.append(
                f"kernels cut for images up to {size_text(self.input_size)}: {len(self.cut)}"
            )
        return ", ".join([*parts, f"kept: {len(self.kept)}{self._why_kept()}"])

    def _why_kept(self) -> str:
        reasons: dict[str, list[str]] = {}
        for name, why in self.kept.items():
            reasons.setdefault(why, []).append(name or "the network")
        told = []
        for why, names in reasons.items():
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            told.append(f"{', '.join(names[:_NAMED])}{more}: {why}")
        return f" ({'; '.join(told)})" if told else ""


@plugin_errors()
def deploy(model: nn.Module, input_size: ImageSize | None = None) -> nn.Module:
    """Return a copy for use, in evaluation mode: merged, folded, the same outputs to rounding.

    Args:
        model: the network; it stays as it is. One that blocklab did not build is copied, and only
            parts that say so are merged or folded.
        input_size: of the largest images to come (a side, or height and width): kernels are cut to
            the taps that can meet their maps. The copy refuses larger ones.

    Returns:
        The copy, without gradients; its ``deploy_report`` says what was done.

    Raises:
        InputError: if it is no module, or an image of this size does not pass.
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            f"deploy takes a network, not a {type(model).__name__}; create_model('resnet18') is one"
        )
    deployed = copy_of(model).eval()
    before = dict(deployed.named_modules())
    unmerged = deployed.state_dict().keys()
    with looking_at(deployed) as kept:
        asked = merge_parts(deployed)
        gone = unmerged - deployed.state_dict().keys()
        unfolded = tuple(name for name, _ in deployed.named_parameters())
        deployed = fold_parts(deployed)
        with torch.no_grad():
            _drop(deployed)
            cut = () if input_size is None else _cut(deployed, input_size)
    merged = _merged(asked, gone)
    after = dict(deployed.named_modules())
    norms = [name for name, module in before.items() if is_norm(module)]
    left = {name for name, _ in deployed.named_parameters()}
    scales = (  # what parts had themselves and have no more
        name
        for name, owner in ((name, name.rpartition(".")[0]) for name in unfolded)
        if name not in left and owner in after and owner not in norms
    )
    folded = (*(name for name in norms if after.get(name) is not before[name]), *scales)
    dropped = tuple(
        name
        for name, module in before.items()
        if type(module) in DROPS and type(after.get(name)) is not type(module)
    )
    deployed.requires_grad_(False)
    deployed.deploy_report = DeployReport(  # type: ignore[assignment]
        merged,
        folded,
        dropped,
        cut,
        _why_kept(after, kept),
        None if input_size is None else plain_size(input_size),
    )
    return deployed


def merge(model: nn.Module) -> nn.Module:
    """Return a copy whose kernels are merged and nothing else: other tensors keep their names.

    Its ``deploy_report`` says what was done.
    """
    copied = copy_of(model)
    before = copied.state_dict().keys()
    with looking_at(copied) as kept:
        merged = _merged(merge_parts(copied), before - copied.state_dict().keys())
    names = {name: kept[part] for name, part in copied.named_modules() if part in kept}
    copied.deploy_report = DeployReport(  # type: ignore[assignment]
        merged, (), (), (), names, None
    )
    return copied


def _merged(asked: Iterable[str], gone: Collection[str]) -> tuple[str, ...]:
    """Of the parts that were asked to merge those that lost tensors: not what was merged before."""
    return tuple(
        part for part in asked if any(name.startswith(f"{part}." if part else "") for name in gone)
    )


def copy_of(model: nn.Module, device: torch.device | str | None = None) -> nn.Module:
    """Return a copy of a network, on `device` where one is said: then none is made where it is.

    Raises:
        InputError: if it holds what cannot be copied.
    """
    try:
        return copy.deepcopy(model, _copied_to(model, device) if device else {})
    except (RuntimeError, TypeError) as error:  # results that are kept, locks, open files
        raise InputError(
            f"the network cannot be copied ({error_line(error)}); take out what it keeps besides "
            "its parameters and buffers"
        ) from None


def _copied_to(model: nn.Module, device: torch.device | str) -> dict[int, Any]:
    """Return a network's parameters and buffers on a device, as `copy.deepcopy` remembers them."""
    found: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        if is_lazy(tensor):  # of a layer that has not seen a map yet: no memory
            continue
        moved = tensor.detach().to(device, copy=True)
        if isinstance(tensor, nn.Parameter):
            moved = nn.Parameter(moved, tensor.requires_grad)
        found[id(tensor)] = moved
    return found


def _why_kept(parts: Mapping[str, nn.Module], kept: Mapping[nn.Module, str]) -> dict[str, str]:
    """Name what remained of the parts that might have gone, each with the reason.

    Of a norm that nobody spoke of it is the reason of the nearest part above it that was not asked.
    """
    found = {}
    for name, part in parts.items():
        if part in kept and not isinstance(part, nn.Identity):
            found[name] = kept[part]
        elif is_norm(part):
            above = name
            while above and parts.get(above) not in kept:
                above = above.rpartition(".")[0]
            found[name] = kept.get(parts[above], "no fold_norms() takes it")
    return found


def _drop(model: nn.Module) -> None:
    """Leave stochastic depth and dropout out of blocklab's own parts."""
    for name, module in list(model.named_modules()):
        owner_name, _, child = name.rpartition(".")
        owner = model.get_submodule(owner_name)
        if not (isinstance(module, DROPS) and type(owner).__module__.startswith("blocklab.")):
            continue
        if why := drop_obstacle(owner, child):
            keep(module, why)
        else:
            drop(model, name)


def _cut(model: nn.Module, input_size: ImageSize) -> tuple[str, ...]:
    """Cut depth-wise kernels to the taps that meet their maps in an image of this size."""
    maps: dict[str, tuple[int, int]] = {}  # the largest that each meets
    for name, _, size in maps_met(model, input_size, DepthwiseConv2d):
        rows, columns = maps.get(name, (0, 0))
        maps[name] = max(rows, size[0]), max(columns, size[1])
    cut = []
    for name, module in list(model.named_modules()):
        owner, _, child = name.rpartition(".")
        if not isinstance(module, DepthwiseConv2d) or not child or name not in maps:
            continue
        if why := convolution_obstacle(model.get_submodule(owner), child):
            keep(module, why)
            continue
        if module.kernel_size[0] != module.kernel_size[1]:  # which are small
            continue
        weight = cut_to_live_taps(module.weight, module.dilation[0], *maps[name])
        if max(weight.shape[2:]) == max(module.weight.shape[2:]):
            continue
        # As far as the longer side of the map needs it; a narrow kernel stays as narrow.
        taps, size = max(weight.shape[2:]), maps[name]
        height, width = (min(side, taps) for side in module.weight.shape[2:])
        top, left = (module.weight.shape[2] - height) // 2, (module.weight.shape[3] - width) // 2
        kernel = module.weight[:, :, top : top + height, left : left + width]
        new = DepthwiseConv2d(
            module.out_channels, (height, width), module.dilation[0], module.bias is not None
        ).to(kernel)
        bias = torch.zeros(len(kernel)).to(kernel) if module.bias is None else module.bias
        set_convolution(new, kernel, bias)
        new.algorithm, new.largest_map = module.algorithm, size
        setattr(model.get_submodule(owner), child, new.eval())
        cut.append(name)
    return tuple(cut)
