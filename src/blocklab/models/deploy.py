"""The form of a network for use: kernels merged, BatchNorm folded, what training needs left out.

What may be folded is declared, never guessed: a block's class has a method ``fold_norms()`` (see
`blocklab.blocks.folding`), and the backbones' own parts are listed here. A part that declares
nothing, such as a user's block, stays as it is.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from blocklab.backbones import replknet, resnet, van
from blocklab.blocks.folding import (
    drop,
    fold,
    fold_before,
    is_plain_convolution,
    is_plain_norm,
    is_pointwise,
    scale_and_shift,
    set_convolution,
)
from blocklab.blocks.reparam_large_kernel import ReparamLargeKernelConv
from blocklab.blocks.sample_mixing import smallest_batch
from blocklab.errors import InputError
from blocklab.kernels.depthwise import DepthwiseConv2d, live_taps

Module = nn.Module


@dataclass(frozen=True)
class DeployReport:
    """What `deploy` did, by the training form's names."""

    merged: tuple[str, ...]  # large kernels made one with the small ones beside them
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


def deploy(model: nn.Module, input_size: int | None = None) -> nn.Module:
    """Return a copy for use, in evaluation mode: merged, folded, the same outputs to rounding.

    Args:
        model: the network; it stays as it is. One that blocklab did not build is copied, and only
            blocklab's blocks in it are folded.
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
    with torch.no_grad():
        merged = _merge(deployed)
        _fold(deployed)
        _drop(deployed)
        cut = () if input_size is None else _cut(deployed, input_size)
    after = dict(deployed.named_modules())
    norms = [name for name, module in before.items() if isinstance(module, nn.BatchNorm2d)]
    kept = tuple(name for name in norms if isinstance(after.get(name), nn.BatchNorm2d))
    dropped = tuple(
        name
        for name, module in before.items()
        if type(module) in _DROPS and type(after.get(name)) is not type(module)
    )
    scales = (
        f"{name}.{scale}"
        for name, module in before.items()
        if isinstance(module, van.Block) and type(after[name]) is _DeployedVANBlock
        for scale in ("layer_scale_1", "layer_scale_2")
    )
    folded = (*(name for name in norms if name not in kept), *scales)
    deployed.requires_grad_(False)
    deployed.deploy_report = DeployReport(  # type: ignore[assignment]
        merged, folded, dropped, cut, kept, input_size
    )
    return deployed


def _merge(model: Module) -> tuple[str, ...]:
    names = []
    for name, module in model.named_modules():
        if type(module) is ReparamLargeKernelConv and module.lkb_origin is not None:
            module.merge()
            names.append(name)
    return tuple(names)


def _fold(model: Module) -> None:
    # Inner parts come last: what is around them may be replaced, the parts themselves go on.
    for name, module in list(model.named_modules()):
        if type(module) is van.Block:
            replacement = _DeployedVANBlock.of(module)
            if replacement is not None:
                owner, _, child = name.rpartition(".")
                setattr(model.get_submodule(owner), child, replacement)
        if (rule := _RULES.get(type(module))) is not None:
            rule(module)
        elif _declares_folds(type(module)):
            module.fold_norms()  # type: ignore[operator]


def _declares_folds(cls: type[Module]) -> bool:
    """Whether a class says what folds, and computes as the class that says so."""
    for base in cls.__mro__:
        if "fold_norms" in vars(base):
            return True
        if "forward" in vars(base):
            return False
    return False


def _basic_block(block: Module) -> None:
    fold(block, "conv1", "bn1")
    fold(block, "conv2", "bn2")
    _shortcut(block)


def _bottleneck(block: Module) -> None:
    for number in (1, 2, 3):
        fold(block, f"conv{number}", f"bn{number}")
    _shortcut(block)


def _shortcut(block: Module) -> None:
    shortcut = getattr(block, "downsample", None)
    if type(shortcut) is nn.Sequential:  # (pool,) convolution, norm
        fold(block, f"downsample.{len(shortcut) - 2}", f"downsample.{len(shortcut) - 1}")


def _resnet(model: Module) -> None:
    stem = model.get_submodule("conv1")
    if type(stem) is nn.Sequential:
        fold(stem, "0", "1")
        fold(stem, "3", "4")
        fold(model, "conv1.6", "bn1")
    else:
        fold(model, "conv1", "bn1")


_RULES: dict[type[Module], Callable[[Any], object]] = {
    resnet.ResNet: _resnet,
    resnet.BasicBlock: _basic_block,
    resnet.Bottleneck: _bottleneck,
    van.PatchEmbed: lambda embedding: fold(embedding, "proj", "norm"),
    replknet._ConvNormAct: lambda part: fold(part, "conv", "bn"),
}


class _DeployedVANBlock(nn.Module):
    """VAN's block with both norms and both layer scales in its 1x1 convolutions: same outputs.

    The attention's shortcut passes the norm, too: x + s (bn(x) + f(bn(x))) is, a channel at a
    time, ``skip`` * x + f'(x) with skip = 1 + s * the norm's scale.
    """

    skip: Tensor

    def __init__(self, attention: van.Attention, feed_forward: van.FFN, skip: Tensor) -> None:
        super().__init__()
        self.attn = attention
        self.mlp = feed_forward
        self.register_buffer("skip", skip)

    @classmethod
    def of(cls, block: van.Block) -> "_DeployedVANBlock | None":
        """Fold a block in place and take its parts; None where something stands in the way."""
        attention, feed_forward = block.attn, block.mlp
        foldable = (
            type(attention) is van.Attention
            and type(feed_forward) is van.FFN
            and all(is_plain_norm(norm) for norm in (block.norm1, block.norm2))
            and all(is_pointwise(part) for part in (attention.proj_1, feed_forward.fc1))
            and all(is_plain_convolution(part) for part in (attention.proj_2, feed_forward.fc2))
        )
        if not foldable:
            return None
        scale, shift = scale_and_shift(block.norm1)
        first, second = block.layer_scale_1.double(), block.layer_scale_2.double()
        skip = (1 + first * scale)[:, None, None].to(block.layer_scale_1.dtype)
        fold_before(block, "norm1", "attn.proj_1")
        fold_before(block, "norm2", "mlp.fc1")
        _scale_outputs(attention.proj_2, first, shift)
        _scale_outputs(feed_forward.fc2, second, torch.zeros_like(shift))
        return cls(attention, feed_forward, skip)

    def forward(self, x: Tensor) -> Tensor:
        attention = self.attn
        gated = attention.spatial_gating_unit(attention.activation(attention.proj_1(x)))
        x = torch.addcmul(attention.proj_2(gated), x, self.skip)
        return x + self.mlp(x)


def _scale_outputs(conv: nn.Conv2d, scale: Tensor, shift: Tensor) -> None:
    """Let a convolution give scale * (what it gives + shift)."""
    bias = shift if conv.bias is None else conv.bias.double() + shift
    set_convolution(conv, conv.weight.double() * scale[:, None, None, None], bias * scale)


_DROPS = (DropPath, nn.Dropout, nn.Dropout2d)


def _drop(model: Module) -> None:
    """Leave stochastic depth and dropout out of blocklab's own parts."""
    for name, module in list(model.named_modules()):
        owner = model.get_submodule(name.rpartition(".")[0])
        if type(module) in _DROPS and type(owner).__module__.startswith("blocklab."):
            drop(model, name)


def _cut(model: Module, input_size: int) -> tuple[str, ...]:
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


def _largest_maps(model: Module, input_size: int) -> dict[str, tuple[int, int]]:
    maps: dict[str, tuple[int, int]] = {}

    def note(name: str) -> Callable[[Module, tuple[Tensor, ...]], None]:
        def hook(module: Module, inputs: tuple[Tensor, ...]) -> None:
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
