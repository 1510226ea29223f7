"""One picture: from a file, bytes or an array to square RGB pixels."""

import io
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from blocklab.errors import InputError, error_line

MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 512_000_000
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Pillow also knows formats that start another program (EPS); only these are ever tried.
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class Picture(NamedTuple):
    """An image before it is decoded, and the words that name it in an error."""

    origin: str
    payload: bytes | Path | np.ndarray  # an array is uint8 (H, W, 3)


@dataclass(frozen=True)
class Pictures:
    """One split: `labels` int64 (N,), and an iterator over its N pictures in that order."""

    labels: np.ndarray
    items: Callable[[], Iterator[Picture]]


@dataclass(frozen=True)
class Contents:
    """What a source holds.

    `order_by_content` is for data that comes in several layouts: rows are put in an order that
    depends on the pixels alone, so that the same image has the same place in each layout.
    """

    class_names: tuple[str, ...]
    train: Pictures
    test: Pictures
    order_by_content: bool = False


@dataclass(frozen=True)
class Source:
    """Where images come from.

    `identity` is JSON that changes when the files do. `read` takes the image size and returns the
    contents. An embedded source is small and needs no cache.
    """

    name: str
    identity: Any
    read: Callable[[int | None], Contents]
    embedded: bool = False


def decode(picture: Picture, image_size: int | None) -> np.ndarray:
    """Decode to uint8 (H, W, 3); with `image_size` to (image_size, image_size, 3).

    The shorter side is resized (bicubic, antialiased) and the centre is cropped. Grey, palette,
    CMYK and 16-bit images become 8-bit RGB, transparency is dropped, and the rotation that a
    camera notes in its EXIF data is not applied: as torchvision's loader does.

    Raises:
        InputError: if it cannot be read, is no image or has over 64 megapixels.
    """
    payload = picture.payload
    if isinstance(payload, np.ndarray):
        if image_size is None or payload.shape[:2] == (image_size, image_size):
            return payload
        return np.asarray(_fit(Image.fromarray(payload), image_size))
    try:
        content = payload if isinstance(payload, bytes) else _read(payload)
        _check_png(content)
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(_too_large(picture, f"{image.width}x{image.height}"))
            rgb = _to_rgb(image)
            return np.asarray(rgb if image_size is None else _fit(rgb, image_size))
    except InputError:
        raise
    except PermissionError as error:
        raise InputError(f"no permission to read {picture.origin}; change its mode") from error
    except Image.DecompressionBombError as error:
        raise InputError(_too_large(picture, "far more")) from error
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        unknown = isinstance(error, Image.UnidentifiedImageError)
        reason = "not an image" if unknown else error_line(error, kind=False)
        raise InputError(
            f"cannot read the image {picture.origin} ({reason}); replace or remove it"
        ) from error


def natural_size(contents: Contents) -> int:
    """Side of the first training image, in pixels; the others are held to it when decoded.

    Raises:
        InputError: if it is not square.
    """
    first = next(contents.train.items())
    height, width = decode(first, None).shape[:2]
    if height != width:
        raise InputError(
            f"{first.origin} is {width}x{height} pixels, not square; set image_size, e.g. "
            f"image_size={min(height, width)}"
        )
    return height


def _read(path: Path) -> bytes:
    """Read a file; a pipe or a device, which could make us wait or read for ever, is refused."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is no ordinary file")
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"it is larger than {MAX_FILE_BYTES // 10**6} MB")
    return content


def _check_png(content: bytes) -> None:
    """Check the CRC of each chunk of a PNG: Pillow skips those of the pixels.

    Raises:
        ValueError: if one is wrong, or the file ends early.
    """
    if not content.startswith(PNG_SIGNATURE):
        return
    view, start, kind = memoryview(content), len(PNG_SIGNATURE), b""
    while kind != b"IEND":
        # A chunk: 4 bytes of length, 4 of type, the data, and the CRC-32 of type and data.
        end = start + 8 + int.from_bytes(view[start : start + 4], "big")
        if end + 4 > len(view):
            raise ValueError("the file ends early")
        if zlib.crc32(view[start + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise ValueError("a checksum in it is wrong")
        start, kind = end + 4, bytes(view[start + 4 : start + 8])


def _too_large(picture: Picture, size: str) -> str:
    return f"{picture.origin} has more than 64 megapixels ({size}); shrink or remove it"


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        image.load()
        return image
    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip at 255
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert(
            "RGB"
        )
    if image.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 bits a channel")
    if image.mode == "P":
        image = image.convert("RGBA")  # straight to RGB warns where the palette has transparency
    return image.convert("RGB")


def _fit(image: Image.Image, size: int) -> Image.Image:
    """Shorter side to `size`, then the central size x size."""
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    if width * height > MAX_PIXELS:  # a strip
        raise ValueError(f"{image.width}x{image.height} is too long and thin for {size}x{size}")
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))
