"""Weights from elsewhere: what a checkpoint calls its tensors, and what we call them.

The papers' releases, torchvision and timm name the same tensors in a few ways, which `tensor_names`
lists as rules of renaming. A design that differs is not made to fit: the model is created as the
checkpoint's design is, and a refusal names the model of the catalogue that the checkpoint fits.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from blocklab.backbones.base import Backbone
from blocklab.blocks.protocol import merge_parts, merges
from blocklab.errors import InputError, check_choice
from blocklab.models.checkpoint import Source, read_weights
from blocklab.models.containers import Weights, plain_names, unwrapped
from blocklab.models.nearest_model import COUNT, best_fit, core_shape
from blocklab.models.parts import head_names
from blocklab.models.tensor_names import FORMATS, Format


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did, by the model's names; `unexpected` ones are the file's.

    `fresh` are the head's tensors, left as they were because that was asked for; `adapted` is the
    first convolution's, where it was changed to take other channels.
    """

    source: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    fresh: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ()
    container: str | None = None  # of the file, that the tensors were taken from
    not_finite: tuple[str, ...] = ()  # loaded tensors that hold NaN or infinity

    def __str__(self) -> str:
        total = sum(map(len, (self.loaded, self.missing, self.mismatched, self.fresh)))
        left = [f"head left fresh ({_first(self.fresh)})"] if self.fresh else []
        if self.adapted:
            left.append(f"adapted to other channels: {_first(self.adapted)}")
        if self.not_finite:
            left.append(f"{len(self.not_finite)} not finite ({_first(self.not_finite)})")
        rest = "".join(f", {problem}" for problem in [*self.problems(), *left])
        inside = f" from its '{self.container}'" if self.container else ""
        return f"{self.source}: {len(self.loaded)} of {total} tensors loaded{inside}{rest}"

    def problems(self) -> list[str]:
        """Say what did not fit, the first names of each kind."""
        kinds = (
            ("missing", self.missing),
            ("left over", self.unexpected),
            ("of another shape", self.mismatched),
        )
        return [f"{len(names)} {kind} ({_first(names)})" for kind, names in kinds if names]


def load_weights(
    model: nn.Module,
    path_or_state_dict: Source,
    strict: bool = True,
    head: Literal["load", "fresh"] = "load",
    first_conv: Literal["load", "adapt"] = "load",
) -> LoadReport:
    """Load weights of any known format into a model, in place; say what was loaded.

    Args:
        model: the network, created as the design of the weights is; or a block alone.
        path_or_state_dict: a ``.safetensors`` file, a PyTorch checkpoint (read without running any
            code in it), a run's folder, the address of a file (see `checkpoint.fetch`), or tensors
            by name. Tensors may lie under ``state_dict``, ``model``, ...; averaged ones are
            preferred, as they are in a run's ``model.safetensors``. Wrappers' prefixes, such as
            DataParallel's, are taken off the file's names and the model's. Merged tensors (a
            RepLKNet's, say) merge the model's parts.
        strict: refuse unless every tensor fits; otherwise load what fits. A refused model is as it
            was.
        head: ``fresh`` leaves the model's classifier as it is, whatever the weights have.
        first_conv: ``adapt`` sums or repeats the first convolution's input channels, as timm does,
            where the model takes images of another number of channels.

    Raises:
        InputError: if the file cannot be read, nothing fits, or (strict) something does not.
        RunError: if a download fails, or a file of a finished run is damaged.
    """
    match = match_weights(model, path_or_state_dict, strict, head, first_conv)
    for holder, tensors in (("model", match.target.state_dict()), ("state dict", match.tensors)):
        if any(isinstance(tensor, Tensor) and tensor.is_meta for tensor in tensors.values()):
            raise InputError(
                f"the {holder} has no memory (it is on the meta device), so nothing can be loaded; "
                "build it on a device, or call to_empty(device='cpu') first"
            )
    for part in match.to_merge:
        merge_parts(part)
    match.target.load_state_dict(match.tensors, strict=False)
    broken = tuple(
        name for name, value in match.tensors.items() if not bool(value.isfinite().all())
    )
    return replace(match.report, not_finite=broken)


@dataclass(frozen=True)
class Match:
    """What of a checkpoint fits a model, before anything is loaded."""

    report: LoadReport
    target: nn.Module  # the network inside the model's wrappers
    tensors: Weights  # by the target's names
    to_merge: list[nn.Module]  # parts of it, to be as merged as the checkpoint's


def match_weights(
    model: nn.Module,
    path_or_state_dict: Source,
    strict: bool = True,
    head: Literal["load", "fresh"] = "load",
    first_conv: Literal["load", "adapt"] = "load",
) -> Match:
    """Return what `load_weights` would load; names and shapes alone are looked at.

    Raises:
        InputError: if the file cannot be read, nothing fits, or (strict) something does not.
        RunError: if a download fails, or a file of a finished run is damaged.
    """
    check_choice("head", head, ("load", "fresh"))
    check_choice("first_conv", first_conv, ("load", "adapt"))
    what, found = read_weights(path_or_state_dict)
    state, target = found.tensors, unwrapped(model)
    if not target.state_dict().keys() <= state.keys():
        state = {plain: state[given] for plain, given in plain_names(state).items()}
    _check_layouts(state, what)
    known, theirs = _names(state, target)
    ours = {name: state[key] for name, key in theirs.items()}
    shapes, to_merge = _expected(target, ours)
    apart: tuple[str, ...] = getattr(target, "pruned", ())  # what a pruned model has no more
    fresh: tuple[str, ...] = ()
    if head == "fresh" and (heads := _head_prefixes(target)):
        apart = (*apart, *heads)
        fresh = tuple(name for name in shapes if name.startswith(heads))
        shapes = {name: shape for name, shape in shapes.items() if not name.startswith(heads)}
    ours = {name: value for name, value in ours.items() if not name.startswith(apart)}
    adapted = _adapt_first_conv(target, ours, shapes) if first_conv == "adapt" else ()
    # A vector fits (C, 1, 1), a linear layer a 1x1 convolution: the same values.
    fitting = {
        name: ours[name].reshape(shape)
        for name, shape in shapes.items()
        if name in ours and core_shape(ours[name].shape) == core_shape(shape)
    }
    _check_types(target, fitting, what)
    report = LoadReport(
        known.name if known else ("blocklab" if shapes.keys() & ours.keys() else "unknown"),
        loaded=tuple(fitting),
        # PyTorch counts batches since 0.4.1; older releases hold no such counts.
        missing=tuple(n for n in shapes if n not in ours and not n.endswith(COUNT)),
        unexpected=tuple(theirs[name] for name in ours if name not in shapes),
        mismatched=tuple(n for n in shapes if n in ours and n not in fitting),
        fresh=fresh,
        adapted=adapted,
        container=found.container,
    )
    if not fitting or (strict and report.problems()):
        raise InputError(f"{what}: {_refusal(report, target, ours, shapes, known, len(state))}")
    return Match(report, target, fitting, to_merge)


def _check_layouts(tensors: Weights, what: str) -> None:
    """Refuse what is no plain array of numbers."""
    for name, value in tensors.items():
        if value.layout != torch.strided or value.is_quantized or value.is_nested:
            raise InputError(
                f"{what}: {name} is a sparse, packed or nested tensor; save it dense, as floats"
            )


def _check_types(model: nn.Module, tensors: Weights, what: str) -> None:
    """Refuse a cast that loses what a tensor says: of integers, of complex numbers."""
    ours = model.state_dict()
    for name, value in tensors.items():
        float_wanted = name in ours and ours[name].is_floating_point()
        if value.is_complex() or (float_wanted and not value.is_floating_point()):
            raise InputError(
                f"{what}: {name} is of {value.dtype}, not of floats; save it dequantised, as floats"
            )


def _names(state: Weights, model: nn.Module) -> tuple[Format | None, dict[str, str]]:
    """Return the format, if it is known, and for each of our names the one in `state`."""
    own = model.state_dict().keys()
    for known in FORMATS:
        theirs = known.names_of(state)
        # A user's block may name its parts as another format does: then they fit better as is.
        if theirs is not None and len(own & theirs.keys()) >= len(own & state.keys()):
            return known, theirs
    return None, {name: name for name in state}


def _expected(model: nn.Module, state: Weights) -> tuple[dict[str, torch.Size], list[nn.Module]]:
    """Return the model's shapes, as they will be after merging the parts that `state` has merged.

    The second value is those parts.
    """

    def fits(form: dict[str, torch.Size]) -> bool:
        return all(name in state and state[name].shape == shape for name, shape in form.items())

    shapes = _shapes(model)
    to_merge: dict[str, nn.Module] = {}
    for name, part in model.named_modules():
        within = f"{name}." if name else ""
        if not merges(part) or within.startswith(tuple(to_merge)):
            continue
        training = {key: shape for key, shape in shapes.items() if key.startswith(within)}
        if fits(training):
            continue
        other = copy.deepcopy(part)
        merge_parts(other)
        merged = {f"{within}{key}": shape for key, shape in _shapes(other).items()}
        if fits(merged):
            to_merge[within] = part
            shapes = {key: shape for key, shape in shapes.items() if key not in training} | merged
    return shapes, list(to_merge.values())


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {
        name: value.shape
        for name, value in module.state_dict().items()
        if isinstance(value, Tensor)
    }


def _head_prefixes(model: nn.Module) -> tuple[str, ...]:
    return tuple(f"{name}." for name in head_names(model))


def _first_conv(model: nn.Module) -> str | None:
    if isinstance(model, Backbone):
        return model.config.first_conv
    return _said_by_timm(model, "first_conv")


def _said_by_timm(model: nn.Module, what: str) -> str | None:
    """Return a part's name of which timm's models say which it is; None where it is several."""
    said = (getattr(model, "pretrained_cfg", None) or {}).get(what)
    return said if isinstance(said, str) else None


def _adapt_first_conv(
    model: nn.Module, ours: Weights, shapes: dict[str, torch.Size]
) -> tuple[str, ...]:
    """Change the first convolution's tensor in `ours` to the model's input channels."""
    first = _first_conv(model)
    if first is None:
        return ()
    name = f"{first}.weight"
    given, wanted = ours.get(name), shapes.get(name)
    if given is None or wanted is None or given.ndim != 4 or given.shape == wanted:
        return ()
    if (given.shape[0], *given.shape[2:]) != (wanted[0], *wanted[2:]):
        return ()
    ours[name] = adapt_input_conv(wanted[1], given, given.shape[1])
    return (name,)


def _refusal(
    report: LoadReport,
    model: nn.Module,
    state: Weights,
    shapes: dict[str, torch.Size],
    known: Format | None,
    count: int,
) -> str:
    """Say why weights are refused: a head of other classes in its own words."""
    if known is not None and known.foreign is not None:
        return f"its names are of {known.name}: {known.foreign}"
    heads = _head_prefixes(model)
    wrong = (*report.missing, *report.unexpected, *report.mismatched)
    if heads and report.loaded and all(name.startswith(heads) for name in wrong):
        weight = f"{heads[0]}weight"
        given, wanted = state.get(weight), shapes.get(weight, torch.Size([0]))
        if given is None:
            return 'it has no head; head="fresh" leaves the model\'s as it is'
        if not wanted[1:] or wanted[1:] == given.shape[1:]:
            return (
                f"its head has {given.shape[0]} classes, the model's {wanted[0] or 'none'}; create "
                f'the model with num_classes={given.shape[0]}, or head="fresh" leaves the head as '
                "it is"
            )
    first = _first_conv(model)
    if first and wrong == (f"{first}.weight",) and report.mismatched:
        return (
            f"it takes {state[wrong[0]].shape[1]} input channels, the model "
            f'{shapes[wrong[0]][1]}; create the model with as many, or first_conv="adapt"'
        )
    shown = [
        f"{name}: {tuple(state[name].shape)} for {tuple(shapes[name])}"
        for name in report.mismatched[:1]
    ]
    if report.loaded:
        problem, rest = ", ".join(report.problems() + shown), ", or strict=False loads what fits"
    else:
        problem, rest = f"none of its {count} tensors fits the model", ""
    return f"{problem} (its names: {report.source}); {_advice(model, state, known)}{rest}"


def _advice(model: nn.Module, state: Weights, known: Format | None) -> str:
    family = known.family if known is not None else None
    fit = best_fit(state, family) if family is not None and isinstance(model, Backbone) else None
    if fit is None or not isinstance(model, Backbone):
        return "create the model that it is of"
    if fit.spec.config == model.config:
        return "nothing in the catalogue fits it better than the model's own design"
    return f"of the catalogue it fits {fit}: create that model"


def _first(names: Iterable[str], count: int = 3) -> str:
    shown = list(names)
    return ", ".join(shown[:count]) + (", ..." if len(shown) > count else "")


__all__ = ["LoadReport", "Match", "load_weights", "match_weights"]
