"""What a study file may hold, and where the shipped ones are."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StringConstraints, ValidationError

from blocklab.errors import InputError, did_you_mean, one_line
from blocklab.files import parse_yaml, read_yaml

_FOLDER = "studies"
MOST_SEEDS = 1000
LARGEST_SEED = 2**32 - 1  # what every random generator takes

Seed = Annotated[StrictInt, Field(ge=0, le=LARGEST_SEED)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\n\r]*$")]
Figure = Annotated[float, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ReportedFile(_Strict):
    """What a publication printed for a row.

    `errata` are numbers of the study's errata that explain its costs; `merged` and `model` (slots)
    say in which form the costs were counted, where that is not the form that trains.
    """

    macs_g: Figure | None = None
    params_m: Figure | None = None
    top1: Figure | None = Field(default=None, le=100)
    top5: Figure | None = Field(default=None, le=100)
    merged: bool = False
    model: dict[str, Any] = Field(default_factory=dict)
    errata: list[StrictInt] = Field(default_factory=list)
    note: str | None = None


class ReportedCostFile(_Strict):
    """At which size a publication counted costs, and in which form of its models."""

    input_size: Annotated[StrictInt, Field(gt=0, le=4096)] = 224
    num_classes: Annotated[StrictInt, Field(gt=0)] = 1000
    model: dict[str, Any] = Field(default_factory=dict)


class ClaimFile(_Strict):
    """A claim with the sentence that it stands for."""

    claim: str
    text: str


class TuneFile(_Strict):
    """Learning rates to try for each row, and the seeds to try them from."""

    lr: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2, max_length=100)]
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=MOST_SEEDS)] = [1000]


class RowFile(_Strict):
    """A row that is more than a model."""

    model: str | dict[str, Any]
    recipe: str | dict[str, Any] = Field(default_factory=dict)
    data: str | dict[str, Any] = Field(default_factory=dict)
    reported: ReportedFile | None = None
    note: str | None = None


class StudyFile(_Strict):
    """A study's file."""

    title: str
    description: str = ""
    data: str | dict[str, Any]
    recipe: str | dict[str, Any]
    seeds: (
        Annotated[StrictInt, Field(gt=0, le=MOST_SEEDS)]
        | Annotated[list[Seed], Field(min_length=1, max_length=MOST_SEEDS)]
    ) = 1
    varies: list[str]
    baseline: str | None = None
    model: dict[str, Any] = Field(default_factory=dict)
    rows: dict[Name, Any] | list[Name]
    reported: dict[str, ReportedFile] = Field(default_factory=dict)
    reported_cost: ReportedCostFile = ReportedCostFile()
    errata: str | dict[str, str] = Field(default_factory=dict)
    general_errata: list[StrictInt] = Field(default_factory=list)  # shown among the notes
    claims: list[str | ClaimFile] = Field(default_factory=list)
    tune: TuneFile | None = None
    notes: list[str] = Field(default_factory=list)


class CollectionFile(_Strict):
    """A file that names studies."""

    title: str
    description: str = ""
    studies: Annotated[list[str], Field(min_length=1)]


def read_study_file(value: object, name: str) -> StudyFile:
    """Check a study file's content.

    Raises:
        InputError: in one line, if it holds something else.
    """
    if is_collection(value):
        raise InputError(
            f"'{name}' is a collection of studies, not one: run `blocklab study {name}`, or "
            f"blocklab.load_studies('{name}') in Python"
        )
    if not isinstance(value, Mapping):
        raise InputError(f"study '{name}' holds no fields; see the example in the documentation")
    try:
        return StudyFile.model_validate(value)
    except ValidationError as error:
        raise InputError(one_line(error, f"study '{name}'", StudyFile.model_fields)) from None


def is_collection(value: object) -> bool:
    """Whether a file's content names studies instead of rows."""
    return isinstance(value, Mapping) and "studies" in value and "rows" not in value


def study_names() -> list[str]:
    """Names of the studies that are shipped with the package, collections of them included."""
    folder = resources.files("blocklab") / _FOLDER
    return sorted(
        file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml")
    )


def find_study(path_or_name: str | Path) -> tuple[object, str]:
    """Return the content and the name of a study file, or of one shipped with the package.

    Raises:
        InputError: if there is no such study, or its file is not YAML.
    """
    text = str(path_or_name)
    if text in study_names():
        file = resources.files("blocklab") / _FOLDER / f"{text}.yaml"
        return parse_yaml(file.read_text(encoding="utf-8"), f"study '{text}'"), text
    path = Path(text)
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(
            f"no study '{text}'{did_you_mean(text, study_names()) or ';'} "
            f"studies: {', '.join(study_names())}, or the path of a YAML file"
        )
    return read_yaml(path), path.stem


def read_errata(given: str | Mapping[str, str], name: str) -> dict[str, str]:
    """Return errata by number: a study's own, or a list that is shipped with the package.

    Raises:
        InputError: if there is no such list.
    """
    if not isinstance(given, str):
        return dict(given)
    folder = resources.files("blocklab") / _FOLDER / "errata"
    known = sorted(file.name.removesuffix(".yaml") for file in folder.iterdir())
    if given not in known:
        raise InputError(
            f"study '{name}': no errata '{given}'{did_you_mean(given, known) or ';'} "
            f"shipped: {', '.join(known)}; or write them out, as errata: {{'1': a misprint}}"
        )
    return parse_yaml((folder / f"{given}.yaml").read_text(encoding="utf-8"), f"errata '{given}'")
