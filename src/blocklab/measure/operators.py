"""What an operator costs: the multiply-accumulates of matrices that one call of it does.

Known are PyTorch's convolutions, matrix products and what is made of them, and what a user says of
an operator of his own (`register_macs`). That others of PyTorch's multiply no matrices follows from
what they are: an operator that PyTorch tags as element-wise, as a reduction or as a view does not;
nor does one that a single tensor of numbers enters, unless it is a transform or linear algebra;
nor one that chooses, moves, joins, normalises or compares the values of several. What follows from
none of these is unknown, so that no product is missed in silence.
"""

import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from blocklab.errors import InputError

Count = Callable[..., int]

# Words between the underscores of a name. These name products, whatever enters.
_PRODUCTS = re.compile(
    r".*mm|.*mv|.*dot|addr|conv.*|linear|trilinear|matmul|matrix|attention|transformer|.*rnn|lstm"
    r"|gru|fft.*|linalg|cholesky|triangular|solve|lu|qr|geqrf|ormqr|householder|.+dist|quantized"
    r"|sparse|semi"
)
# These name what is done with the values of several tensors without multiplying them as matrices.
_OTHERS = re.compile(
    r"cat|stack|copy|scatter|gather|index|put|masked|select|slice|(?:un)?pool.d|sampler|where"
    r"|(?:re)?norm|prelu|entropy|loss(?:2d)?|foreach|diagonal|embedding|complex|polar|rrelu"
    r"|bernoulli|searchsorted|bucketize|take|isin|histogram|allclose|divide|dist|fake|segment"
    r"|linspace|logspace|set|resize|fill|zero"
)


def register_macs(operator: str, count: Count) -> None:
    """Say how many multiply-accumulates a call of an operator does, for `cost`.

    Args:
        operator: its name with its library's, such as ``my_ops::shifted_product`` for what
            ``torch.library.custom_op("my_ops::shifted_product")`` defines.
        count: gets the call's own arguments and, as ``out``, its result, all without values;
            returns the MACs of the whole call (all images of it). ``lambda *inputs, out: 0`` for
            an operator that multiplies no matrices. What was said earlier is replaced.

    Raises:
        InputError: if the name is none of an operator, or `count` cannot be called.
    """
    if not isinstance(operator, str) or not re.fullmatch(r"\w+::\w+", operator):
        raise InputError(f"an operator is named as 'library::operator', not {operator!r}")
    if not callable(count):
        raise InputError(
            f"register_macs('{operator}', ...) takes a function of the operator's arguments and "
            f"its result (out), not {count!r}"
        )
    COUNTS[operator] = count


def macs_of(func: Any, args: Any, kwargs: dict[str, Any], out: Any) -> int | None:
    """Return the MACs of a call of an operator (``torch.ops.aten.mm.default``), None if unknown.

    Raises:
        InputError: if what a user registered gives no count.
    """
    name, packet = _named(func)
    if name in COUNTS:
        return _checked(name, COUNTS[name], args, kwargs, out)
    if packet in flop_registry:
        return flop_registry[packet](*args, **kwargs, out_val=out) // 2
    if _is_tagged_free(packet):
        return 0
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if not tensors:
        return 0
    words = name.partition("::")[2].strip("_").split("_")
    product = any(_PRODUCTS.fullmatch(word) for word in words)
    if product or not name.startswith(("aten::", "prims::")):
        return None
    numbers = sum(one.is_floating_point() or one.is_complex() for one in tensors)
    return 0 if numbers < 2 or any(_OTHERS.fullmatch(word) for word in words) else None


def _checked(name: str, count: Count, args: Any, kwargs: dict[str, Any], out: Any) -> int:
    try:
        macs = count(*args, **kwargs, out=out)
    except Exception as error:
        raise InputError(
            f"the count that was registered for operator '{name}' fails: "
            f"{type(error).__name__}: {error}; mend it"
        ) from error
    if isinstance(macs, bool) or not isinstance(macs, int) or macs < 0:
        raise InputError(
            f"the count that was registered for operator '{name}' gives {macs!r}; it is to be a "
            "whole number of MACs from 0"
        )
    return macs


@lru_cache(maxsize=4096)
def _named(func: Any) -> tuple[str, Any]:
    """The operator's name and all its forms; one in place (``mm_``) is the other (``mm``)."""
    packet = func._overloadpacket
    if packet._qualified_op_name.startswith("aten::"):
        packet = getattr(torch.ops.aten, packet.__name__.removesuffix("_"), packet)
    return packet._qualified_op_name, packet


@lru_cache(maxsize=4096)
def _is_tagged_free(packet: Any) -> bool:
    """Whether PyTorch tags an operator as one without products, in any of its forms."""
    forms = [getattr(packet, form) for form in packet.overloads()]
    return any(
        form.is_view or torch.Tag.pointwise in form.tags or _REDUCTION in form.tags
        for form in forms
    )


_REDUCTION = getattr(torch.Tag, "reduction", None)


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    *_: Any,
    out: Tensor,
) -> int:
    pixels = x if transposed else out  # that each meet all the taps
    return pixels.numel() // pixels.shape[1] * weight.numel()


def _dot(first: Tensor, second: Tensor, **_: Any) -> int:
    return first.numel()


def _mv(matrix: Tensor, vector: Tensor, **_: Any) -> int:
    return matrix.numel()


def _addmv(added: Tensor, matrix: Tensor, vector: Tensor, **_: Any) -> int:
    return matrix.numel()


def _addr(added: Tensor, first: Tensor, second: Tensor, **_: Any) -> int:
    return first.numel() * second.numel()


def _addbmm(added: Tensor, first: Tensor, second: Tensor, **_: Any) -> int:
    return first.numel() * second.shape[2]


def _trilinear(
    first: Tensor,
    second: Tensor,
    third: Tensor,
    expand1: list[int],
    expand2: list[int],
    expand3: list[int],
    sumdim: list[int],
    *_: Any,
    **__: Any,
) -> int:
    """Of ``torch.bilinear``: a product of two, summed over an axis, and one of it and the third."""
    sides = [1] * (first.ndim + len(expand1))
    for tensor, expanded in ((first, expand1), (second, expand2), (third, expand3)):
        own = iter(tensor.shape)
        for axis in range(len(sides)):
            if axis not in expanded:
                sides[axis] = max(sides[axis], next(own))
    full = math.prod(sides)
    return full + full // sides[min(sumdim)]


def _cdist(first: Tensor, second: Tensor, p: float, *_: Any, out: Tensor, **__: Any) -> int:
    return out.numel() * first.shape[-1] if p == 2 else 0


def _rnn_layer(x: Tensor, of_input: Tensor, of_state: Tensor, *_: Any, **__: Any) -> int:
    steps = x.shape[0] * x.shape[1]  # in time, of each sequence
    return steps * (of_input.numel() + of_state.numel())


def _deformed(x: Tensor, weight: Tensor, *_: Any, out: Tensor, **__: Any) -> int:
    return out.numel() * weight[0].numel()


def _nothing(*_: Any, **__: Any) -> int:
    return 0


COUNTS: dict[str, Count] = {
    "aten::convolution": _convolution,
    "aten::dot": _dot,
    "aten::vdot": _dot,
    "aten::mv": _mv,
    "aten::addmv": _addmv,
    "aten::addr": _addr,
    "aten::addbmm": _addbmm,
    "aten::_trilinear": _trilinear,
    "aten::_cdist_forward": _cdist,
    "aten::mkldnn_rnn_layer": _rnn_layer,
    "torchvision::deform_conv2d": _deformed,
    "aten::linalg_cross": _nothing,
    "aten::_thnn_fused_lstm_cell": _nothing,  # of gates that were multiplied before
    "aten::_thnn_fused_gru_cell": _nothing,
    "torchvision::roi_align": _nothing,
    "torchvision::roi_pool": _nothing,
}
