"""timm's models by name: ``timm:convnext_atto``, with options of its class's constructor as slots.

What identifies one is its name, its options and a digest of its code (`code_digest`) and of its
tensors, ``convnext_atto@3f2a9c1b04de``: under another release of timm that leaves the model as it
was it is the same, and its runs are; one that changes it makes another model of it.
"""

import functools
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self, cast

import timm
import torch
from pydantic import BaseModel, ConfigDict, ValidationError, create_model, model_validator
from timm.models import get_pretrained_cfg, is_model, list_models, model_entrypoint
from torch import Tensor, nn

from blocklab.blocks.timm_code import TIMM, code_digest, sayable_options
from blocklab.errors import BlocklabError, InputError, did_you_mean, error_line, one_line
from blocklab.models.meta_device import without_memory
from blocklab.models.probe import ImageSize, blank_images, check_input_size, size_text
from blocklab.yaml_files import PlainModel

FAMILY = "timm"
_RATES = ("drop_rate", "drop_path_rate")  # and such as attn_drop_rate
_TOLD = ("num_classes", "in_chans")  # by the data, and no option
_OWN = "blocklab"  # what this package's own models begin with in timm's registry
# What a module does and its tensors do not show.
_SETTINGS = "stride padding dilation groups eps p drop_prob num_heads window_size scale".split()


class TimmConfig(BaseModel):
    """A model of timm's as data: its name with its digest, and the options that were given."""

    model_config = ConfigDict(extra="allow", frozen=True)

    model: str

    @property
    def name(self) -> str:
        """What timm calls it."""
        return self.model.partition("@")[0]

    @property
    def options(self) -> dict[str, Any]:
        """What its constructor is given beside what the data tells."""
        return dict(self.model_extra or {})

    @property
    def native_size(self) -> int:
        """The side of the images that it is made for."""
        said = self.options.get("img_size")
        return check_input_size(said)[0] if said else _native_size(self.name)


def timm_config(name: str, options: Mapping[str, Any]) -> TimmConfig:
    """Check a model's name and options; a name with a digest is to be of the code that is here.

    Raises:
        InputError: for an unknown model or option, a value of the wrong type, a model that timm
            cannot build so, or one whose code has changed.
    """
    name, _, digest = name.partition("@")
    check_name(name)
    what = f"{TIMM}{name}"
    schema = _schema(name)
    try:
        given = schema.model_validate(dict(options)).model_dump(mode="json", exclude_unset=True)
    except ValidationError as error:
        raise InputError(one_line(error, what, schema)) from None
    found = _digest(name)
    if digest and digest != found:
        raise InputError(
            f"{what} is not the one that was meant (@{digest}): timm {timm.__version__} has other "
            f"code for it (@{found}); install the timm that the run.json of its run names"
        )
    return TimmConfig.model_validate({"model": f"{name}@{found}", **given})


def option_names(name: str) -> list[str]:
    """Return what a model's constructor can be told.

    Raises:
        InputError: if timm has no such model.
    """
    name = name.partition("@")[0]
    check_name(name)
    return list(_schema(name).model_fields)


def timm_names() -> list[str]:
    """Return the names of timm's own models, as they are written here: ``timm:convnext_atto``."""
    return [f"{TIMM}{model}" for model in list_models() if not model.startswith(_OWN)]


def check_name(name: str) -> None:
    """Refuse what is no model of timm's, naming the closest.

    Raises:
        InputError: if it is none, is one of ours, or names weights, too.
    """
    if name.startswith(_OWN):
        own = name.removeprefix(_OWN).removeprefix("_") or "resnet18"
        raise InputError(f"{TIMM}{name} is blocklab's own model: write {own}")
    plain, dot, tag = name.partition(".")
    if not plain:
        raise InputError(f"'{TIMM}{name}' names no model; write one, such as {TIMM}convnext_atto")
    if is_model(plain):
        if not dot:
            return
        raise InputError(f"'{tag}' in {TIMM}{name} names weights, not a network: {TIMM}{plain}")
    raise InputError(
        f"timm {timm.__version__} has no model '{name}'"
        f"{did_you_mean(f'{TIMM}{name}', timm_names()) or '.'} `blocklab models '{TIMM}*'` lists "
        "all of them"
    )


def build_timm(
    config: TimmConfig, num_classes: int, in_chans: int, input_size: ImageSize | None
) -> nn.Module:
    """Build a model of timm's, freshly initialised.

    One that is made for images of one size is made for `input_size`, unless its options say one.

    Raises:
        InputError: if timm cannot build it so.
    """
    options = timm_arguments(config, input_size)
    network = cast(Any, _built(config.name, options, num_classes, in_chans))
    if num_classes and getattr(network, "num_classes", num_classes) != num_classes:
        raise InputError(
            f"{TIMM}{config.name} has no classifier that learns {num_classes} classes; take "
            "another model"
        )
    cfg = dict(network.pretrained_cfg)
    height, width = (cfg.get("input_size") or (3, 224, 224))[1:]
    if input_size is not None:
        height, width = check_input_size(input_size)
    cfg |= {"num_classes": num_classes, "input_size": (in_chans, height, width)}
    network.pretrained_cfg = network.default_cfg = cfg
    network.in_chans = in_chans
    return network


def timm_arguments(config: TimmConfig, input_size: ImageSize | None) -> dict[str, Any]:
    """Return what timm's `create_model` takes to build a model for images of a size."""
    options = config.options
    if input_size is not None and "img_size" in _schema(config.name).model_fields:
        options.setdefault("img_size", check_input_size(input_size))
    return options


@contextmanager
def image_errors(network: nn.Module, size: ImageSize) -> Iterator[None]:
    """Inside it, what code of timm's raises is one line: it may not take such images.

    Raises:
        InputError: in place of any error of a network that `build_timm` built, or of timm's code.
    """
    config = getattr(getattr(network, "blocklab_spec", None), "config", None)
    try:
        yield
    except (BlocklabError, NotImplementedError):  # the latter is of an operator, not of a size
        raise
    except Exception as error:
        if not isinstance(config, TimmConfig):
            if (block := _raised_by(error)) is None:
                raise
            raise InputError(
                f"timm's {block} cannot take the maps that {size_text(size)} images make there "
                f"({error_line(error)}); use images of another size, or another block"
            ) from None
        raise InputError(
            f"{TIMM}{config.name} cannot take {size_text(size)} images ({error_line(error)}); it "
            f"is made for {config.native_size}: use such images, or another model"
        ) from None


def _raised_by(error: Exception) -> str | None:
    """Return the class of timm's in whose forward pass an error was raised, if it was in one."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and type(owner).__module__.startswith("timm."):
            return type(owner).__name__
    return None


def check_logits(network: nn.Module, size: ImageSize, classes: int) -> None:
    """Run a network of timm's on the meta device, in training, as a study will.

    Raises:
        InputError: if it does not take images of the size, or gives no logits of the classes.
    """
    if getattr(network, "blocklab_spec", None) is None:
        return
    with image_errors(network, size), torch.no_grad():
        logits = network.train()(blank_images(network, size, 2))
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != (2, classes):
        raise InputError(
            f"the network gives {shape} for two images and not (2, {classes}); take one that is a "
            "classifier"
        )


def timm_features(config: TimmConfig, in_chans: int, out_indices: Any) -> nn.Module:
    """Build timm's network of the maps after a model's stages.

    Raises:
        InputError: if timm cannot make one of it.
    """
    chosen = {} if out_indices is None else {"out_indices": out_indices}
    options = {**config.options, **chosen, "features_only": True}
    return _built(config.name, options, None, in_chans)


def _built(
    name: str, options: Mapping[str, Any], num_classes: int | None, in_chans: int
) -> nn.Module:
    told: dict[str, Any] = {"in_chans": in_chans}
    if num_classes is not None:
        told["num_classes"] = num_classes
    try:
        return timm.create_model(name, pretrained=False, **told, **options)
    except BlocklabError:
        raise
    except Exception as error:  # timm's constructors raise anything
        given = ", ".join(f"{key}={value}" for key, value in {**told, **options}.items())
        raise InputError(
            f"timm cannot build {name} with {given}: {error_line(error)}; change that, or take "
            "another model"
        ) from None


@functools.cache
def _plain(name: str) -> nn.Module:
    """Build a model without memory and with nothing said, to see of which class it is."""
    with without_memory():
        return _built(name, {}, None, 3)


@functools.cache
def _schema(name: str) -> type[BaseModel]:
    taken = sayable_options(type(_plain(name)))
    options: dict[str, Any] = {
        option: (said, None) for option, (said, _) in taken.items() if option not in _TOLD
    }
    return create_model(f"timm_{name}_options", __base__=_Options, **options)


class _Options(PlainModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="after")
    def _rates(self) -> Self:
        for name in type(self).model_fields:
            rate = getattr(self, name)
            if name.endswith(_RATES) and isinstance(rate, int | float) and not 0 <= rate < 1:
                raise ValueError(f"{name} is from 0 to below 1, not {rate}")
        return self


@functools.cache
def _native_size(name: str) -> int:
    cfg = get_pretrained_cfg(name)
    size = cfg.input_size if cfg is not None and cfg.input_size else (3, 224, 224)
    return int(size[-1])


@functools.cache
def _digest(name: str) -> str:
    """Identify a model as it is with nothing said, so that its options alone tell rows apart."""
    network = _plain(name)
    tensors = [f"{key} {tuple(value.shape)}" for key, value in network.state_dict().items()]
    return code_digest(network, model_entrypoint(name), facts=[*tensors, *_settings(network)])


def _settings(network: nn.Module) -> list[str]:
    said: list[str] = []
    for name, module in network.named_modules():
        values = [f"{key}={vars(module)[key]}" for key in _SETTINGS if _is_plain(module, key)]
        said.append(f"{name} {type(module).__qualname__} {' '.join(values)}")
    return said


def _is_plain(module: nn.Module, key: str) -> bool:
    return isinstance(vars(module).get(key), int | float | str | tuple)


__all__ = [
    "FAMILY",
    "TimmConfig",
    "build_timm",
    "check_logits",
    "check_name",
    "image_errors",
    "option_names",
    "timm_arguments",
    "timm_config",
    "timm_features",
    "timm_names",
]
