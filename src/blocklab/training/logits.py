"""The logits of a run's test images, kept beside its predictions in logits.npz.

They are kept in fp16, less the largest of each image: so the classes near the top, which decide,
are the most precise, and softmax, which is all that is asked of them, stays the same. A run
without the file, or whose file was deleted to save space, reads as before.
"""

import math
import os

import numpy as np
import torch
from torch import Tensor

from blocklab.errors import InputError
from blocklab.training.predictions import pack, unpack

LIMIT_VARIABLE = "BLOCKLAB_LOGITS_MB"
USUAL_LIMIT_MB = 64.0
BYTES_A_LOGIT = 2
_NAME = "logits"


def limit_mb() -> float:
    """Return how many megabytes of logits a run keeps at most, as the environment says.

    Raises:
        InputError: if that is no number of megabytes.
    """
    given = os.environ.get(LIMIT_VARIABLE) or str(USUAL_LIMIT_MB)
    try:
        limit = float(given)
    except ValueError:
        limit = math.nan
    if not 0 <= limit < math.inf:
        raise InputError(f"{LIMIT_VARIABLE} is megabytes, 0 to keep no logits, not '{given[:40]}'")
    return limit


def too_many(images: int, classes: int, limit: float = USUAL_LIMIT_MB) -> str | None:
    """Say why logits of so many test images and classes are not kept; None where they are."""
    size = BYTES_A_LOGIT * images * classes / 1e6
    if size <= limit:
        return None
    return (
        f"{images:,} test images of {classes:,} classes are {size:,.1f} MB of logits, more than "
        f"{limit:g} MB ({LIMIT_VARIABLE} sets the limit)"
    )


def why_none(images: int, classes: int) -> str:
    """Say why a run of so many test images and classes may have no logits."""
    kept = f"an older version trained it, {LIMIT_VARIABLE} was 0, or they were deleted"
    return too_many(images, classes) or kept


def kept_form(logits: Tensor) -> Tensor:
    """Return logits (N, C) as they are kept: fp16, 0 at each image's largest."""
    shifted = logits - logits.amax(1, keepdim=True)
    return shifted.clamp(min=torch.finfo(torch.float16).min).half()


def pack_logits(logits: np.ndarray) -> bytes:
    """Return the content of logits.npz: as it is, as packing took 0.3 s a MB and saved a sixth."""
    return pack({_NAME: logits}, compressed=False)


def unpack_logits(content: bytes, images: int, classes: int) -> np.ndarray:
    """Read logits.npz: (images, classes) in fp16.

    Raises:
        ValueError: if it is damaged, or of other images or classes.
    """
    logits = unpack(content, images, bytes_an_image=BYTES_A_LOGIT * classes).get(_NAME)
    if logits is None or logits.dtype != np.float16 or logits.shape != (images, classes):
        raise ValueError(f"it has no logits of {images:,} images and {classes:,} classes")
    return logits
