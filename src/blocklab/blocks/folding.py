"""Folding BatchNorm and scales into convolutions, exactly, for evaluation.

A block says which of its parts follow each other by a method ``fold_norms()``, which
`blocklab.deploy` calls on a copy in evaluation mode. Nothing is folded that a class does not
declare, that others see (`blocklab.blocks.obstacles`), or whose computation a subclass replaced.
"""

from typing import Any

import torch
from timm.layers import DropPath, FrozenBatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import FrozenBatchNorm2d

from blocklab.blocks.obstacles import keep, obstacle
from blocklab.kernels.depthwise import DepthwiseConv2d
from blocklab.kernels.plane_convolution import PlaneConv2d
from blocklab.kernels.small_map import SmallMapConv2d
from blocklab.kernels.strided import StridedConv2d

_FORWARDS = tuple(
    kind.forward
    for kind in (nn.Conv2d, DepthwiseConv2d, PlaneConv2d, SmallMapConv2d, StridedConv2d)
)
# In evaluation all are scale * x + shift, from weight, bias, running_mean, running_var and eps.
_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)
DROPS = (DropPath, nn.Dropout, nn.Dropout2d)  # which do nothing in evaluation


def fold(parent: nn.Module, convolution: str, norm: str) -> bool:
    """Fold ``norm(convolution(x))`` into the convolution; the norm becomes the identity.

    The names are the parent's. Returns whether it was done: where either is not what it should be,
    or is seen by others, both stay.
    """
    conv, bn = parent.get_submodule(convolution), parent.get_submodule(norm)
    if why := convolution_obstacle(parent, convolution) or norm_obstacle(parent, norm):
        keep(bn, why)
        return False
    assert isinstance(conv, nn.Conv2d)
    scale, shift = scale_and_shift(bn)
    weight = exact(conv.weight) * scale[:, None, None, None]
    set_convolution(conv, weight, shift if conv.bias is None else exact(conv.bias) * scale + shift)
    drop(parent, norm)
    return True


def fold_before(parent: nn.Module, norm: str, convolution: str) -> bool:
    """Fold ``convolution(norm(x))`` into a convolution without padding or groups."""
    conv, bn = parent.get_submodule(convolution), parent.get_submodule(norm)
    why = convolution_obstacle(parent, convolution, unpadded=True) or norm_obstacle(parent, norm)
    if why:
        keep(bn, why)
        return False
    assert isinstance(conv, nn.Conv2d)
    scale, shift = scale_and_shift(bn)
    weight = exact(conv.weight)
    bias = weight.sum((2, 3)) @ shift
    if conv.bias is not None:
        bias = bias + exact(conv.bias)
    set_convolution(conv, weight * scale[:, None, None], bias)
    drop(parent, norm)
    return True


def exact(values: Tensor) -> Tensor:
    """Return values in float64; on the processor, where they are on a GPU that has none."""
    return (values.cpu() if values.device.type == "mps" else values).double()


def scale_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """What a plain norm does to each channel in evaluation mode, in float64: scale * x + shift."""
    mean, variance, weight, bias = (
        None if value is None else exact(value)
        for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    assert mean is not None and variance is not None
    scale = (variance + norm.eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale
    return scale, shift if bias is None else shift + bias


def set_convolution(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    """Give a convolution new weights, in its own precision and layout."""
    old = conv.weight
    layout = torch.contiguous_format
    if old.is_contiguous(memory_format=torch.channels_last):
        layout = torch.channels_last
    conv.weight = nn.Parameter(like(weight, old).contiguous(memory_format=layout))
    conv.bias = nn.Parameter(like(bias, old))


def like(values: Tensor, old: Tensor) -> Tensor:
    """Return exact values as others are: in their precision, on their device."""
    return values.detach().to(old.dtype).to(old.device)  # in this order: float64 stays behind


def drop(parent: nn.Module, name: str) -> None:
    """Put the identity in a part's place."""
    owner, _, child = name.rpartition(".")
    setattr(parent.get_submodule(owner), child, nn.Identity())


def convolution_obstacle(
    parent: nn.Module, name: str, pointwise: bool = False, unpadded: bool = False
) -> str:
    """Say why a part is no convolution to fold into; nothing where it is.

    It is to compute PyTorch's convolution and nothing else, where `unpadded` one without padding
    or groups, where `pointwise` a 1x1 one besides, and not to be seen by others.
    """
    conv = parent.get_submodule(name)
    if why := obstacle(parent, name):
        return why
    plain = (
        isinstance(conv, nn.Conv2d)
        and type(conv).forward in _FORWARDS
        and type(conv)._conv_forward is nn.Conv2d._conv_forward
        and isinstance(conv._parameters.get("weight"), nn.Parameter)
    )
    if not plain:
        return f"{name} computes in a way of its own ({type(conv).__name__})"
    assert isinstance(conv, nn.Conv2d)
    bare = conv.padding in ((0, 0), "valid") and conv.groups == 1
    if pointwise and not (bare and conv.kernel_size == (1, 1)):
        return f"{name} is no 1x1 convolution"
    return f"{name} has padding or groups" if unpadded and not bare else ""


def norm_obstacle(parent: nn.Module, name: str, evaluating: bool = True) -> str:
    """Say why a part is no norm with fixed statistics to fold; nothing where it is.

    That it is in evaluation mode is asked unless `evaluating` is false.
    """
    norm = parent.get_submodule(name)
    if why := obstacle(parent, name):
        return why
    if type(norm) not in _NORMS:
        return f"{name} computes in a way of its own ({type(norm).__name__})"
    if norm.running_mean is None or norm.running_var is None:
        return f"{name} tracks no statistics"
    trains = evaluating and norm.training and not isinstance(norm, FrozenBatchNorm2d)
    return f"{name} is in training mode" if trains else ""


def part_obstacle(parent: nn.Module, name: str, *kinds: type[nn.Module]) -> str:
    """Say why a part is not just one of these kinds, seen by no others; nothing where it is."""
    part = parent.get_submodule(name)
    why = obstacle(parent, name)
    if not why and type(part) not in kinds:
        return f"{name} is a {type(part).__name__}"
    return why


def drop_obstacle(parent: nn.Module, name: str) -> str:
    """Say why a part may not be left out in evaluation; nothing where it may."""
    return part_obstacle(parent, name, *DROPS, nn.Identity)


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises by fixed statistics in evaluation mode, in whatever way."""
    return isinstance(module, _BatchNorm | FrozenBatchNorm2d | FrozenBatchNormAct2d)
