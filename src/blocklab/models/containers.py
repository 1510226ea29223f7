"""The tensors of a checkpoint, out of the containers and names that programs wrap them in.

Wrappers of a network (DataParallel, `torch.compile`, an average of weights, a class with the
network in `self.backbone`) put their name before each tensor's. The same names are taken off a
network that is itself wrapped, so that what one saved loads into it, and into the bare network.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from blocklab.errors import InputError

Weights = dict[str, Tensor]

# Where training programs put the tensors, averaged ones first: those are what was evaluated.
_CONTAINERS = (
    *("average", "state_dict_ema", "model_ema", "ema_state_dict", "state_dict"),
    *("model_state_dict", "model_state", "model", "net", "network", "module", "weights"),
)
_WRAPPERS = ("module", "_orig_mod", "model", "backbone")
_COMPILED = "_orig_mod."
_AVERAGE_COUNT = "n_averaged"  # beside the tensors of torch.optim.swa_utils
_QUERY = "encoder_q."  # MoCo's network; beside it are a slower copy and a queue
_MMPRETRAIN_HEAD = "head.fc."


@dataclass(frozen=True)
class Found:
    """Tensors by the names that the file gives them, and the container that they were in."""

    tensors: Weights
    container: str | None = None


def find_tensors(content: Mapping[str, Any], what: str) -> Found:
    """Take the tensors out of their containers.

    Raises:
        InputError: if there are none by name; `what` says of what.
    """
    path: list[str] = []
    while (name := _container(content)) is not None:
        path.append(name)
        content = content[name]
        if len(path) > len(_CONTAINERS):
            raise InputError(f"{what} holds itself ({'.'.join(path[:3])}...); give a state_dict()")
    tensors = {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, Tensor) and name != _AVERAGE_COUNT
    }
    if not tensors:
        raise InputError(f"{what} holds no tensors by name; give a state_dict()")
    return Found(tensors, ".".join(path) or None)


def _container(content: Mapping[str, Any]) -> str | None:
    """Name the container of tensors in a checkpoint; one that is empty is none."""
    for name in _CONTAINERS:
        inner = content.get(name)
        if isinstance(inner, Mapping) and any(
            isinstance(value, Tensor | Mapping) for value in inner.values()
        ):
            return name
    return None


def plain_names(names: Mapping[str, Any]) -> dict[str, str]:
    """Return each name as given by its plain form, without what wrappers put before it."""
    plain = {name.replace(_COMPILED, ""): name for name in names}
    while True:
        if len(plain) > 1 and (query := [n for n in plain if n.startswith(_QUERY)]):
            plain = {name.removeprefix(_QUERY): plain[name] for name in query}
        heads = {name for name in plain if name.startswith(_MMPRETRAIN_HEAD)}
        if heads and all(n.startswith("backbone.") for n in plain if n not in heads):
            plain = {_from_mmpretrain(name): given for name, given in plain.items()}
        wrapper = next((w for w in _WRAPPERS if all(n.startswith(f"{w}.") for n in plain)), None)
        if wrapper is None:
            return plain
        plain = {name.removeprefix(f"{wrapper}."): given for name, given in plain.items()}


def _from_mmpretrain(name: str) -> str:
    if name.startswith(_MMPRETRAIN_HEAD):
        return name.removeprefix("head.")
    return name.removeprefix("backbone.")


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network inside wrappers that hold nothing else."""
    while True:
        if isinstance(model, FeatureGetterNet):
            inner = model.model
        else:
            names = [name for name in model.state_dict() if name != _AVERAGE_COUNT]
            wrapper = next(
                (w for w in _WRAPPERS if names and all(n.startswith(f"{w}.") for n in names)), None
            )
            inner = None if wrapper is None else getattr(model, wrapper)
        if not isinstance(inner, nn.Module):
            return model
        model = inner
