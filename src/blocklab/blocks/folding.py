"""Folding BatchNorm and scales into convolutions, exactly, for evaluation.

A block says which of its parts follow each other by a method ``fold_norms()``, which
`blocklab.deploy` calls on a copy in evaluation mode. Nothing is folded that a class does not
declare, that has hooks or parametrisations, or whose computation a subclass replaced.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from blocklab.kernels.depthwise import DepthwiseConv2d
from blocklab.kernels.plane_convolution import PlaneConv2d
from blocklab.kernels.small_map import SmallMapConv2d

_FORWARDS = tuple(
    kind.forward for kind in (nn.Conv2d, DepthwiseConv2d, PlaneConv2d, SmallMapConv2d)
)


def fold(parent: nn.Module, convolution: str, norm: str) -> bool:
    """Fold ``norm(convolution(x))`` into the convolution; the norm becomes the identity.

    The names are the parent's. Returns whether it was done: where either is not what it should be,
    both stay.
    """
    conv, bn = parent.get_submodule(convolution), parent.get_submodule(norm)
    if not (is_plain_convolution(conv) and is_plain_norm(bn)):
        return False
    assert isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d)
    mean, variance = bn.running_mean, bn.running_var
    assert mean is not None and variance is not None
    bias = None if conv.bias is None else conv.bias.double()
    affine = [None if value is None else value.double() for value in (bn.weight, bn.bias)]
    weight, shift = fuse_conv_bn_weights(
        conv.weight.double(), bias, mean.double(), variance.double(), bn.eps, affine[0], affine[1]
    )
    set_convolution(conv, weight, shift)
    drop(parent, norm)
    return True


def fold_before(parent: nn.Module, norm: str, convolution: str) -> bool:
    """Fold ``convolution(norm(x))`` into a 1x1 convolution without padding or groups."""
    conv, bn = parent.get_submodule(convolution), parent.get_submodule(norm)
    if not (is_pointwise(conv) and is_plain_norm(bn)):
        return False
    assert isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d)
    scale, shift = scale_and_shift(bn)
    weight = conv.weight.double()
    bias = weight[:, :, 0, 0] @ shift
    if conv.bias is not None:
        bias = bias + conv.bias.double()
    set_convolution(conv, weight * scale[:, None, None], bias)
    drop(parent, norm)
    return True


def scale_and_shift(bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What a norm does to each channel in evaluation mode, in float64: scale * x + shift."""
    assert bn.running_mean is not None and bn.running_var is not None
    scale = (bn.running_var.double() + bn.eps).rsqrt()
    if bn.weight is not None:
        scale = scale * bn.weight.double()
    shift = -bn.running_mean.double() * scale
    return scale, shift if bn.bias is None else shift + bn.bias.double()


def set_convolution(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    """Give a convolution new weights, in its own precision and layout."""
    old = conv.weight
    layout = torch.contiguous_format
    if old.is_contiguous(memory_format=torch.channels_last):
        layout = torch.channels_last
    conv.weight = nn.Parameter(weight.detach().to(old.dtype).contiguous(memory_format=layout))
    conv.bias = nn.Parameter(bias.detach().to(old.dtype))


def drop(parent: nn.Module, name: str) -> None:
    """Put the identity in a part's place."""
    owner, _, child = name.rpartition(".")
    setattr(parent.get_submodule(owner), child, nn.Identity())


def is_plain_convolution(module: nn.Module) -> bool:
    """Whether a module computes PyTorch's convolution and nothing else."""
    return (
        isinstance(module, nn.Conv2d)
        and type(module).forward in _FORWARDS
        and type(module)._conv_forward is nn.Conv2d._conv_forward
        and _is_untouched(module)
    )


def is_pointwise(module: nn.Module) -> bool:
    """Whether a module is a 1x1 convolution without padding or groups."""
    return (
        isinstance(module, nn.Conv2d)
        and is_plain_convolution(module)
        and module.kernel_size == (1, 1)
        and module.padding in ((0, 0), "valid")
        and module.groups == 1
    )


def is_plain_norm(module: nn.Module) -> bool:
    """Whether a module is BatchNorm with running statistics, in evaluation mode."""
    return (
        type(module) is nn.BatchNorm2d
        and module.running_mean is not None
        and not module.training
        and _is_untouched(module)
    )


def _is_untouched(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    return not any(hooks) and not hasattr(module, "parametrizations")
