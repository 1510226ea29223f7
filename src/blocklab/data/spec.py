"""Data as data: what a study's `data:` line may say."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import ConfigDict, Field, ValidationError, field_validator

from blocklab.data.sources import check_address, portable_address
from blocklab.errors import InputError, one_line
from blocklab.files import PlainModel


class DataSpec(PlainModel):
    """Which images to use.

    Attributes:
        source: `digits`, `cifar10`, `cifar100`, `folder:PATH` or `parquet:PATH`.
        image_size: side in pixels; None is the data's own (32 for CIFAR; digits are shown at 32).
        train_images: how many images to train on, counted after the validation images are set
            aside; None is all. Which ones is fixed, whatever the seed of a run.
        test_images: how many to test on; None is all.
        validation_fraction: share of the training split set aside for validation; 0 is none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    image_size: int | None = Field(default=None, gt=0, le=4096)
    train_images: int | None = Field(default=None, gt=0)
    test_images: int | None = Field(default=None, gt=0)
    validation_fraction: float = Field(default=0.1, ge=0, lt=1, allow_inf_nan=False)

    @field_validator("source")
    @classmethod
    def _known(cls, source: str) -> str:
        return check_address(source)

    @classmethod
    def parse(cls, given: str | Mapping[str, Any] | Self) -> Self:
        """Read an address (`"cifar100"`) or a mapping of fields.

        Raises:
            InputError: if a field or a value is wrong, in one line.
        """
        if isinstance(given, cls):
            return given
        fields = {"source": given} if isinstance(given, str) else given
        if not isinstance(fields, Mapping):
            raise InputError(
                f"data must be an address or fields (got {given!r}), e.g. data: digits"
            )
        try:
            return cls.model_validate(dict(fields))
        except ValidationError as error:
            raise InputError(one_line(error, "data", cls.model_fields)) from error

    def definition(self) -> dict[str, Any]:
        """Return what identifies the data of a run: the fields, with a path made portable.

        Raises:
            InputError: if the folder of a `folder:` or `parquet:` address is not usable.
        """
        return {**self.model_dump(), "source": portable_address(self.source)}
