"""The weights that half precision multiplies by, cast together.

Autocast casts each weight by itself, and each weight's gradient back: two launches a layer a step.
Here all are cast by one, to the same bits.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

MULTIPLYING = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
OWN = "blocklab."  # whose layers multiply by their weights as PyTorch's do


class WeightCasts:
    """Weights and biases of a model's convolutions and linear layers, in half precision.

    Of layers that are PyTorch's own, or ours: another may do more with its weights before
    it multiplies by them, as one that standardises them does, and a hook may make them. And of
    those alone that were called under autocast, each time that they were, in the first pass: a
    block may leave it for some of its layers, or read a layer's weight without calling it.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self._plain = [module for module in model.modules() if _is_plain(module)]
        self._dtype = dtype
        self._places: list[tuple[nn.Module, str, nn.Parameter]] | None = None
        self._weights, self._halves = list[nn.Parameter](), list[Tensor]()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it the layers have the cast weights, whose gradients reach their own.

        The first pass has autocast's own, and shows which layers those are.
        """
        if self._places is None:
            with _calls(self._plain) as under_autocast:
                yield
            self._learn(under_autocast)
            return
        if not self._weights:
            yield
            return
        cast = _CastTogether.apply(self._halves, *self._weights)
        by_weight = dict(zip(self._weights, cast, strict=True))  # type: ignore[arg-type]
        for module, name, parameter in self._places:
            module._parameters[name] = by_weight[parameter]  # type: ignore[assignment]
        try:
            yield
        finally:
            for module, name, parameter in self._places:
                module._parameters[name] = parameter

    def _learn(self, under_autocast: dict[nn.Module, bool]) -> None:
        self._places = [
            (module, name, parameter)
            for module in self._plain
            if under_autocast.get(module)
            for name, parameter in module.named_parameters(recurse=False)
            if parameter.dtype == torch.float32 and name in ("weight", "bias")
        ]
        # One parameter may stand in several places, and is cast once.
        self._weights = list(dict.fromkeys(parameter for *_, parameter in self._places))
        self._halves = [torch.empty_like(weight, dtype=self._dtype) for weight in self._weights]


@contextmanager
def _calls(modules: Sequence[nn.Module]) -> Iterator[dict[nn.Module, bool]]:
    """Give which modules are called within it, and whether under autocast each time."""
    found: dict[nn.Module, bool] = {}

    def note(module: nn.Module, _: object) -> None:
        on = torch.is_autocast_enabled(next(module.parameters()).device.type)
        found[module] = found.get(module, True) and on

    hooks = [module.register_forward_pre_hook(note) for module in modules]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _is_plain(module: nn.Module) -> bool:
    ours = isinstance(module, MULTIPLYING) and type(module).__module__.startswith(OWN)
    return (type(module) in MULTIPLYING or ours) and not module._forward_pre_hooks


class _CastTogether(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, halves: Sequence[Tensor], *weights: Tensor) -> tuple[Tensor, ...]:
        torch._foreach_copy_(list(halves), list(weights))
        ctx.set_materialize_grads(False)
        return tuple(half.detach() for half in halves)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        found = [grad for grad in grads if grad is not None]
        wide = [torch.empty_like(grad, dtype=torch.float32) for grad in found]
        torch._foreach_copy_(wide, found)
        whole = iter(wide)
        return None, *(None if grad is None else next(whole) for grad in grads)
