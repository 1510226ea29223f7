"""Where a network looks: Grad-CAM, and what its attentions let through, a position at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from blocklab.backbones.base import Backbone
from blocklab.blocks.registry import is_attention
from blocklab.errors import InputError, did_you_mean
from blocklab.measure.activations import residual_blocks
from blocklab.measure.receptive_field import channels_first
from blocklab.models.probe import evaluating

SMALLEST_SIDE = 4  # of a map that says where: a smaller one hardly does
_GATE_NAMES = ("spatial_gating_unit", "attention", "se")  # also in models of timm's


@dataclass(frozen=True, eq=False)
class Maps:
    """A map an image, (B, H, W), of what the module `layer` gave.

    `everywhere`: it does the same at every position, as a gate of whole channels does.
    """

    layer: str
    values: NDArray[np.float32]
    everywhere: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the maps."""
        return self.values.shape[1], self.values.shape[2]


@dataclass(frozen=True, eq=False)
class LetThrough:
    """The maps of some of a network's attentions, and of how many they are."""

    maps: tuple[Maps, ...]
    of: int


def grad_cam(
    model: nn.Module, images: Tensor, classes: Sequence[int], layer: str | None = None
) -> Maps:
    """Show which positions speak for a class: Grad-CAM (Selvaraju et al., arXiv:1610.02391).

    The channels of a layer's map are weighted by the mean gradient of the class's logit
    (equation 1), added up, and cut below zero (equation 2).

    Args:
        model: run in evaluation mode, without a change of its weights or gradients.
        images: (B, C, H, W), normalised as in training, on the model's device.
        classes: of each image, which logit.
        layer: the name of a module that gives maps; by default the last residual block whose map
            has 4 pixels a side or more, or the last of all where none has. A stage of plain layers,
            as a user's backbone may have, counts as one block.

    Raises:
        InputError: if there is no such layer, or it gives no map (B, C, H, W).
    """
    modules, names = dict(model.named_modules()), [layer] if layer else _blocks_and_stages(model)
    if layer is not None and layer not in modules:
        raise InputError(f"the network has no module '{layer}'{did_you_mean(layer, modules) or ''}")
    with evaluating(model), torch.enable_grad(), _outputs(modules, names) as given:
        logits = model(images.detach().requires_grad_())  # a frozen network's maps need one, too
        found = {name: one for name, one in given.items() if _is_map(one)}
        if not names:
            raise InputError(
                "no Grad-CAM: no residual block is found in the network; name a layer (--layer)"
            )
        if not found:
            what = f"module '{layer}' gives" if layer else "its blocks give"
            raise InputError(f"no Grad-CAM: {what} no map (B, C, H, W), as that of tokens is none")
        sides = {name: min(channels_first(one, model).shape[2:]) for name, one in found.items()}
        large = [name for name, side in sides.items() if side >= SMALLEST_SIDE]
        chosen = (large or list(found))[-1]
        scores = logits[torch.arange(len(images)), torch.as_tensor(classes)]
        (gradient,) = torch.autograd.grad(scores.sum(), found[chosen], allow_unused=True)
    if gradient is None:
        raise InputError(f"no Grad-CAM: no logit hangs on module '{chosen}'; choose another layer")
    weights = channels_first(gradient, model).float().mean((2, 3), keepdim=True)  # (B, C, 1, 1)
    values = (weights * channels_first(found[chosen], model).detach().float()).sum(1).relu()
    return Maps(chosen, values.cpu().numpy())


def _blocks_and_stages(model: nn.Module) -> list[str]:
    """Return the names of a network's residual blocks, and of the stages that hold none."""
    blocks = residual_blocks(model)
    if not isinstance(model, Backbone):
        return blocks
    bare = [
        module
        for stage, module in enumerate(model.stage_modules)
        if not any(
            block.startswith(f"{part}.") for part in model.stage_parts(stage) for block in blocks
        )
    ]
    return [*blocks, *bare]


def let_through(model: nn.Module, images: Tensor, most: int = 4) -> LetThrough:
    """Show how much each attention lets through at each position: mean |out| over mean |in|.

    Of a gate that multiplies, that is the mean of its values over channels, weighted by what is
    there to be gated. Means are over the channels; 1 is all, as without the block.

    Args:
        model: run in evaluation mode.
        images: (B, C, H, W), normalised as in training, on the model's device.
        most: so many attentions, the last at each map size before all others, then the last.

    Raises:
        InputError: if the network has no attention that keeps the shape of a map.
    """
    gates = attentions(model)
    found: dict[str, Tensor] = {}
    everywhere: dict[str, bool] = {}

    def keep(name: str, before: Tensor, after: Tensor) -> None:
        if after.ndim == 4 and before.shape == after.shape:
            inflow = before.float().abs().mean(1)
            found[name] = after.float().abs().mean(1) / inflow.clamp(min=1e-12)
            everywhere[name] = _same_everywhere(before.float(), after.float())

    with evaluating(model), torch.inference_mode(), _through(gates, keep):
        model(images)
    if not found:
        raise InputError(
            "no attention gates: the network has no attention that gates a map; name one that has, "
            "such as resnet18_se"
        )
    if most < 1:
        raise InputError(f"most is how many attentions to show, 1 or more, not {most}")
    by_size = {tuple(one.shape[1:]): name for name, one in found.items()}  # the last of each
    others = [name for name in reversed(found) if name not in by_size.values()]
    chosen = {*list(by_size.values())[-most:], *others[: max(0, most - len(by_size))]}
    maps = (
        Maps(name, found[name].cpu().numpy(), everywhere[name]) for name in found if name in chosen
    )
    return LetThrough(tuple(maps), len(found))


def _same_everywhere(before: Tensor, after: Tensor) -> bool:
    """Say if a map (B, C, H, W) is multiplied, or added to, by one number a channel."""
    added = after - before
    near = 1e-4 * after.abs().amax((2, 3), keepdim=True).clamp(min=1e-12)
    if bool(((added - added.mean((2, 3), keepdim=True)).abs() <= near).all()):
        return True
    # The factor of a channel by least squares over its positions.
    factor = (after * before).sum((2, 3), keepdim=True)
    factor = factor / before.square().sum((2, 3), keepdim=True).clamp(min=1e-12)
    return bool(((after - factor * before).abs() <= near).all())


def attentions(model: nn.Module) -> dict[str, nn.Module]:
    """Return a network's attentions by name, those of others' networks by what they are called."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if name and not inside and (is_attention(module) or _is_called_one(name, module)):
            found[name] = module
    return found


def _is_called_one(name: str, module: nn.Module) -> bool:
    last = name.rpartition(".")[2]
    timms = type(module).__module__.startswith("timm.layers.")  # others' `attn` are of tokens
    return last in _GATE_NAMES or (timms and last in ("attn", "attn_last"))


def _is_map(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4 and value.requires_grad


@contextmanager
def _outputs(modules: Mapping[str, nn.Module], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Collect what modules give, in the order in which they run."""
    given: dict[str, Any] = {}
    with ExitStack() as stack:
        for name in names:

            def leave(_: nn.Module, __: Any, output: Any, name: str = name) -> Any:
                given.pop(name, None)
                given[name] = output
                # What follows may change it in place, so it gets a copy.
                return output.clone() if isinstance(output, Tensor) else None

            stack.callback(modules[name].register_forward_hook(leave).remove)
        yield given


@contextmanager
def _through(
    modules: Mapping[str, nn.Module], keep: Callable[[str, Tensor, Tensor], None]
) -> Iterator[None]:
    """Hand on what goes into modules and what comes out, where both are tensors."""
    entered: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for name, module in modules.items():

            def enter(_: nn.Module, given: tuple[Any, ...], name: str = name) -> None:
                if given and isinstance(given[0], Tensor):
                    entered[name] = given[0].clone()  # it may be changed in place

            def leave(_: nn.Module, __: Any, output: Any, name: str = name) -> None:
                before = entered.pop(name, None)
                if before is not None and isinstance(output, Tensor):
                    keep(name, before, output)

            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave).remove)
        yield
