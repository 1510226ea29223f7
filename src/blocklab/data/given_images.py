"""Images as a program holds them: files, folders, Pillow's images, arrays and tensors."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from blocklab.data.augmentation import centre
from blocklab.data.pictures import (
    BRIGHTEST_OF_12_BITS,
    EXTENSIONS,
    MAX_PIXELS,
    Picture,
    decode_with_depth,
)
from blocklab.errors import InputError

Given = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor
_KINDS = (str, os.PathLike, Image.Image, np.ndarray, Tensor)
_HOW = "give (H, W, 3) or (H, W) arrays, or (3, H, W) tensors, of uint8 or of floats from 0 to 1"


def each_image(images: Given | Iterable[Given]) -> Iterator[tuple[str, Given]]:
    """Yield images one by one, each with what to call it: its path, or its number from 0.

    A folder is its image files, those in folders of it too, by name; an array or a tensor of four
    dimensions is a batch.

    Raises:
        InputError: for a folder without images, or what is no image.
    """
    number = 0
    if not isinstance(images, (*_KINDS, Iterable)):
        raise InputError(f"a {type(images).__name__} is no image; {_HOW}, or paths")
    for image in [images] if isinstance(images, _KINDS) else images:
        if isinstance(image, str | os.PathLike):
            for file in _files(Path(image)):
                yield str(file), file
                number += 1
        elif isinstance(image, np.ndarray | Tensor) and image.ndim == 4:
            for one in image:
                yield f"image {number}", one
                number += 1
        elif isinstance(image, _KINDS):
            yield f"image {number}", image
            number += 1
        else:
            raise InputError(f"a {type(image).__name__} is no image; {_HOW}, or paths")


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    files = sorted(file for file in found if file.suffix.lower() in EXTENSIONS)
    if not files:
        raise InputError(f"{path} holds no images ({', '.join(EXTENSIONS)}); name their folder")
    return files


def as_tensor(
    name: str, image: Given, size: int, upright: bool = False, kept_size: int | None = None
) -> Tensor:
    """Return an image as float32 (3, size, size) from 0 to 1, as `pictures.decode` reads a file.

    With `kept_size` it is read at that size, as a store keeps it, and its centre is returned.
    Floats keep their bits where they need no resizing; those of other sizes are read as 8 bits.

    Raises:
        InputError: naming the image, if it cannot be read, or its shape or values are no image's.
    """
    if isinstance(image, np.ndarray | Tensor):
        pixels = _array(name, image)
        if pixels.dtype != np.uint8:
            if pixels.shape[:2] == (kept_size or size,) * 2:
                (inner,) = centre(torch.from_numpy(pixels)[None], (size, size))
                return inner.permute(2, 0, 1)
            pixels = np.rint(pixels * 255).astype(np.uint8)
        payload: Path | Image.Image | np.ndarray = pixels
    else:
        payload = image if isinstance(image, Image.Image) else Path(image)
    picture = Picture(name, payload, upright)
    read, brightest = decode_with_depth(picture, kept_size or size, kept_size is not None)
    if 0 < (brightest or 0) <= BRIGHTEST_OF_12_BITS:
        raise InputError(
            f"{name} is nowhere brighter than {brightest} of 255, as values of 12 bits or fewer "
            "in a file of 16 are; save it with 8 bits a channel"
        )
    (inner,) = centre(torch.from_numpy(read.copy())[None], (size, size))
    return inner.permute(2, 0, 1).float() / 255


def _array(name: str, image: np.ndarray | Tensor) -> np.ndarray:
    """Return an image as uint8, or as float32 from 0 to 1: (H, W, 3)."""
    shape = tuple(image.shape)
    if isinstance(image, Tensor):
        kind = "float" if image.is_floating_point() else str(image.dtype).removeprefix("torch.")
        given = image.detach().cpu()
        pixels = (given.float() if kind == "float" else given).numpy()
    else:
        kind = "float" if np.issubdtype(image.dtype, np.floating) else str(image.dtype)
        pixels = image
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    # Channels first in a tensor and last in an array, unless only the other way makes sense.
    elif pixels.ndim == 3 and _is_channels_first(shape, isinstance(image, Tensor)):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in shape:
        raise InputError(f"{name} has the shape {shape}; {_HOW}")
    if pixels.shape[0] * pixels.shape[1] > MAX_PIXELS:
        raise InputError(f"{name} has more than 64 megapixels {shape}; shrink it")
    pixels = np.repeat(pixels, 3, 2) if pixels.shape[2] == 1 else pixels
    if kind == "uint8":
        return np.ascontiguousarray(pixels)
    if kind != "float":
        raise InputError(f"{name} is of {kind}; {_HOW}")
    if not (pixels.min() >= 0 and pixels.max() <= 1):  # nor is NaN
        raise InputError(
            f"{name} has values from {pixels.min():g} to {pixels.max():g}; floats are from 0 to 1: "
            "give it before it is normalised, or divided by 255"
        )
    return np.ascontiguousarray(pixels.astype(np.float32))


def _is_channels_first(shape: tuple[int, ...], usual: bool) -> bool:
    first, last = shape[0] in (1, 3), shape[-1] in (1, 3)
    return first if first != last else usual
