"""Weights from elsewhere: what a checkpoint calls its tensors, and what we call them.

The papers' releases, torchvision and timm name the same tensors in a few ways, which `formats`
lists as rules of renaming. A design that differs is not made to fit: the model is created as the
checkpoint's design is. timm's are (``C`` stands for `create_model`)::

    resnet50          C("resnet50"); torchvision's too
    resnet50d         C("resnet50", stem={"type": "deep", "widths": (32, 32)}, downsample="avgpool")
    res2net50_26w_4s  C("res2net50_26w_4s"); res2net50d with the two overrides of resnet50d, which
                      is the authors' v1b
    seresnet50        C("resnet50_se")
    seresnet18        C("resnet18", attention=[{"type": "se", "stages": 1, "reduction": 8},
                                               {"type": "se", "stages": [2, 3, 4]}])
    skresnet50        C("resnet50_sk", mixer={"type": "selective_kernel", "groups": 1,
                        "split_input": True, "min_hidden": 8, "hidden_divisor": 8})
    skresnet18        C("resnet18_sk", mixer={"type": "selective_kernel", "groups": 1,
                        "split_input": True, "reduction": 8, "min_hidden": 16,
                        "hidden_divisor": 16})
    attn_layer="gca"  C("resnet50", attention={"type": "global_context", "reduction": 8,
                        "norm_eps": 1e-6}); "gc" with "fusion": "scale" besides

timm's ``coord`` is our `coordinate` only when built with ``rd_ratio=1/32, se_factor=1, bias=True``;
its gcresnet50t and SK-ResNeXt are other networks.
"""

import argparse
import os
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from blocklab.blocks import ReparamLargeKernelConv
from blocklab.errors import InputError
from blocklab.models.formats import FORMATS

Weights = dict[str, Tensor]


# Where training programs put the tensors, averaged ones first: those are what was evaluated.
_CONTAINERS = ("average", "state_dict_ema", "model_ema", "state_dict", "model")
_COUNT = "num_batches_tracked"
# What reading a file that is cut short, or of another kind, ends in.
_DAMAGE = (OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError)
_PREFIXES = ("module.", "_orig_mod.", "model.")  # DataParallel, torch.compile, Lightning


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did, by the model's names; `unexpected` ones are the file's."""

    source: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]

    def __str__(self) -> str:
        total = len(self.loaded) + len(self.missing) + len(self.mismatched)
        rest = "".join(f", {problem}" for problem in self.problems())
        return f"{self.source}: {len(self.loaded)} of {total} tensors loaded{rest}"

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
    path_or_state_dict: str | os.PathLike[str] | Mapping[str, Any],
    strict: bool = True,
) -> LoadReport:
    """Load weights of any known format into a model, in place; say what was loaded.

    Args:
        model: the network, created as the design of the weights is (see the module's docstring).
        path_or_state_dict: a ``.safetensors`` file, a PyTorch checkpoint (read without running any
            code in it), a run's folder or one of its files, or tensors by name. Tensors may lie
            under ``state_dict``, ``model``, ...; averaged ones are preferred, as they are in a
            run's ``model.safetensors``. A merged RepLKNet's tensors merge the model.
        strict: refuse unless every tensor fits; otherwise load what fits. A refused model is as it
            was.

    Raises:
        InputError: if the file cannot be read, nothing fits, or (strict) something does not.
    """
    if isinstance(path_or_state_dict, Mapping):
        what, content = "the state dict", path_or_state_dict
    elif isinstance(path_or_state_dict, str | os.PathLike):
        what = os.fspath(path_or_state_dict)
        content = _read(Path(what))
    else:
        raise InputError(
            "weights are a path or tensors by name (module.state_dict()), not a "
            f"{type(path_or_state_dict).__name__}"
        )
    target = model.model if isinstance(model, FeatureGetterNet) else model
    assert isinstance(target, nn.Module)
    state = _tensors(content, what)
    source, theirs = _names(state, target)
    ours = {name: state[key] for name, key in theirs.items()}
    shapes, to_merge = _expected(target, ours)
    # A vector fits (C, 1, 1), a linear layer a 1x1 convolution: the same values.
    fitting = {
        name: ours[name].reshape(shape)
        for name, shape in shapes.items()
        if name in ours and _core(ours[name].shape) == _core(shape)
    }
    report = LoadReport(
        source,
        loaded=tuple(fitting),
        # PyTorch counts batches since 0.4.1; older releases hold no such counts.
        missing=tuple(n for n in shapes if n not in ours and not n.endswith(_COUNT)),
        unexpected=tuple(theirs[name] for name in ours if name not in shapes),
        mismatched=tuple(n for n in shapes if n in ours and n not in fitting),
    )
    if not fitting:
        raise InputError(
            f"{what}: none of its {len(state)} tensors fits the model (their names: {source}); "
            "create the model that they are of"
        )
    if strict and report.problems():
        raise InputError(f"{what}: {_refusal(report, target, ours, shapes)}")
    for module in to_merge:
        module.merge()
    target.load_state_dict(fitting, strict=False)
    return report


def _read(path: Path) -> Mapping[str, Any]:
    if path.is_dir():
        files = [path / name for name in ("model.safetensors", "last.ckpt")]
        found = next((file for file in files if file.is_file()), None)
        if found is None:
            raise InputError(
                f"{path} has neither model.safetensors nor last.ckpt; name a checkpoint or the "
                "folder of a run that has begun"
            )
        path = found
    if not path.is_file():
        raise InputError(f"no file {path}; check the path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Training programs keep their command line in a Namespace, which does nothing on loading.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise InputError(f"cannot read {path}: permission denied; check whose it is") from None
    except (SafetensorError, pickle.UnpicklingError, *_DAMAGE) as error:
        if refused := re.search(r"GLOBAL (\S+)", str(error)):
            raise InputError(
                f"{path} holds a Python object ({refused[1]}), which could run code when loaded; "
                "save the state_dict() alone, best as .safetensors"
            ) from None
        raise InputError(
            f"{path} is damaged or no checkpoint (.safetensors, or saved by PyTorch); copy or "
            "download it again"
        ) from None
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}, not tensors by name")
    return content


def _tensors(content: Mapping[str, Any], what: str) -> Weights:
    """Take the tensors out of their containers and prefixes."""
    while inner := next(
        (content[key] for key in _CONTAINERS if isinstance(content.get(key), Mapping)), None
    ):
        content = inner
    state = {
        name: value
        for name, value in content.items()
        # `n_averaged` is the count that torch.optim.swa_utils keeps beside the averaged tensors.
        if isinstance(name, str) and isinstance(value, Tensor) and name != "n_averaged"
    }
    if not state:
        raise InputError(f"{what} holds no tensors by name; give a state_dict()")
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _names(state: Weights, model: nn.Module) -> tuple[str, dict[str, str]]:
    """Return the format and, for each of our names, the one in `state`."""
    own = model.state_dict().keys()
    for known in FORMATS:
        if not any(re.search(known.mark, name) for name in state):
            continue
        theirs = {known.rename(name): name for name in state}
        # A user's block may name its parts as another format does: then they fit better as is.
        if len(theirs) == len(state) and len(own & theirs.keys()) >= len(own & state.keys()):
            return known.name, theirs
    return "blocklab" if own & state.keys() else "unknown", {name: name for name in state}


def _expected(
    model: nn.Module, state: Weights
) -> tuple[dict[str, torch.Size], list[ReparamLargeKernelConv]]:
    """Return the model's shapes, as they will be after merging kernels that are merged in `state`.

    The second value is the kernels to merge.
    """
    shapes = {
        name: value.shape for name, value in model.state_dict().items() if isinstance(value, Tensor)
    }
    to_merge = []
    for name, module in model.named_modules():
        if not isinstance(module, ReparamLargeKernelConv) or module.lkb_origin is None:
            continue
        merged, kernel = f"{name}.lkb_reparam", module.lkb_origin.conv.weight.shape
        if f"{merged}.weight" not in state or state[f"{merged}.weight"].shape != kernel:
            continue
        to_merge.append(module)
        branches = (f"{name}.lkb_origin.", f"{name}.small_conv.")
        shapes = {key: shape for key, shape in shapes.items() if not key.startswith(branches)}
        shapes |= {f"{merged}.weight": kernel, f"{merged}.bias": kernel[:1]}
    return shapes, to_merge


def _core(shape: torch.Size) -> tuple[int, ...]:
    """Return a shape without its last ones: a linear layer's and its 1x1 convolution's agree."""
    sizes = list(shape)
    while sizes and sizes[-1] == 1:
        sizes.pop()
    return tuple(sizes)


def _refusal(
    report: LoadReport, model: nn.Module, state: Weights, shapes: dict[str, torch.Size]
) -> str:
    """Say why the weights are refused: a head of other classes in its own words."""
    head = f"{getattr(model, 'classifier_name', None)}."
    if all(n.startswith(head) for n in (*report.missing, *report.unexpected, *report.mismatched)):
        given, wanted = state.get(f"{head}weight"), shapes.get(f"{head}weight", torch.Size([0]))
        if given is None:
            return "it has no head; strict=False leaves the model's as it is"
        if not wanted[1:] or wanted[1:] == given.shape[1:]:
            return (
                f"its head has {given.shape[0]} classes, the model's {wanted[0] or 'none'}; create "
                f"the model with num_classes={given.shape[0]}, or strict=False leaves the head as "
                "it is"
            )
    shown = [f"{n}: {tuple(state[n].shape)} for {tuple(shapes[n])}" for n in report.mismatched[:1]]
    return (
        f"{', '.join(report.problems() + shown)} (its names: {report.source}); create the model "
        "that it is of, or strict=False loads what fits"
    )


def _first(names: Iterable[str], count: int = 3) -> str:
    shown = list(names)
    return ", ".join(shown[:count]) + (", ..." if len(shown) > count else "")


__all__ = ["LoadReport", "load_weights"]
