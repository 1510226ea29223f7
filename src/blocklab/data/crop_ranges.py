"""What a random resized crop may keep of a picture, as data; read without PyTorch."""

from typing import Self

from pydantic import ConfigDict, model_validator

from blocklab.errors import InputError
from blocklab.yaml_files import PlainModel

Range = tuple[float, float]


class RandomResizedCrop(PlainModel):
    """A part of a picture, resized to the size that is trained at (Szegedy et al., CVPR 2015).

    Attributes:
        scale: least and largest area of the part, as a share of the picture's.
        ratio: least and largest width over height; their logarithm is drawn evenly.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    scale: Range = (0.08, 1.0)
    ratio: Range = (0.75, 4 / 3)

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise InputError(
                f"random_resized_crop: scale is two shares of a picture's area, above 0 and up to "
                f"1, the smaller first, not {list(self.scale)}; the usual is [0.08, 1]"
            )
        if not 0.01 <= self.ratio[0] <= self.ratio[1] <= 100:
            raise InputError(
                f"random_resized_crop: ratio is two ratios of width to height, from 0.01 to 100, "
                f"the smaller first, not {list(self.ratio)}; the usual is [0.75, 1.333]"
            )
        return self
