"""Cost: multiply-accumulates and parameters, by one definition.

MACs are those of convolutions, linear layers and matrix products, wherever they are called
(BatchNorm, pooling and element-wise work count nothing), for one image in evaluation mode.
Parameters are all of them. Nothing is computed and no weight allocated: the network runs on the
meta device, and each operator that reaches PyTorch's dispatcher is counted.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from blocklab.blocks.plugins import plugin_errors
from blocklab.blocks.protocol import merge_parts
from blocklab.blocks.registry import registered_blocks
from blocklab.errors import InputError
from blocklab.models.meta_device import quick_result, without_memory
from blocklab.models.probe import ImageSize, blank_images, check_input_size, evaluating
from blocklab.models.spec import ModelSpec, model_spec

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
        quick = quick_result(packet.__name__, args)
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


@plugin_errors()
def count_macs(model: nn.Module, images: Tensor, on_count: Callable[[int], None]) -> None:
    """Run a model on `images` and report each product's MACs as it happens.

    Raises:
        InputError: for an operator of unknown cost, or images that the network cannot take.
    """
    try:
        with evaluating(model), torch.no_grad(), _MacCounter(on_count):
            model(images)
    except RuntimeError as error:
        if isinstance(error, InputError) or not _is_about_size(str(error)):
            raise
        size = "x".join(map(str, images.shape[2:]))
        raise InputError(
            f"the network cannot take {size} images; use larger ones or a stem for small images"
        ) from None


def _is_about_size(message: str) -> bool:
    return any(word in message.lower() for word in ("too small", "kernel size", "input size"))


def cost(
    model_or_name: nn.Module | ModelSpec | str | Mapping[str, Any],
    input_size: ImageSize = 224,
    num_classes: int = 1000,
    in_chans: int = 3,
    merged: bool = False,
) -> Cost:
    """Count a model's MACs on one image of ``in_chans`` channels, and its parameters.

    `input_size` is the image's side in pixels, or its height and width.
    `num_classes`, `in_chans` and `merged` hold for models that are not built yet; a module is
    counted as it is. `merged` counts blocks with a `merge()` (re-parameterised large kernels, say)
    as what they become, instead of in the form that trains.

    Raises:
        InputError: for an unknown model, a size that is not positive, or an operator whose cost is
            not known.
    """
    input_size = check_input_size(input_size)
    if isinstance(model_or_name, nn.Module):
        if merged:
            raise InputError("merged holds for models given by name; count a merged module itself")
        return _count(model_or_name, input_size, in_chans)
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
    input_size: ImageSize,
    num_classes: int,
    in_chans: int,
    merged: bool,
) -> Cost:
    with without_memory():
        model = ModelSpec.from_dict(json.loads(spec)).build(num_classes, in_chans)
        if merged:
            merge_parts(model)
    return _count(model, input_size, in_chans)


def _count(model: nn.Module, input_size: ImageSize, in_chans: int) -> Cost:
    images = blank_images(model, input_size, in_chans=in_chans)
    counts: list[int] = []
    count_macs(model, images, counts.append)
    return Cost(
        sum(counts) // len(images), sum(parameter.numel() for parameter in model.parameters())
    )
