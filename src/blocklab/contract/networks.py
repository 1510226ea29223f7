"""What a study asks of a network, tried on it before anything is trained.

A study tries it on each row with a block of a user's own, at the size of the row's images;
`blocklab check` on small networks with the block in each slot that takes its kind. So what passes
the one is not refused by the other.
"""

import copy
import io
from collections.abc import Iterator
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from blocklab.blocks.plugins import loaded_plugins, place_in_plugins
from blocklab.blocks.protocol import smallest_batch
from blocklab.blocks.registry import registered_blocks
from blocklab.blocks.timm_code import TIMM
from blocklab.contract.trial import (
    CheckFailed,
    NotApplicable,
    Subject,
    difference,
    listed,
    set_seed,
    where,
)
from blocklab.errors import InputError
from blocklab.measure.activations import count_zeros
from blocklab.measure.cost import cost
from blocklab.models.deploy import deploy
from blocklab.models.spec import ModelSpec, model_spec

SIZE, CLASSES = 32, 5
DEPLOYED_TOLERANCE = 1e-3  # of the norm of the outputs, in float32
_WAYS = (("float32", torch.contiguous_format), ("bf16 and channels_last", torch.channels_last))
_STAGES = 4
# The slots that take a kind of block, in networks of so many stages, one block each.
_SLOTS: dict[str, tuple[tuple[str, str], ...]] = {
    "attention": (("resnet20", "attention"), ("van_b0", "mixer")),
    "mixer": (("resnet20", "mixer"), ("resnet50", "mixer")),
    "token_mixer": (("van_b0", "mixer"),),
    "ffn_mixer": (("van_b0", "ffn_mixer"),),
}


def in_networks(subject: Subject) -> str:
    """A network with it does all that a study asks of one, at several widths, and deploys."""
    widths = (*subject.widths, *[subject.widths[-1]] * _STAGES)[:_STAGES]
    small = {"widths": widths, "depths": (1,) * _STAGES, "drop_path_rate": 0.1}
    for base, slot in _SLOTS[subject.info.kind]:
        with where(f"as {slot} of {base} with {listed(subject.widths)} channels"):
            spec = model_spec({"base": base, **small, slot: subject.spec})
            deploys(*trained(spec, CLASSES, SIZE))
    bases = " and ".join(base for base, _ in _SLOTS[subject.info.kind])
    done = "counted, trained, saved, resumed, deployed"
    return f"{bases} with {listed(subject.widths)} channels: {done}"


def check_network(spec: ModelSpec, classes: int, size: int) -> None:
    """Try what a study asks of a network, if there is a block in it that is not of this package.

    Raises:
        InputError: saying what it cannot do, and where in which file.
    """
    if not _own_blocks(spec):
        return
    try:
        with torch.random.fork_rng(devices=[]):
            trained(spec, classes, size)
    except (CheckFailed, NotApplicable) as fault:
        place = place_in_plugins(fault)
        at = f" ({place})" if place else ""
        remedy = "mend it, with `blocklab check FILE`" if loaded_plugins() else "take another block"
        raise InputError(f"the network cannot be {fault}{at}; {remedy}") from fault


def _own_blocks(spec: ModelSpec) -> bool:
    own = {
        info.versioned_name
        for info in registered_blocks()
        if not info.cls.__module__.startswith("blocklab.")
    }
    if spec.family in own:
        return True
    return any(name in own or name.startswith(TIMM) for name in _types_in(spec.to_dict()))


def _types_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("type"), str):
            yield value["type"]
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from _types_in(item)


def trained(spec: ModelSpec, classes: int, size: int) -> tuple[nn.Module, Tensor]:
    """Do with a network what a study does; return it with the images that it was tried on."""
    with where("counted"):
        cost(spec, size, classes)
    set_seed(0)
    with where("built"):
        model: nn.Module = spec.build(classes, input_size=size)
    count = max(4, smallest_batch(model))
    images = torch.randn(count, 3, size, size)
    for how, layout in _WAYS:
        with where(f"trained in {how}"):
            model.to(memory_format=layout)  # type: ignore[call-overload]
            _step(model, images.to(memory_format=layout), classes, bf16=how != "float32")
    with where("averaged, which copies it"):
        copy.deepcopy(model)
    with where("resumed from a checkpoint"):
        fresh = spec.build(classes, input_size=size).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        fresh.load_state_dict(_saved(model.state_dict()))
    with where("evaluated"), torch.no_grad():
        outputs = model.eval()(images)
        if not torch.equal(fresh.eval()(images), outputs):
            raise CheckFailed("resumed from a checkpoint: its outputs are others")
    with where("diagnosed"):
        count_zeros(model, [images], 1, 1)
    return model, images


def _step(model: nn.Module, images: Tensor, classes: int, bf16: bool) -> None:
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = model.train()(images)
    if tuple(logits.shape) != (len(images), classes):
        raise CheckFailed(f"trained: outputs of {tuple(logits.shape)}")
    if not logits.isfinite().all():
        raise CheckFailed("trained: its outputs are not finite from the start")
    F.cross_entropy(logits.float(), torch.arange(len(images)) % classes).backward()
    optimizer.step()


def _saved(state: dict[str, Any]) -> dict[str, Any]:
    """Write a state as a run's checkpoint and as its weights; return it as it is read again."""
    save({name: tensor.detach().contiguous().clone() for name, tensor in state.items()})
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def deploys(model: nn.Module, images: Tensor) -> None:
    """Deploy a network, and see that its outputs are the same."""
    with where("deployed"), torch.no_grad():
        off = difference(deploy(model)(images), model.eval()(images))
    if not off < DEPLOYED_TOLERANCE:
        raise CheckFailed(f"deployed: its outputs are {100 * off:.2g} % off")
