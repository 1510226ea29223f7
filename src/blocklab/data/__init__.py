"""Images: where they come from, how they are split, and batches of them on the device."""

from blocklab.data.images import ImageData, open_data
from blocklab.data.loader import Augmentation, Batches
from blocklab.data.spec import DataSpec
from blocklab.data.split import Split, stratified_split

__all__ = [
    "Augmentation",
    "Batches",
    "DataSpec",
    "ImageData",
    "Split",
    "open_data",
    "stratified_split",
]
