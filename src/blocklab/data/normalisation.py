"""How pictures are prepared: what they are normalised with, and which part of them is taken."""

from collections.abc import Sequence
from typing import Any

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

INTERPOLATION = "bicubic"  # of `blocklab.data.pictures`, as timm calls it
Channels = tuple[float, float, float]

# By the value of a recipe's `normalize`: mean and SD a channel of pixels from 0 to 1. The means of
# `cifar10` are those of its training images. Its SDs, which scripts have handed on for years, are
# means of each image's own SD; over all pixels they are 0.247, 0.243 and 0.262.
CONSTANTS: dict[str, tuple[Channels, Channels]] = {
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
}


def normalised_by(normalize: str, mean: Sequence[float], std: Sequence[float]) -> tuple[Any, Any]:
    """Return the constants of this name, or of ``dataset`` those of the data, which are given."""
    return CONSTANTS.get(normalize, (mean, std))


def crop_share(image_size: int, kept_size: int | None) -> float:
    """Which part of a picture's shorter side is cut out, as timm's ``crop_pct``."""
    return image_size / (kept_size or image_size)
