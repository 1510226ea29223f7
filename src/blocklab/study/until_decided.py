"""`seeds: until_decided`: the looks of a study that stops each row once it is decided.

Written so, or with what differs from the defaults::

    seeds: until_decided
    seeds: {until_decided: {from: 3, to: 12, looks: [3, 5, 8, 12], gain: 0.5, baseline_times: 2}}
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError

from blocklab.errors import InputError, did_you_mean, one_line
from blocklab.statistics.sequential import Looks
from blocklab.study.schema import UNTIL_DECIDED

_FIELDS = ("from", "to", "looks", "gain", "baseline_times")
_FEWEST = 2  # seeds that show a spread
_MOST = 200
_GROWTH = 1.5  # of looks that are not named


class UntilDecidedFile(BaseModel):
    """What a study file says of its looks."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    first: StrictInt | None = Field(default=None, alias="from", ge=_FEWEST, le=_MOST)
    last: StrictInt | None = Field(default=None, alias="to", ge=_FEWEST, le=_MOST)
    looks: Annotated[list[StrictInt], Field(min_length=1, max_length=20)] | None = None
    gain: Annotated[float, Field(gt=0)] = 0.5
    baseline_times: Annotated[StrictInt, Field(ge=1, le=5)] | None = None


def is_until_decided(given: object) -> bool:
    """Whether a study's seeds are looks, not a number or a list."""
    return given == UNTIL_DECIDED or isinstance(given, Mapping)


def read_until_decided(given: object, paired: bool, name: str) -> Looks:
    """Return the looks of a study.

    Raises:
        InputError: in one line, if they are no looks.
    """
    what = f"study '{name}': seeds: {UNTIL_DECIDED}"
    value = given
    if isinstance(given, Mapping) and UNTIL_DECIDED in given:
        if len(given) > 1:
            raise InputError(f"{what}: write what differs from the defaults below it, not beside")
        value = given[UNTIL_DECIDED]
    if value is None or value == UNTIL_DECIDED:
        value = {}
    if not isinstance(value, Mapping):
        raise InputError(f"{what} takes such as {{from: 3, to: 12}}, not {value!r}")
    if unknown := [key for key in value if key not in _FIELDS]:
        remedy = did_you_mean(str(unknown[0]), _FIELDS) or "."
        raise InputError(f"{what} has no '{unknown[0]}'{remedy} Known: {', '.join(_FIELDS)}")
    try:
        file = UntilDecidedFile.model_validate(value)
    except ValidationError as error:
        raise InputError(one_line(error, what)) from None
    times = file.baseline_times or (1 if paired else 2)
    if paired and times > 1:
        raise InputError(
            f"{what}: a paired study's baseline has the seeds of its rows; leave out baseline_times"
        )
    return Looks(tuple(_looks(file, what)), file.gain, times)


def _looks(file: UntilDecidedFile, what: str) -> list[int]:
    looks = file.looks
    if looks is None:
        first, last = file.first or 3, file.last or 12
        if first >= last:
            raise InputError(f"{what}: from {first} to {last} does not rise; such as from 3 to 12")
        looks = [first]
        while looks[-1] < last:
            looks.append(min(last, int(looks[-1] * _GROWTH + 0.5)))
        return looks
    if any(a >= b for a, b in pairwise(looks)) or len(looks) < 2:
        raise InputError(
            f"{what}: looks are seeds a row that rise, such as [3, 5, 8, 12], not {looks}"
        )
    if looks[0] < _FEWEST or looks[-1] > _MOST:
        raise InputError(f"{what}: looks are after {_FEWEST} to {_MOST} seeds, not {looks}")
    for end, value in ((file.first, looks[0]), (file.last, looks[-1])):
        if end not in (None, value):
            raise InputError(
                f"{what}: looks {looks} begin or end at other seeds than from and to say; leave "
                "from and to out"
            )
    return looks
