"""Every named model in timm's registry, as ``blocklab_<name>``, once blocklab is imported.

``blocklab`` itself is an entry, too: it takes a whole specification, as the folders that
`hub.save_pretrained` writes give it to ``timm.create_model("local-dir:FOLDER", pretrained=True)``.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from timm.layers import register_notrace_module
from timm.models import PretrainedCfg, generate_default_cfgs, is_model, register_model
from timm.models._builder import pretrained_cfg_for_features, resolve_pretrained_cfg
from timm.models._features import FeatureGetterNet, FeatureHookNet
from timm.models._features_fx import FeatureGraphNet
from torch import nn

from blocklab.backbones.base import Backbone, input_cfg
from blocklab.backbones.config import BackboneConfig
from blocklab.backbones.registry import family_of
from blocklab.blocks.registry import registered_blocks
from blocklab.errors import InputError, error_line
from blocklab.models.factory import create_model
from blocklab.models.hub import FROM_SPEC
from blocklab.models.names import list_models
from blocklab.models.spec import ModelSpec, model_spec
from blocklab.models.timm_models import TimmConfig
from blocklab.models.weights import load_weights

PREFIX = "blocklab_"
FEATURES = ("getter", "hook", "fx")
_SOURCES = ("file", "url", "state_dict")

default_cfgs: dict[str, Any] = {}  # where timm's registry looks for what it knows of a model


def register_with_timm() -> None:
    """Register every named model with timm; a second call changes nothing."""
    for name in list_models():
        if not is_model(PREFIX + name):
            default_cfgs.update(generate_default_cfgs({PREFIX + name: timm_cfg(model_spec(name))}))
            register_model(_entry_point(name))
    if not is_model(FROM_SPEC):
        default_cfgs.update(generate_default_cfgs({FROM_SPEC: {}}))
        register_model(_from_spec)


def timm_cfg(spec: ModelSpec) -> dict[str, Any]:
    """Return what timm's registry holds of a model: its images, its first and last layers."""
    assert isinstance(spec.config, BackboneConfig)
    return input_cfg(family_of(spec.family)[0], spec.config)


def _entry_point(name: str) -> Callable[..., nn.Module]:
    def create(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: Any = None,
        cache_dir: Any = None,
        pretrained_model_args: Any = None,
        **options: Any,
    ) -> nn.Module:
        cfg = _resolve(PREFIX + name, pretrained_cfg, pretrained_cfg_overlay)
        return _build(name, cfg, pretrained, options)

    create.__name__ = create.__qualname__ = PREFIX + name  # what timm files it under
    create.__doc__ = f"Build blocklab's {name}: `blocklab.create_model` takes the same options."
    return create


def _from_spec(
    pretrained: bool = False,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: Any = None,
    cache_dir: Any = None,
    pretrained_model_args: Any = None,
    spec: Mapping[str, Any] | None = None,
    **options: Any,
) -> nn.Module:
    """Build a model from its specification: ``spec`` is `ModelSpec.to_dict`, or slots by name."""
    if spec is None:
        raise InputError(
            f"timm's '{FROM_SPEC}' needs spec=..., such as spec={{'base': 'resnet50'}}"
        )
    resolved = ModelSpec.from_dict(spec) if "family" in spec else model_spec(spec)
    if isinstance(resolved.config, TimmConfig):
        raise InputError(f"that is timm's own {resolved.config.name}: ask timm for it by that name")
    cfg = _resolve(FROM_SPEC, pretrained_cfg, pretrained_cfg_overlay)
    known = {key: value for key, value in cfg.items() if value is not None}
    if pretrained_cfg:
        options.setdefault("num_classes", known["num_classes"])
    cfg = {**timm_cfg(resolved), **(known if pretrained_cfg else {}), "architecture": FROM_SPEC}
    return _build(resolved, cfg, pretrained, options)


_from_spec.__name__ = _from_spec.__qualname__ = FROM_SPEC


def _resolve(name: str, cfg: Any, overlay: Any) -> dict[str, Any]:
    if isinstance(cfg, str):
        raise InputError(
            f"{name} has no pretrained weights tagged '{cfg}'; name a checkpoint with "
            "pretrained_cfg_overlay={'file': PATH}"
        )
    if isinstance(cfg, PretrainedCfg):
        cfg = cfg.to_dict()
    try:
        return resolve_pretrained_cfg(name, cfg, overlay).to_dict()
    except TypeError as error:
        raise InputError(
            f"{name}: pretrained_cfg is not timm's: {error_line(error, kind=False)}"
        ) from None


def _build(
    model: str | ModelSpec, cfg: dict[str, Any], pretrained: bool, options: dict[str, Any]
) -> nn.Module:
    """Build, load and wrap a model as timm does: its `create_model` takes these options.

    Weights made for other classes or channels keep a fresh head, and adapt the first convolution.
    """
    features_only = options.pop("features_only", False)
    feature_cls = options.pop("feature_cls", "getter")
    out_indices = options.pop("out_indices", None)
    global_pool = options.pop("global_pool", None)
    if isinstance(model, ModelSpec):
        chosen = {key: options.pop(key) for key in ("num_classes", "in_chans") if key in options}
        if options:
            raise InputError(f"spec says what fills the slots; put {', '.join(options)} into it")
        network: nn.Module = model.build(**chosen)
    else:
        network = create_model(model, **options)
    assert isinstance(network, Backbone)
    if isinstance(model, str):  # what a filled slot changes of it, where the caller says no other
        usual, own = timm_cfg(model_spec(model)), input_cfg(type(network), network.config)
        cfg |= {
            key: own[key] for key in own if own[key] != usual[key] and cfg.get(key) == usual[key]
        }
    if global_pool is not None:  # before weights are loaded: it puts a fresh head
        network.reset_classifier(network.num_classes, global_pool)
    network.pretrained_cfg = network.default_cfg = cfg
    if pretrained:
        source = next((cfg[key] for key in _SOURCES if cfg.get(key)), None)
        if source is None:
            raise InputError(
                f"{cfg['architecture']} has no pretrained weights; name a checkpoint with "
                "pretrained_cfg_overlay={'file': PATH}, or load it with blocklab.load_weights"
            )
        other = features_only or network.num_classes != cfg["num_classes"]
        load_weights(network, source, head="fresh" if other else "load", first_conv="adapt")
    if not features_only:
        if out_indices is not None:
            raise InputError("out_indices goes with features_only=True")
        return network
    features = _features(network, feature_cls, out_indices)
    features.pretrained_cfg = features.default_cfg = pretrained_cfg_for_features(cfg)  # type: ignore[assignment]
    return features


def _features(network: Backbone, feature_cls: object, out_indices: Any) -> nn.Module:
    if isinstance(feature_cls, type):
        feature_cls = {FeatureGetterNet: "getter", FeatureHookNet: "hook"}.get(feature_cls, "fx")
    if feature_cls not in FEATURES:
        raise InputError(f"feature_cls is one of {', '.join(FEATURES)}, not {feature_cls!r}")
    count = len(network.stage_modules)
    if feature_cls == "getter":
        chosen = network.prune_intermediate_layers(
            count if out_indices is None else out_indices, prune_norm=True
        )
        return FeatureGetterNet(network, out_indices=tuple(chosen), prune=False)
    chosen = network.chosen_stages(out_indices)
    if feature_cls == "hook":
        return FeatureHookNet(network, tuple(chosen), no_rewrite=True, flatten_sequential=False)
    for info in registered_blocks():
        _leave_untraced(info.cls)
    return FeatureGraphNet(network, tuple(chosen))


@functools.cache
def _leave_untraced(cls: type[nn.Module]) -> None:
    """Tell timm's symbolic tracer that a block is one node: what it does may depend on sizes."""
    register_notrace_module(cls)


__all__ = ["FROM_SPEC", "PREFIX", "register_with_timm", "timm_cfg"]
