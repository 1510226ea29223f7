"""The families of backbones, and the sizes that papers gave names to."""

from typing import Any

from blocklab.backbones.base import Backbone
from blocklab.backbones.config import BackboneConfig
from blocklab.backbones.own import KIND, own_backbone, own_family
from blocklab.backbones.replknet import RepLKNet, RepLKNetConfig
from blocklab.backbones.resnet import ResNet, ResNetConfig
from blocklab.backbones.van import VAN, VANConfig
from blocklab.blocks.registry import registered_blocks

FAMILIES: dict[str, tuple[type[Backbone], type[BackboneConfig]]] = {
    "resnet": (ResNet, ResNetConfig),
    "van": (VAN, VANConfig),
    "replknet": (RepLKNet, RepLKNetConfig),
}


def _imagenet_resnet(block: str, *depths: int) -> tuple[str, dict[str, Any]]:
    return "resnet", {"block": block, "depths": depths}


def _cifar_resnet(depth: int) -> tuple[str, dict[str, Any]]:
    # Section 4.2 of the paper: 6n + 2 layers, widths 16-32-64, shortcuts without parameters.
    sizes = {"block": "basic", "depths": ((depth - 2) // 6,) * 3, "widths": (16, 32, 64)}
    return "resnet", {**sizes, "stem": "cifar", "downsample": "pad"}


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
