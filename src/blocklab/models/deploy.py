"""The form of a network for use: kernels merged, BatchNorm folded, what training needs left out.

What may be merged and folded is declared, never guessed: by the methods ``merge()`` and
``fold_norms()`` of a part's class (see `blocklab.blocks.protocol`). A part that declares nothing
stays as it is.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from blocklab.blocks.folding import drop, set_convolution
from blocklab.blocks.plugins import plugin_errors
from blocklab.blocks.protocol import fold_parts, merge_parts, smallest_batch
from blocklab.errors import InputError
from blocklab.kernels.depthwise import DepthwiseConv2d, live_taps


@dataclass(frozen=True)
class DeployReport:
    """What `deploy` did, by the training form's names."""

    merged: tuple[str, ...]  # parts in their merged form, such as large kernels
    folded: tuple[str, ...]  # BatchNorms and layer scales that are now part of convolutions
    dropped: tuple[str, ...]  # stochastic depth and dropout
    cut: tuple[str, ...]  # kernels cut to the taps that meet their maps
    kept: tuple[str, ...]  # BatchNorms that remain
    input_size: int | None  # the largest images that the kernels were cut for

    def __str__(self) -> str:
        parts = [
            f"kernels merged: {len(self.merged)}",
            f"norms and scales folded: {len(self.folded)}",
            f"drops left out: {len(self.dropped)}",
        ]
        if self.input_size is not None:
            parts.append(f"kernels cut for images up to {self.input_size}: {len(self.cut)}")
        return ", ".join([*parts, f"norms kept: {len(self.kept)}"])


@plugin_errors()
def deploy(model: nn.Module, input_size: int | None = None) -> nn.Module:
    """Return a copy for use, in evaluation mode: merged, folded, the same outputs to rounding.

    Args:
        model: the network; it stays as it is. One that blocklab did not build is copied, and only
            parts that say so are merged or folded.
        input_size: side of the largest images to come: kernels are cut to the taps that can meet
            their maps. The copy refuses larger ones.

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
        merged, folded, dropped, cut, kept, input_size
    )
    return deployed


_DROPS = (DropPath, nn.Dropout, nn.Dropout2d)


def _drop(model: nn.Module) -> None:
    """Leave stochastic depth and dropout out of blocklab's own parts."""
    for name, module in list(model.named_modules()):
        owner = model.get_submodule(name.rpartition(".")[0])
        if type(module) in _DROPS and type(owner).__module__.startswith("blocklab."):
            drop(model, name)


def _cut(model: nn.Module, input_size: int) -> tuple[str, ...]:
    """Cut depth-wise kernels to the taps that meet their maps in an image of this size."""
    if not isinstance(input_size, int) or isinstance(input_size, bool) or input_size < 1:
        raise InputError(f"input_size must be a positive number of pixels, not {input_size!r}")
    maps = _largest_maps(model, input_size)
    cut = []
    for name, module in list(model.named_modules()):
        if type(module) is not DepthwiseConv2d or name not in maps:
            continue
        weight = live_taps(module.weight, module.dilation[0], *maps[name])
        if weight.shape == module.weight.shape:
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


def _largest_maps(model: nn.Module, input_size: int) -> dict[str, tuple[int, int]]:
    maps: dict[str, tuple[int, int]] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            height, width = maps.get(name, (0, 0))
            maps[name] = max(height, inputs[0].shape[2]), max(width, inputs[0].shape[3])

        return hook

    hooks = [
        module.register_forward_pre_hook(note(name))
        for name, module in model.named_modules()
        if type(module) is DepthwiseConv2d
    ]
    reference = next(model.parameters(), torch.empty(0))
    images = torch.zeros(
        smallest_batch(model),
        getattr(model, "in_chans", 3),
        input_size,
        input_size,
        device=reference.device,
        dtype=reference.dtype,
    )
    try:
        model(images)
    except InputError:
        raise
    except RuntimeError as error:
        raise InputError(
            f"the network cannot take images of {input_size}x{input_size} "
            f"({str(error).splitlines()[0]}); choose another input_size"
        ) from None
    finally:
        for hook in hooks:
            hook.remove()
    return maps
