"""The families of backbones, and the sizes that papers gave names to."""

from typing import Any

from blocklab.backbones.base import Backbone
from blocklab.backbones.config import BackboneConfig
from blocklab.backbones.metaformer import MetaFormer, MetaFormerConfig
from blocklab.backbones.own import KIND, own_backbone, own_family
from blocklab.backbones.replknet import RepLKNet, RepLKNetConfig
from blocklab.backbones.resnet import ResNet, ResNetConfig
from blocklab.backbones.van import VAN, VANConfig
from blocklab.blocks.registry import registered_blocks

FAMILIES: dict[str, tuple[type[Backbone], type[BackboneConfig]]] = {
    "resnet": (ResNet, ResNetConfig),
    "van": (VAN, VANConfig),
    "replknet": (RepLKNet, RepLKNetConfig),
    "metaformer": (MetaFormer, MetaFormerConfig),
}


def _imagenet_resnet(block: str, *depths: int) -> tuple[str, dict[str, Any]]:
    return "resnet", {"block": block, "depths": depths}


def _cifar_resnet(depth: int) -> tuple[str, dict[str, Any]]:
    # Section 4.2 of the paper: 6n + 2 layers, widths 16-32-64, shortcuts without parameters.
    sizes = {"block": "basic", "depths": ((depth - 2) // 6,) * 3, "widths": (16, 32, 64)}
    return "resnet", {**sizes, "stem": "cifar", "downsample": "pad"}


def _convnext(width: int, *depths: int, **changes: Any) -> tuple[str, dict[str, Any]]:
    widths = (width, 2 * width, 4 * width, 8 * width)
    return "metaformer", {"widths": widths, "depths": depths, **changes}


def _convnext_v2(width: int, *depths: int) -> tuple[str, dict[str, Any]]:
    return _convnext(width, *depths, grn=True, layer_scale=None)


def _inception_next(width: int, *depths: int, **mixer: Any) -> tuple[str, dict[str, Any]]:
    inception = {
        "mixer": {"type": "inception_depthwise", **mixer},
        "norm": "batch",
        "outer_norm": "batch",
        "mlp_ratios": (4, 4, 4, 3),
        "head_norm": False,
        "head_ratio": 3,
    }
    return _convnext(width, *depths, **inception)


def _poolformer(
    widths: tuple[int, ...], depths: tuple[int, ...], layer_scale: float
) -> tuple[str, dict[str, Any]]:
    return "metaformer", {
        "widths": widths,
        "depths": depths,
        "embedding": "overlap",
        "downsample": "conv",
        "outer_norm": None,
        "block": "double",
        "mixer": "pooling",
        "norm": "group",
        "layer_scale": layer_scale,
    }


def _mambaout(width: int, *depths: int) -> tuple[str, dict[str, Any]]:
    return "metaformer", {
        "widths": (width, 2 * width, 4 * width, 6 * width),
        "depths": depths,
        "embedding": "two_convs",
        "downsample": "conv",
        "block": "gated",
        "mlp_ratios": (8 / 3,) * 4,
        "layer_scale": None,
        "head_ratio": 4,
    }


def _unireplknet(width: int, third: int, *depths: int) -> tuple[str, dict[str, Any]]:
    # Of the third stage one block in `third` has the large kernel, the others 3x3 (section 3.2).
    large, small = ({"type": "dilated_reparam", "kernel": kernel} for kernel in (13, 3))
    changes = {
        "embedding": "two_convs",
        "downsample": "conv",
        "mixer": [small, large, [large, *[small] * (third - 1)], large],
        "attention": {"type": "se", "reduction": 4},
        "norm": "batch",
        "grn": True,
        "mlp_norm": True,
    }
    return _convnext(width, *depths, **changes)


def _slak(width: int, *depths: int) -> tuple[str, dict[str, Any]]:
    kernels = (51, 49, 47, 13)
    return _convnext(width, *depths, mixer=[{"type": "slak", "kernel": k} for k in kernels])


_POOLFORMER_S, _POOLFORMER_M = (64, 128, 320, 512), (96, 192, 384, 768)

# Name -> family and the configuration that differs from the family's defaults.
BACKBONES: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet18": _imagenet_resnet("basic", 2, 2, 2, 2),
    "resnet34": _imagenet_resnet("basic", 3, 4, 6, 3),
    "resnet50": _imagenet_resnet("bottleneck", 3, 4, 6, 3),
    "resnet101": _imagenet_resnet("bottleneck", 3, 4, 23, 3),
    "resnet152": _imagenet_resnet("bottleneck", 3, 8, 36, 3),
    **{f"resnet{depth}": _cifar_resnet(depth) for depth in (20, 32, 44, 56)},
    "van_b0": ("van", {"widths": (32, 64, 160, 256), "depths": (3, 3, 5, 2)}),
    "van_b1": ("van", {"widths": (64, 128, 320, 512), "depths": (2, 2, 4, 2)}),
    "van_b2": ("van", {"widths": (64, 128, 320, 512), "depths": (3, 3, 12, 3)}),
    "van_b3": ("van", {"widths": (64, 128, 320, 512), "depths": (3, 5, 27, 3)}),
    "replknet_31b": (
        "replknet",
        {
            "kernels": (31, 29, 27, 13),
            "widths": (128, 256, 512, 1024),
            "depths": (2, 2, 18, 2),
        },
    ),
    "convnext_tiny": _convnext(96, 3, 3, 9, 3),
    "convnext_small": _convnext(96, 3, 3, 27, 3),
    "convnext_base": _convnext(128, 3, 3, 27, 3),
    "convnextv2_atto": _convnext_v2(40, 2, 2, 6, 2),
    "convnextv2_femto": _convnext_v2(48, 2, 2, 6, 2),
    "convnextv2_pico": _convnext_v2(64, 2, 2, 6, 2),
    "convnextv2_nano": _convnext_v2(80, 2, 2, 8, 2),
    "convnextv2_tiny": _convnext_v2(96, 3, 3, 9, 3),
    "convnextv2_small": _convnext_v2(96, 3, 3, 27, 3),
    "convnextv2_base": _convnext_v2(128, 3, 3, 27, 3),
    "inception_next_atto": _inception_next(40, 2, 2, 6, 2, band=9, ratio=0.25),
    "inception_next_tiny": _inception_next(96, 3, 3, 9, 3),
    "inception_next_small": _inception_next(96, 3, 3, 27, 3),
    "inception_next_base": _inception_next(128, 3, 3, 27, 3),
    "poolformer_s12": _poolformer(_POOLFORMER_S, (2, 2, 6, 2), 1e-5),
    "poolformer_s24": _poolformer(_POOLFORMER_S, (4, 4, 12, 4), 1e-5),
    "poolformer_s36": _poolformer(_POOLFORMER_S, (6, 6, 18, 6), 1e-6),
    "poolformer_m36": _poolformer(_POOLFORMER_M, (6, 6, 18, 6), 1e-6),
    "poolformer_m48": _poolformer(_POOLFORMER_M, (8, 8, 24, 8), 1e-6),
    "unireplknet_a": _unireplknet(40, 1, 2, 2, 6, 2),
    "unireplknet_f": _unireplknet(48, 1, 2, 2, 6, 2),
    "unireplknet_p": _unireplknet(64, 1, 2, 2, 6, 2),
    "unireplknet_n": _unireplknet(80, 1, 2, 2, 8, 2),
    "unireplknet_t": _unireplknet(80, 2, 3, 3, 18, 3),
    "unireplknet_s": _unireplknet(96, 3, 3, 3, 27, 3),
    "unireplknet_b": _unireplknet(128, 3, 3, 3, 27, 3),
    "mambaout_femto": _mambaout(48, 3, 3, 9, 3),
    "mambaout_kobe": _mambaout(48, 3, 3, 15, 3),
    "mambaout_tiny": _mambaout(96, 3, 3, 9, 3),
    "mambaout_small": _mambaout(96, 3, 4, 27, 3),
    "mambaout_base": _mambaout(128, 3, 4, 27, 3),
    "slaknet_tiny": _slak(96, 3, 3, 9, 3),
    # Ours, for 32x32 images: every tap of its kernels can meet its maps (32, 16, 8 and 4 pixels).
    "replknet_31n": (
        "replknet",
        {
            "kernels": (31, 29, 15, 7),
            "widths": (32, 64, 128, 256),
            "depths": (1, 1, 3, 1),
            "stem": "cifar",
        },
    ),
}


def family_of(name: str) -> tuple[type[Backbone], type[BackboneConfig]]:
    """Return a family's network and configuration, a user's own backbone's among them.

    Raises:
        InputError: if there is none of that name, or the file of a user's has changed.
    """
    return FAMILIES[name] if name in FAMILIES else own_family(own_backbone(name))


def own_names() -> list[str]:
    """Return the names of the backbones that users' files have registered."""
    return [info.name for info in registered_blocks() if info.kind == KIND]
