"""The form of a network for use: kernels merged, BatchNorm folded, what training needs left out.

What may be merged and folded is declared, never guessed: by the methods ``merge()`` and
``fold_norms()`` of a part's class (see `blocklab.blocks.protocol`). A part that declares nothing
stays as it is.
"""

import copy
from dataclasses import dataclass

import torch
from timm.layers import DropPath
from torch import nn

from blocklab.blocks.folding import drop, set_convolution
from blocklab.blocks.plugins import plugin_errors
from blocklab.blocks.protocol import fold_parts, merge_parts
from blocklab.errors import InputError
from blocklab.kernels.depthwise import DepthwiseConv2d, cut_to_live_taps
from blocklab.models.probe import ImageSize, maps_met, plain_size, size_text


@dataclass(frozen=True)
class DeployReport:
    """What `deploy` did, by the training form's names."""

    merged: tuple[str, ...]  # parts in their merged form, such as large kernels
    folded: tuple[str, ...]  # BatchNorms and layer scales that are now part of convolutions
    dropped: tuple[str, ...]  # stochastic depth and dropout
    cut: tuple[str, ...]  # kernels cut to the taps that meet their maps
    kept: tuple[str, ...]  # BatchNorms that remain
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
        return ", ".join([*parts, f"norms kept: {len(self.kept)}"])


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
    deployed = copy.deepcopy(model).eval()
    before = dict(deployed.named_modules())
    unmerged = deployed.state_dict().keys()
    asked = merge_parts(deployed)
    gone = unmerged - deployed.state_dict().keys()
    # One that had been merged before has lost nothing.
    merged = tuple(
        part for part in asked if any(name.startswith(f"{part}." if part else "") for name in gone)
    )
    unfolded = tuple(name for name, _ in deployed.named_parameters())
    deployed = fold_parts(deployed)
    with torch.no_grad():
        _drop(deployed)
        cut = () if input_size is None else _cut(deployed, input_size)
    after = dict(deployed.named_modules())
    norms = [name for name, module in before.items() if isinstance(module, nn.BatchNorm2d)]
    kept = tuple(name for name in norms if isinstance(after.get(name), nn.BatchNorm2d))
    left = {name for name, _ in deployed.named_parameters()}
    scales = (  # what parts had themselves and have no more
        name
        for name, owner in ((name, name.rpartition(".")[0]) for name in unfolded)
        if name not in left and owner in after and owner not in norms
    )
    folded = (*(name for name in norms if name not in kept), *scales)
    dropped = tuple(
        name
        for name, module in before.items()
        if type(module) in _DROPS and type(after.get(name)) is not type(module)
    )
    deployed.requires_grad_(False)
    deployed.deploy_report = DeployReport(  # type: ignore[assignment]
        merged,
        folded,
        dropped,
        cut,
        kept,
        None if input_size is None else plain_size(input_size),
    )
    return deployed


_DROPS = (DropPath, nn.Dropout, nn.Dropout2d)


def _drop(model: nn.Module) -> None:
    """Leave stochastic depth and dropout out of blocklab's own parts."""
    for name, module in list(model.named_modules()):
        owner = model.get_submodule(name.rpartition(".")[0])
        if type(module) in _DROPS and type(owner).__module__.startswith("blocklab."):
            drop(model, name)


def _cut(model: nn.Module, input_size: ImageSize) -> tuple[str, ...]:
    """Cut depth-wise kernels to the taps that meet their maps in an image of this size."""
    maps: dict[str, tuple[int, int]] = {}  # the largest that each meets
    for name, _, size in maps_met(model, input_size, DepthwiseConv2d):
        rows, columns = maps.get(name, (0, 0))
        maps[name] = max(rows, size[0]), max(columns, size[1])
    cut = []
    for name, module in list(model.named_modules()):
        if type(module) is not DepthwiseConv2d or name not in maps:
            continue
        weight = cut_to_live_taps(module.weight, module.dilation[0], *maps[name])
        if max(weight.shape[2:]) == module.weight.shape[2]:  # as one side of the map needs it
            continue
        taps, size = max(weight.shape[2:]), maps[name]
        margin = (module.weight.shape[2] - taps) // 2
        kernel = module.weight[:, :, margin : margin + taps, margin : margin + taps]
        new = DepthwiseConv2d(
            module.out_channels, taps, module.dilation[0], module.bias is not None
        ).to(kernel)
        bias = torch.zeros(len(kernel)).to(kernel) if module.bias is None else module.bias
        set_convolution(new, kernel, bias)
        new.algorithm, new.largest_map = module.algorithm, size
        owner, _, child = name.rpartition(".")
        setattr(model.get_submodule(owner), child, new.eval())
        cut.append(name)
    return tuple(cut)
