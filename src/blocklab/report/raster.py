"""Small pictures made of pixels, as addresses that a figure holds in itself."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 128  # pixels, about, of a picture that is drawn

Pixels = NDArray[np.uint8]  # (H, W, 3)

# Of light alone, so that it reads in grey and to every kind of colour vision: black to pale yellow.
_HEAT = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)])
_SIGNED = np.array([(5, 80, 150), (146, 197, 222), (247, 247, 247), (244, 165, 130), (178, 34, 34)])


def data_address(pixels: Pixels, side: int = SIDE) -> str:
    """Return an image (H, W, 3) as a ``data:`` address, enlarged by whole pixels."""
    height, width = pixels.shape[:2]
    times = max(1, side // max(height, width))
    large = width * times, height * times
    image = Image.fromarray(pixels).resize(large, Image.Resampling.NEAREST)
    written = io.BytesIO()
    image.save(written, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()


def heat(values: NDArray[np.floating]) -> Pixels:
    """Colour values (H, W) from 0, black, to 1, pale yellow."""
    return _coloured(values, _HEAT)


def signed(values: NDArray[np.floating]) -> Pixels:
    """Colour values (H, W) from -1, blue, over 0, white, to 1, red."""
    return _coloured((values + 1) / 2, _SIGNED)


def scaled(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Stretch values to 0 and 1; what is all of one value is 0."""
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros(values.shape)


def overlaid(image: Pixels, values: NDArray[np.floating], share: float = 0.55) -> Pixels:
    """Lay values (h, w) from 0 to 1, enlarged, over a grey copy of an image (H, W, 3)."""
    height, width = image.shape[:2]
    map_ = Image.fromarray(values.astype(np.float32))
    map_ = map_.resize((width, height), Image.Resampling.BILINEAR)
    grey = image.astype(np.float64) @ [0.299, 0.587, 0.114]
    mixed = share * heat(np.asarray(map_)) + (1 - share) * grey[:, :, None]
    return np.rint(mixed).astype(np.uint8)


def _coloured(values: NDArray[np.floating], stops: NDArray[np.int64]) -> Pixels:
    places = np.linspace(0, 1, len(stops))
    known = np.clip(np.nan_to_num(values), 0, 1)
    return np.stack(
        [np.rint(np.interp(known, places, stops[:, channel])) for channel in range(3)], -1
    ).astype(np.uint8)
