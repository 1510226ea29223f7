"""Cost: multiply-accumulates and parameters, by one definition.

MACs are those of convolutions, linear layers and matrix products, wherever they are called
(BatchNorm, pooling and element-wise work count nothing), for one image in evaluation mode.
Parameters are all of them. Nothing is computed and no weight allocated: the network runs on the
meta device, and each operator that reaches PyTorch's dispatcher is counted.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from blocklab.blocks.plugins import plugin_errors
from blocklab.blocks.protocol import merge_parts
from blocklab.blocks.registry import registered_blocks
from blocklab.errors import InputError, error_line
from blocklab.measure.operators import COUNTS, macs_of
from blocklab.models.meta_device import quick_result, without_memory
from blocklab.models.probe import ImageSize, blank_images, check_input_size, evaluating, size_text
from blocklab.models.spec import ModelSpec, model_spec
from blocklab.models.timm_models import image_errors


@dataclass(frozen=True)
class Cost:
    """MACs of one image and number of parameters; both are counts, not millions."""

    macs: int
    params: int


class _MacCounter(TorchDispatchMode):
    def __init__(self, on_count: Callable[[int], None]) -> None:
        super().__init__()
        self.on_count = on_count

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled inside, and the guard around each operator costs time

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        packet = func._overloadpacket
        out = quick_result(packet.__name__, args)
        if out is not None and packet.__name__ != "convolution":  # nothing else quick multiplies
            return out
        kwargs = dict(kwargs or {})
        out = func(*args, **kwargs) if out is None else out
        macs = macs_of(func, args, kwargs, out)
        if macs is None:
            return self._counted_in_parts(func, args, kwargs)
        if macs:
            self.on_count(macs)
        return out

    def _counted_in_parts(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Count an operator that is made of others, which inference mode hands on whole."""
        with self:
            out = func.decompose(*args, **kwargs)
        if out is NotImplemented:
            name = func._overloadpacket._qualified_op_name
            raise InputError(
                f"cost does not know operator '{name}'; say how many products a call does: "
                f"blocklab.register_macs('{name}', count), with count=lambda *inputs, out: 0 for "
                "one that multiplies no matrices"
            )
        return out


@plugin_errors()
def count_macs(
    model: nn.Module,
    images: Tensor,
    on_count: Callable[[int], None],
    asked: ImageSize | None = None,
) -> None:
    """Run a model on `images` and report each product's MACs as it happens.

    `asked` is the size to speak of, where `images` are maps on the way.

    Raises:
        InputError: for an operator of unknown cost, or images that the network cannot take.
    """
    size = images.shape[2], images.shape[3]
    counting = _MacCounter(on_count)
    try:
        with image_errors(model, size), evaluating(model), torch.no_grad(), _in_parts(), counting:
            model(images)
    except NotImplementedError as error:
        if images.is_meta and "meta" in str(error).lower():
            raise InputError(
                f"{error_line(error)}: its shapes are not known without values; give it some with "
                "torch.library.register_fake, or count a module that is built"
            ) from None
        raise
    except RuntimeError as error:
        if isinstance(error, InputError) or not _is_about_size(str(error)):
            raise
        size = (images.shape[2], images.shape[3]) if asked is None else asked
        raise InputError(
            f"the network cannot take {size_text(size)} images; use larger ones or a stem for "
            "small images"
        ) from None


@contextmanager
def _in_parts() -> Iterator[None]:
    """Inside it attention is computed by the matrix products that it is made of."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


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
        tuple(_Itself(info.cls) for info in registered_blocks()),
        tuple(map(_Itself, COUNTS.values())),
        input_size,
        num_classes,
        in_chans,
        merged,
    )


class _Itself:
    """Equal to what holds the very same object, which it keeps: an id may be used again."""

    def __init__(self, held: object) -> None:
        self.held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self.held is other.held

    def __hash__(self) -> int:
        return id(self.held)


@lru_cache(maxsize=4096)
def _cost_of(
    spec: str,
    classes: tuple[_Itself, ...],  # a block that is registered anew is counted anew
    counts: tuple[_Itself, ...],  # and so are all, where an operator's count is
    input_size: ImageSize,
    num_classes: int,
    in_chans: int,
    merged: bool,
) -> Cost:
    with without_memory():
        model = ModelSpec.from_dict(json.loads(spec)).build(num_classes, in_chans, input_size)
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
