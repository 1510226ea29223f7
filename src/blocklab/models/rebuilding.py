"""Whether a network's specification builds it again: its tensors, and what it computes."""

from typing import Any, cast

from torch import nn

from blocklab.backbones.base import Backbone
from blocklab.errors import InputError, RunError
from blocklab.models.deploy import copy_of
from blocklab.models.export_trial import compare, make_trials
from blocklab.models.probe import ImageSize, check_input_size
from blocklab.models.random_state import random_state_kept
from blocklab.models.spec import ModelSpec, spec_of
from blocklab.models.weights import load_weights, match_weights


def check_rebuilds(model: nn.Module) -> None:
    """Refuse a network that its specification does not rebuild, by its tensors' names and shapes.

    Raises:
        InputError: if it is one of somebody else's, was pruned, deployed, or changed by hand.
    """
    spec = specification(model)
    if getattr(model, "pruned", ()):
        raise InputError("the network was pruned to some stages; take the whole one")
    if isinstance(model, Backbone) and model.global_pool != "avg":
        raise InputError(
            "the network gives a map (global_pool=''), which its specification does not; export it "
            "as onnx or torch_export"
        )
    known = cast(Any, model)
    size = known.pretrained_cfg["input_size"][1:]
    meta = spec.build_meta(known.num_classes, known.in_chans, tuple(size))
    try:
        match_weights(meta, model.state_dict())
    except InputError as error:
        raise InputError(
            "the network is not as its specification builds it (deployed, or a part or the head "
            f"changed by hand): {error}. Take the one before it was deployed, reset_classifier() "
            "for another head, or export it as onnx or torch_export"
        ) from None


def check_computes(model: nn.Module, size: ImageSize) -> None:
    """Refuse a network that gives something else than its specification with the same tensors.

    Raises:
        InputError: if it does, or does not take images of this size.
    """
    known, sides = cast(Any, model), check_input_size(size)
    with random_state_kept():
        given = copy_of(model, "cpu").eval().float()
        rebuilt = specification(model).build(known.num_classes, known.in_chans, sides).eval()
        load_weights(rebuilt, given.state_dict())
        trials = make_trials(given, sides, ("batch",), ())
        if not all(bool(one.isfinite().all()) for one in trials[0].expected):
            return  # what is no number cannot be compared
        try:
            compare(rebuilt, given, trials, deploy=False, fp16=False)
        except RunError:
            raise InputError(
                "the network computes something else than its specification, by the same tensors "
                "(a part without tensors was changed by hand); export it as onnx or torch_export"
            ) from None


def specification(model: nn.Module) -> ModelSpec:
    """Return what builds such a network.

    Raises:
        InputError: if it is one of somebody else's.
    """
    spec = spec_of(model)
    if spec is None:
        raise InputError(
            f"a file of tensors rebuilds a network of blocklab's, and this is a "
            f"{type(model).__name__}; export it as onnx or torch_export"
        )
    return spec
