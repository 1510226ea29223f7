"""Data as data: what a study's `data:` line may say."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from blocklab.data.sources import check_address, portable_address
from blocklab.errors import InputError, one_line
from blocklab.yaml_files import PlainModel

# Fields of some kinds of source alone. They came later than the others: see `definition`.
_ONLY_OF = {
    "splits": ("folder",),
    "exif": ("folder", "parquet", "hf"),
    "image_column": ("parquet", "hf"),
    "label_column": ("parquet", "hf"),
}
_LATER = (*_ONLY_OF, "kept_size", "exclude_duplicates", "vary_split")
_ABSENT = object()


class DataSpec(PlainModel):
    """Which images to use.

    Attributes:
        source: `digits`, `cifar10`, `cifar100`, `folder:PATH`, `parquet:PATH` or `hf:USER/NAME`.
        image_size: side in pixels; None is the data's own (32 for CIFAR; digits are shown at 32).
        train_images: how many images to train on, counted after the validation images are set
            aside; None is all. Which ones is fixed whatever a run's seed is, but for `vary_split`.
        test_images: how many to test on; None is all.
        validation_fraction: share of the training split set aside for validation; 0 is none. It
            does not apply where the data has validation images of its own.
        splits: of `folder:PATH`, `none` where folders that are called like splits are classes.
        exif: whether photographs are turned as their EXIF data say.
        kept_size: side in pixels at which pictures are kept, from `image_size` up: of what lies
            around the centre, random resized crops take their part. None is `image_size`.
        image_column, label_column: of parquet files, where they are not called as usual.
        exclude_duplicates: whether test images that have a copy in the training split, exact or
            near, are left out of the test.
        vary_split: whether which images are set aside for validation, and which `train_images`
            trains on, varies with the seed of a run. The test images never do.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    image_size: int | None = Field(default=None, gt=0, le=4096)
    train_images: int | None = Field(default=None, gt=0)
    test_images: int | None = Field(default=None, gt=0)
    validation_fraction: float = Field(default=0.1, ge=0, lt=1, allow_inf_nan=False)

    splits: Literal["auto", "none"] = "auto"
    exif: bool = False
    kept_size: int | None = Field(default=None, gt=0, le=4096)
    image_column: str | None = Field(default=None, min_length=1)
    label_column: str | None = Field(default=None, min_length=1)
    exclude_duplicates: bool = False
    vary_split: bool = False

    @field_validator("source")
    @classmethod
    def _known(cls, source: str) -> str:
        return check_address(source)

    @model_validator(mode="after")
    def _apply(self) -> Self:
        kind = self.source.partition(":")[0]
        for name, kinds in _ONLY_OF.items():
            given = getattr(self, name)
            if given != type(self).model_fields[name].default and kind not in kinds:
                raise InputError(
                    f"data.{name} has no meaning for '{kind}', only for {', '.join(kinds)}; leave "
                    "it out"
                )
        if self.kept_size is not None and self.image_size is None:
            raise InputError(
                f"data.kept_size={self.kept_size} needs image_size, which is cut out of it; set "
                f"e.g. image_size={self.kept_size * 7 // 8}"
            )
        if self.kept_size and self.image_size and self.kept_size < self.image_size:
            raise InputError(
                f"data.kept_size={self.kept_size} is smaller than image_size={self.image_size}, "
                f"which is cut out of it; set kept_size={self.image_size * 8 // 7}"
            )
        if self.vary_split and not self.validation_fraction and self.train_images is None:
            raise InputError(
                "data.vary_split has nothing to vary: no images are set aside for validation; set "
                "validation_fraction=0.1, or train_images"
            )
        return self

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
            raise InputError(one_line(error, "data", cls)) from error

    @classmethod
    def like(cls, fields: Mapping[str, Any], source: str, image_size: int) -> Self:
        """Describe other images that are read as those of `fields` are: upright, from columns.

        Raises:
            InputError: if there is no such source.
        """
        kind = source.partition(":")[0]
        names = [name for name, kinds in _ONLY_OF.items() if kind in kinds and name in fields]
        kept = {name: fields[name] for name in (*names, "kept_size") if name in fields}
        kept.pop("splits", None)
        return cls.parse({**kept, "source": source, "image_size": image_size})

    def definition(self) -> dict[str, Any]:
        """Return what identifies the data of a run: the fields, with a path made portable.

        Fields that came later are left out while they are at their default, so that what defined
        a run still does.

        Raises:
            InputError: if the folder of a `folder:` or `parquet:` address is not usable.
            RunError: if a data set of the hub cannot be fetched.
        """
        source = portable_address(self.source, self.splits)
        defaults = {name: type(self).model_fields[name].default for name in _LATER}
        fields = self.model_dump().items()
        kept = {name: value for name, value in fields if defaults.get(name, _ABSENT) != value}
        return {**kept, "source": source}
