"""The checks of a user's own backbone: timm's conventions, each by itself, and what a study asks.

Those of blocks that hold for a whole network are run as they are: the network is the block, the
image its map.
"""

import copy
from collections.abc import Callable
from functools import cached_property
from typing import Any, cast

import torch
from timm.models import FeatureInfo, group_parameters
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from blocklab.backbones.own import OwnBackbone, OwnConfig, own_family
from blocklab.blocks.registry import BlockSpec
from blocklab.contract.checks import (
    STUDY,
    compiles,
    deterministic,
    gradients,
    samples,
    state,
)
from blocklab.contract.networks import deploys, trained
from blocklab.contract.options import options_change_something
from blocklab.contract.trial import (
    BATCH,
    CheckFailed,
    Place,
    Subject,
    difference,
    forward,
    gradients_of,
    randomised,
    set_seed,
    where,
)
from blocklab.measure.cost import cost
from blocklab.models.spec import ModelSpec

CLASSES = 5
_UNIT = 4  # a map of 7x5 is tried as an image so many times the last stage's reduction, at most


class BackboneSubject(Subject):
    """The backbone that is checked, as a network of it."""

    def config(self, spec: BlockSpec | None = None, **added: Any) -> OwnConfig:
        """Return its configuration; `added` are of what is added to it."""
        options = {key: value for key, value in (spec or self.spec).items() if key != "type"}
        return own_family(self.info)[1].model_validate({**options, **added})

    def network(self, classes: int = CLASSES, in_chans: int = 3, **added: Any) -> OwnBackbone:
        """Build a network of it from a seed."""
        set_seed(0)
        return own_family(self.info)[0](self.config(**added), classes, in_chans)

    @property
    def model(self) -> ModelSpec:
        """It as a model; with stochastic depth, if it takes that."""
        takes = "drop_path_rate" in self.info.slot_parameters
        return ModelSpec(
            self.info.versioned_name, self.config(drop_path_rate=0.1 if takes else 0.0)
        )

    @cached_property
    def reduction(self) -> int:
        """By how much the image shrinks."""
        return self.config().anatomy().reductions[-1]

    def places(self, planes: int = 3, spec: BlockSpec | None = None) -> list[Place]:
        return [{"channels": 3}]

    def build(
        self,
        place: Place,
        *,
        spec: BlockSpec | None = None,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        random: bool = True,
    ) -> nn.Module:
        set_seed(seed)
        network = own_family(self.info)[0](self.config(spec), CLASSES, 3).to(dtype)
        return randomised(network) if random else network

    def images(
        self,
        place: Place,
        size: tuple[int, int] = (7, 5),
        *,
        batch: int = BATCH,
        dtype: torch.dtype = torch.float32,
        seed: int = 100,
    ) -> Tensor:
        unit = max(_UNIT, self.reduction)
        generator = torch.Generator().manual_seed(seed)
        sides = size[0] * unit, size[1] * unit
        return torch.randn(batch, place["channels"], *sides, generator=generator, dtype=dtype)


def builds(subject: BackboneSubject) -> str:
    """It is built for other classes and channels, and without a head."""
    for classes, in_chans in ((CLASSES, 3), (0, 3), (CLASSES, 1)):
        with where(f"built with {classes} classes and {in_chans} channels"):
            network = subject.network(classes, in_chans)
    params = sum(parameter.numel() for parameter in network.parameters())
    anatomy = subject.config().anatomy()
    widths = ", ".join(map(str, anatomy.widths))
    reductions = ", ".join(map(str, anatomy.reductions))
    return f"{params:,} parameters; stages of {widths} channels, at 1/{reductions} of the image"


def shapes(subject: BackboneSubject) -> str:
    """It gives logits for images that are larger, not square, and of odd sides."""
    side = subject.config().native_size
    sizes = [(side, side), (side + subject.reduction, side), (side + 3, side + 7)]
    for height, width in sizes:
        for training in (True, False):
            network = subject.network().train(training)
            what = f"{height}x{width} images in {'training' if training else 'evaluation'}"
            with where(what), torch.no_grad():
                out = network(torch.randn(2, 3, height, width))
            if tuple(out.shape) != (2, CLASSES) or not out.isfinite().all():
                raise CheckFailed(f"{what}: {tuple(out.shape)}, or not finite")
    return f"logits of {', '.join(f'{h}x{w}' for h, w in sizes)} images"


def head(subject: BackboneSubject) -> str:
    """`forward_head` of `forward_features` is `forward`; `reset_classifier` gives another head."""
    network, x = _evaluated(subject)
    with torch.no_grad():
        features = network.forward_features(x)
        if features.shape[1] != network.num_features:
            raise CheckFailed(f"{features.shape[1]} features, num_features is otherwise")
        if not torch.equal(network.forward_head(features), network(x)):
            raise CheckFailed("forward_head of forward_features is not forward")
        pooled = network.forward_head(features, pre_logits=True)
        network.reset_classifier(0)
        if not torch.equal(network(x), pooled):
            raise CheckFailed("without a classifier it does not give the pooled features")
        network.reset_classifier(7)
        if tuple(network(x).shape) != (len(x), 7):
            raise CheckFailed("reset_classifier(7) gives no 7 classes")
    return f"{network.num_features} features"


def intermediates(subject: BackboneSubject) -> str:
    """`forward_intermediates` and `features_only` give each stage's map, as `feature_info` says."""
    network, x = _evaluated(subject)
    info = FeatureInfo(cast(Any, network.feature_info), len(network.stage_modules))
    count = len(network.stage_modules)
    with torch.no_grad():
        maps = cast(list[Tensor], network.forward_intermediates(x, intermediates_only=True))
        for number, (found, width, reduction) in enumerate(
            zip(maps, info.channels(), info.reduction(), strict=True), start=1
        ):
            sides = tuple(-(-side // reduction) for side in x.shape[2:])
            if tuple(found.shape) != (len(x), width, *sides):
                raise CheckFailed(
                    f"stage {number} gives {tuple(found.shape)} and not {(len(x), width, *sides)}: "
                    "a stage is to shrink all images alike"
                )
        chosen = copy.deepcopy(network)
        stages = chosen.prune_intermediate_layers((0,), prune_norm=True)
        first = FeatureGetterNet(chosen, out_indices=tuple(stages), prune=False)(x)[0]
        end, normed = cast(Any, network.forward_intermediates(x, norm=True))
        features = network.forward_features(x)
    if not torch.equal(first, maps[0]):
        raise CheckFailed("without the later stages the first stage's map is another")
    if not (torch.equal(end, features) and torch.equal(normed[-1], features)):
        raise CheckFailed("forward_intermediates ends in another map than forward_features")
    return f"{count} stages"


def layers(subject: BackboneSubject) -> str:
    """`group_matcher` sorts every parameter into a layer, for rates that decay by layer."""
    network = subject.network()
    found = group_parameters(network, network.group_matcher(), reverse=True)
    groups = cast(dict[str, int], found)
    missing = {name for name, _ in network.named_parameters()} - groups.keys()
    if missing:
        raise CheckFailed(f"{sorted(missing)[0]} is of no layer")
    return f"{1 + max(groups.values())} layers"


def channels_last(subject: BackboneSubject) -> str:
    """It gives the same values and gradients where tensors lie channels_last in memory.

    In float64: over many layers, other sums of float32 are another side of a ReLU.
    """
    plain = subject.network().double()
    moved = copy.deepcopy(plain).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = subject.images(subject.places()[0], dtype=torch.float64)
    expected, gradients_there = gradients_of(plain, x, training=True)
    with where("channels_last"):
        out, others = gradients_of(moved, x.to(memory_format=torch.channels_last), training=True)
    if not difference(out, expected) < 1e-9:
        raise CheckFailed("the output is another")
    largest = max(float(g.norm()) for g in gradients_there.values() if g is not None)
    for name, gradient in gradients_there.items():
        other = others[name]
        if gradient is not None and not (
            other is not None and float((gradient - other).norm()) < 1e-9 * largest
        ):
            raise CheckFailed(f"the gradient of {name} is another")
    return "same values and gradients"


def checkpointing(subject: BackboneSubject) -> str:
    """`set_grad_checkpointing` gives the same outputs and gradients, and counts no batch twice."""
    plain = subject.network().double()
    saving = copy.deepcopy(plain)
    saving.set_grad_checkpointing()
    x = subject.images(subject.places()[0], dtype=torch.float64)
    with where("recomputed in the backward pass"):
        found = [gradients_of(network, x, training=True) for network in (plain, saving)]
    for name, gradient in found[0][1].items():
        other = found[1][1][name]
        if gradient is not None and not (other is not None and difference(other, gradient) < 1e-9):
            raise CheckFailed(f"the gradient of {name} is another")
    for (name, one), two in zip(
        plain.state_dict().items(), saving.state_dict().values(), strict=True
    ):
        if not torch.allclose(one.double(), two.double()):
            raise CheckFailed(f"{name} is updated twice")
    return "same gradients, same statistics"


def exported(subject: BackboneSubject) -> str:
    """`torch.export` writes it, and what was written gives the same."""
    network, x = _evaluated(subject)
    with where("exported"), torch.no_grad():
        program = torch.export.export(network, (x,))
        off = difference(program.module()(x), network(x))
    if not off < 1e-5:
        raise CheckFailed(f"exported: its outputs are {100 * off:.2g} % off")
    return "torch.export: the same outputs"


def countable(subject: BackboneSubject) -> str:
    """Its cost can be counted, without memory for its weights."""
    side = subject.config().native_size
    counted = cost(subject.model, side, CLASSES)
    return f"{counted.macs:,} MACs at {side}x{side}, {counted.params:,} parameters"


def slots(subject: BackboneSubject) -> str:
    """What is added works: attention after its stages, dropout; stochastic depth if it has it."""
    added: dict[str, Any] = {"drop_rate": 0.5}
    if "attention" not in subject.info.options.model_fields:
        added["attention"] = ["se"]
    takes = "drop_path_rate" in subject.info.slot_parameters
    if takes:
        added["drop_path_rate"] = 0.5
    network = subject.network(**added)
    x = subject.images(subject.places()[0])
    with where(f"with {added}"):
        one, two = (network.train()(x) for _ in range(2))
        forward(network, x)
    if torch.equal(one, two):
        raise CheckFailed("two runs in training drop the same")
    if takes:
        # By the same seed, so that dropout of its own is no sign of it.
        for rate in (0.0, 0.5):
            still = subject.network(drop_path_rate=rate).train()
            set_seed(0)
            one, two = two, still(x)
        if torch.equal(one, two):
            raise CheckFailed("drop_path_rate drops nothing; use it or take it out")
    said = ["dropout", *["attention"] * ("attention" in added), *["stochastic depth"] * takes]
    return ", ".join(said)


def in_a_study(subject: BackboneSubject) -> str:
    """It does all that a study asks of a network, and deploys."""
    deploys(*trained(subject.model, CLASSES, subject.config().native_size))
    return "counted, trained, saved, resumed, deployed"


def _evaluated(subject: BackboneSubject) -> tuple[OwnBackbone, Tensor]:
    return subject.network().eval(), subject.images(subject.places()[0])


BACKBONE_CHECKS: dict[str, Callable[[Any], str]] = {
    "builds": builds,
    "shape": shapes,
    "head": head,
    "features_only": intermediates,
    "gradients": gradients,
    "options": options_change_something,
    "slots": slots,
    "samples": samples,
    "deterministic": deterministic,
    "state_dict": state,
    "channels_last": channels_last,
    "layers": layers,
    "checkpointing": checkpointing,
    "compile": compiles,
    "export": exported,
    "cost": countable,
    STUDY: in_a_study,
}

__all__ = ["BACKBONE_CHECKS", "BackboneSubject"]
