"""One picture: from a file, bytes or an array to square RGB pixels."""

import io
import math
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, features

from blocklab.data.faults import Faults
from blocklab.errors import InputError, error_line

# Of 16-bit values of which white is 65,535, what a camera of 12 bits gives is no brighter in 8.
BRIGHTEST_OF_12_BITS = 15
MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 512_000_000
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Pillow also knows formats that start another program (EPS); only these are ever tried, and of
# these the ones that it was built with.
_ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
}
_BUILT_IN = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}
FORMATS = tuple(
    name for name in _ENDINGS if name not in _BUILT_IN or features.check(_BUILT_IN[name])
)
EXTENSIONS = tuple(ending for name in FORMATS for ending in _ENDINGS[name])
DEEPEST_8_BIT = 255  # of 16-bit values, of which no larger one leaves more than black
_BITS_PER_SAMPLE = 258  # a TIFF's tag
_TURNS = {  # by EXIF's orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Picture(NamedTuple):
    """An image before it is decoded, and the words that name it in an error.

    An `upright` one is turned as its EXIF data say.
    """

    origin: str
    payload: bytes | Path | Image.Image | np.ndarray | None  # an array is uint8 (H, W, 3)
    upright: bool = False


@dataclass(frozen=True)
class Pictures:
    """One split: `labels` int64 (N,), and an iterator over its N pictures in that order."""

    labels: np.ndarray
    items: Callable[[], Iterator[Picture]]


@dataclass(frozen=True)
class Contents:
    """What a source holds; `validation` are images that the user keeps for validation.

    `order_by_content` is for data that comes in several layouts: rows are put in an order that
    depends on the pixels as they come alone, so that the same image has the same place in each
    layout and at each size.
    """

    class_names: tuple[str, ...]
    train: Pictures
    test: Pictures
    validation: Pictures | None = None
    order_by_content: bool = False

    def splits(self) -> dict[str, Pictures]:
        """Return the splits that there are, by name."""
        further = {} if self.validation is None else {"validation": self.validation}
        return {"train": self.train, "test": self.test, **further}


@dataclass(frozen=True)
class Source:
    """Where images come from.

    `identity` is JSON that changes when the files do. `read` takes the image size and returns the
    contents. An embedded source is small and needs no cache. `notes` are for the user to read.
    """

    name: str
    identity: Any
    read: Callable[[int | None], Contents]
    embedded: bool = False
    notes: tuple[str, ...] = ()


def decode(picture: Picture, image_size: int | None, draft: bool = False) -> np.ndarray:
    """Decode to uint8 (H, W, 3), as `decode_with_depth` does."""
    return decode_with_depth(picture, image_size, draft)[0]


def decode_with_depth(
    picture: Picture, image_size: int | None, draft: bool = False
) -> tuple[np.ndarray, int | None]:
    """Decode to uint8 (H, W, 3); with `image_size` to (image_size, image_size, 3).

    With it comes, of a file of more than 8 bits a value, the largest of its values in 8, before
    any resizing, whose edges overshoot.

    The shorter side is resized (bicubic, antialiased) and the centre is cropped. Grey, palette,
    CMYK and 16-bit images become 8-bit RGB, transparency is dropped, and the rotation that a
    camera notes in its EXIF data is not applied (as torchvision's loader does) unless the picture
    is to be upright. Of several frames the first is taken. With `draft`, a JPEG far larger than
    `image_size` is decoded at a half, a quarter or an eighth of its size, no smaller than that:
    several times faster, and of other bits.

    Raises:
        InputError: if it cannot be read, is no image or has over 64 megapixels, or has values of
            more bits that 8 bits would not show.
    """
    payload = picture.payload
    if payload is None:
        raise InputError(f"{picture.origin} has no image; remove the row")
    if isinstance(payload, np.ndarray) and (
        image_size is None or payload.shape[:2] == (image_size, image_size)
    ):
        return payload, None
    try:
        with _opened(payload) as image:
            deep = _is_deep(image)  # which its pixels, once decoded, do not tell
            if image.width * image.height > MAX_PIXELS:
                raise InputError(_too_large(picture, f"{image.width}x{image.height}"))
            own = image is not payload  # somebody's open image is not changed in his hands
            if draft and own and image_size is not None and image.format == "JPEG":
                share = image_size / min(image.size)
                wide, high = (math.ceil(side * share) for side in image.size)
                image.draft(image.mode, (wide, high))
            rgb = _to_rgb(image)
            if picture.upright:
                rgb = _turned(rgb, image)
            brightest = int(np.asarray(rgb).max()) if deep else None
            return np.asarray(rgb if image_size is None else _fit(rgb, image_size)), brightest
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"there is no image {picture.origin}; check the path") from error
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


def _opened(
    payload: bytes | Path | Image.Image | np.ndarray,
) -> AbstractContextManager[Image.Image]:
    if isinstance(payload, Image.Image):
        return nullcontext(payload)  # its owner closes it
    if isinstance(payload, np.ndarray):
        return nullcontext(Image.fromarray(payload))
    content = payload if isinstance(payload, bytes) else _read(payload)
    _check_png(content)
    return Image.open(io.BytesIO(content), formats=FORMATS)


def natural_size(contents: Contents) -> int:
    """Side of the first image that can be read, in pixels; the others are held to it when decoded.

    Raises:
        InputError: if it is not square, or none can be read.
    """
    faults = Faults()
    for pictures in contents.splits().values():
        for picture in pictures.items():
            try:
                height, width = decode(picture, None).shape[:2]
            except InputError as error:
                faults.add(error)
                continue
            if height != width:
                raise InputError(
                    f"{picture.origin} is {width}x{height} pixels, not square; set "
                    f"data.image_size, such as data.image_size={min(height, width)}"
                )
            return height
    faults.refuse("images cannot be used")
    raise InputError("there are no images; give a folder that holds some")


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
    if image.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 bits a channel")
    if image.mode.startswith("I"):  # grey of 16 bits or more, which convert() would clip at 255
        values = np.asarray(image)
        least, most = int(values.min()), int(values.max())
        if least < 0 or most > 65_535:
            raise ValueError(
                f"its values go from {least:,} to {most:,}, and it does not say which is white; "
                "save it with 8 bits a channel"
            )
        if 0 < most <= DEEPEST_8_BIT:
            raise ValueError(
                f"its values have 16 bits or more, of which white is 65,535, and none is above "
                f"{most}: all would be black; save it with 8 bits a channel"
            )
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    deep = _is_deep(image)
    image.load()
    if image.mode == "P":
        image = image.convert("RGBA")  # straight to RGB warns where the palette has transparency
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    if deep and not rgb.getbbox():  # Pillow has dropped the lower bits by now
        raise ValueError(
            "its values have 16 bits, and all are black in 8; save it with 8 bits a channel"
        )
    return rgb


def _is_deep(image: Image.Image) -> bool:
    """Say whether the file, not yet decoded, has more than 8 bits a value."""
    if image.mode.startswith("I"):
        return True
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
        return max(bits if isinstance(bits, tuple) else (bits,)) > 8
    # Otherwise only what Pillow tells its decoder shows it: a PNG's "RGB;16B", a PPM's maximum.
    how = [tile[-1] for tile in getattr(image, "tile", ())]
    return any(
        "16B" in str(given)
        or (image.format == "PPM" and isinstance(given, tuple) and given[-1] > 255)
        for given in how
    )


def _turned(rgb: Image.Image, image: Image.Image) -> Image.Image:
    """Turn or mirror an image as the EXIF data of its file say."""
    turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return rgb if turn is None else rgb.transpose(turn)


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
