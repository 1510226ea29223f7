"""Cost: multiply-accumulates and parameters, by one definition.

MACs are those of convolutions, linear layers and matrix products, wherever they are called
(BatchNorm, pooling and element-wise work count nothing), for one image in evaluation mode.
Parameters are all of them. Nothing is computed and no weight allocated: the network runs on the
meta device, and each operator that reaches PyTorch's dispatcher is counted.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from blocklab.blocks import ReparamLargeKernelConv, registered_blocks
from blocklab.errors import InputError
from blocklab.models import ModelSpec, model_spec

# Operators that multiply no matrices, beyond the element-wise ones, reductions and views, which
# PyTorch tags. What is in neither set is an error, so that no product is missed in silence.
WITHOUT_PRODUCTS = frozenset(
    (
        "_adaptive_avg_pool2d _softmax _log_softmax _native_batch_norm_legit_no_training _to_copy "
        "_unsafe_view amax amin arange avg_pool2d cat celu clone constant_pad_nd copy_ "
        "cudnn_batch_norm elu empty empty_like fill_ full full_like gelu hardswish leaky_relu "
        "lift_fresh linalg_vector_norm max max_pool2d_with_indices mean median min mish "
        "native_batch_norm native_group_norm native_layer_norm new_empty new_ones new_zeros ones "
        "ones_like scalar_tensor selu sort stack std sum topk upsample_bilinear2d "
        "upsample_nearest2d var var_mean zeros zeros_like"
    ).split()
)

# Operators of one map whose result has its shape and type. Without memory there is nothing for
# them to compute, and PyTorch's own inference of their shapes takes most of a count's time.
_SAME_AS_INPUT = frozenset(
    "celu elu gelu hardswish leaky_relu mish relu selu sigmoid silu tanh".split()
)
_OF_TWO_MAPS = frozenset(("add", "mul", "sub", "div"))
# Initialisation, which has nothing to fill on the meta device.
_FILLS = frozenset(
    [getattr(Tensor, name) for name in "normal_ uniform_ fill_ zero_ erfinv_ clamp_".split()]
    + [nn.init.normal_, nn.init.uniform_, nn.init.constant_, nn.init.kaiming_uniform_]
)


@dataclass(frozen=True)
class Cost:
    """MACs of one image and number of parameters; both are counts, not millions."""

    macs: int
    params: int


class _MacCounter(TorchDispatchMode):
    def __init__(self, on_count: Callable[[int], None]) -> None:
        super().__init__()
        self.on_count = on_count

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        packet = func._overloadpacket
        quick = _without_inference(packet.__name__, args)
        if quick is not None:
            return quick
        out = func(*args, **(kwargs or {}))
        if packet in flop_registry:
            self.on_count(flop_registry[packet](*args, **(kwargs or {}), out_val=out) // 2)
        elif not self._is_free(func, packet.__name__):
            raise InputError(
                f"cost does not know operator '{func}'; if it multiplies no matrices, add "
                f"'{packet.__name__}' to blocklab.measure.cost.WITHOUT_PRODUCTS"
            )
        return out

    @staticmethod
    def _is_free(func: Any, name: str) -> bool:
        tags = func.tags
        return (
            torch.Tag.pointwise in tags
            or getattr(torch.Tag, "reduction", None) in tags
            or func.is_view
            or name in WITHOUT_PRODUCTS
        )


def _without_inference(name: str, args: Any) -> Any:
    """Return an operator's empty result where its shape is known at once; None elsewhere."""
    first = args[0] if args else None
    if not isinstance(first, Tensor) or not first.is_meta or not first.is_floating_point():
        return None
    if name in _SAME_AS_INPUT:
        return torch.empty_like(first)
    if name in _OF_TWO_MAPS:
        other = args[1]
        if isinstance(other, Tensor) and other.is_meta and other.dtype == first.dtype:
            shape = _broadcast(first.shape, other.shape)
            return None if shape is None else first.new_empty(shape)
        return torch.empty_like(first) if isinstance(other, int | float) else None
    if name == "native_batch_norm" and not args[5]:  # in evaluation mode it gives no statistics
        return torch.empty_like(first), first.new_empty(0), first.new_empty(0)
    return None


def _broadcast(first: Sequence[int], second: Sequence[int]) -> list[int] | None:
    if len(first) != len(second):
        return None
    sides = [max(pair) if 1 in pair else pair[0] for pair in zip(first, second, strict=True)]
    fits = all(a in (1, n) and b in (1, n) for a, b, n in zip(first, second, sides, strict=True))
    return sides if fits else None


class _NoFilling(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        filled = args[0] if args else (kwargs or {}).get("tensor")
        if func in _FILLS and isinstance(filled, Tensor) and filled.is_meta:
            return filled
        return func(*args, **(kwargs or {}))


@contextmanager
def without_memory() -> Iterator[None]:
    """Modules that are built inside have shapes and no values, and are not initialised."""
    with torch.device("meta"), _NoFilling():
        yield


def count_macs(model: nn.Module, images: Tensor, on_count: Callable[[int], None]) -> None:
    """Run a model on `images` and report each product's MACs as it happens.

    Raises:
        InputError: for an operator of unknown cost, or images that the network cannot take.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), _MacCounter(on_count):
            model(images)
    except RuntimeError as error:
        if isinstance(error, InputError) or not _is_about_size(str(error)):
            raise
        size = "x".join(map(str, images.shape[2:]))
        raise InputError(
            f"the network cannot take {size} images; use larger ones or a stem for small images"
        ) from None
    finally:
        model.train(training)


def _is_about_size(message: str) -> bool:
    return any(word in message.lower() for word in ("too small", "kernel size", "input size"))


def check_input_size(input_size: int) -> int:
    """Return the side of an image if it is a positive number.

    Raises:
        InputError: if it is not.
    """
    if not isinstance(input_size, int) or isinstance(input_size, bool) or input_size < 1:
        raise InputError(f"input_size must be a positive number of pixels, not {input_size!r}")
    return input_size


def cost(
    model_or_name: nn.Module | ModelSpec | str | Mapping[str, Any],
    input_size: int = 224,
    num_classes: int = 1000,
    in_chans: int = 3,
    merged: bool = False,
) -> Cost:
    """Count a model's MACs on one ``in_chans x input_size x input_size`` image, and its parameters.

    `num_classes`, `in_chans` and `merged` hold for models that are not built yet; a module is
    counted as it is. `merged` counts re-parameterised large kernels as the one convolution that
    they become, instead of in the form that trains.

    Raises:
        InputError: for an unknown model, a size that is not positive, or an operator whose cost is
            not known.
    """
    check_input_size(input_size)
    if isinstance(model_or_name, nn.Module):
        if merged:
            raise InputError("merged holds for models given by name; count a merged module itself")
        return _count(model_or_name, input_size, getattr(model_or_name, "in_chans", in_chans))
    spec = model_or_name if isinstance(model_or_name, ModelSpec) else model_spec(model_or_name)
    return _cost_of(
        json.dumps(spec.to_dict(), sort_keys=True),
        tuple(id(info.cls) for info in registered_blocks()),
        input_size,
        num_classes,
        in_chans,
        merged,
    )


@lru_cache(maxsize=4096)
def _cost_of(
    spec: str,
    classes: tuple[int, ...],  # a block that is registered anew is counted anew
    input_size: int,
    num_classes: int,
    in_chans: int,
    merged: bool,
) -> Cost:
    with without_memory():
        model = ModelSpec.from_dict(json.loads(spec)).build(num_classes, in_chans)
        if merged:
            for module in model.modules():
                if isinstance(module, ReparamLargeKernelConv):
                    module.merge()
    return _count(model, input_size, in_chans)


def _count(model: nn.Module, input_size: int, in_chans: int) -> Cost:
    reference = next(model.parameters(), torch.empty(0))
    images = torch.empty(
        1, in_chans, input_size, input_size, device=reference.device, dtype=reference.dtype
    )
    counts: list[int] = []
    count_macs(model, images, counts.append)
    return Cost(sum(counts), sum(parameter.numel() for parameter in model.parameters()))
