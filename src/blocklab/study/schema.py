"""What a study file may hold, and where the shipped ones are."""

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    ValidationError,
    model_validator,
)

from blocklab.errors import InputError, did_you_mean, one_line
from blocklab.training.recipe import LARGEST_SEED
from blocklab.yaml_files import PlainModel, parse_yaml, read_yaml

_FOLDER = "studies"
MOST_SEEDS = 1000
UNTIL_DECIDED = "until_decided"  # in place of seeds
LONGEST_NAME = 200

Seed = Annotated[StrictInt, Field(ge=0, le=LARGEST_SEED)]
Figure = Annotated[float, Field(ge=0)]


class _Strict(PlainModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ReportedFile(_Strict):
    """What a publication printed for a row.

    `epoch` is that of its accuracies. `errata` are numbers of the study's errata that explain its
    costs, `see` of those that say something else of the row; `merged` and `model` (slots) say in
    which form the costs were counted, where that is not the form that trains.
    """

    macs_g: Figure | None = None
    params_m: Figure | None = None
    top1: Figure | None = Field(default=None, le=100)
    top5: Figure | None = Field(default=None, le=100)
    zeros: Annotated[StrictInt, Field(ge=0)] | None = None
    epoch: Literal["best", "last", "unknown"] = "unknown"
    merged: bool = False
    model: dict[str, Any] = Field(default_factory=dict)
    errata: list[StrictInt] = Field(default_factory=list)
    see: list[StrictInt] = Field(default_factory=list)
    note: str | None = None


class ReportedCostFile(_Strict):
    """At which size a publication counted costs, and in which form of its models."""

    input_size: Annotated[StrictInt, Field(gt=0, le=4096)] = 224
    num_classes: Annotated[StrictInt, Field(gt=0, le=1_000_000)] = 1000
    model: dict[str, Any] = Field(default_factory=dict)


class ClaimFile(_Strict):
    """A claim with the sentence that it stands for, and the errata that a reader should know."""

    claim: str
    text: str = ""
    errata: list[StrictInt] = Field(default_factory=list)


Claim = Annotated[
    ClaimFile, BeforeValidator(lambda item: {"claim": item} if isinstance(item, str) else item)
]


class TuneFile(_Strict):
    """Learning rates to try for each row, and the seeds to try them from."""

    lr: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2, max_length=100)]
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=MOST_SEEDS)] = [1000]


class DiagnoseFile(_Strict):
    """Over which test batches zeros are counted once a run has trained: from 1, both included."""

    first: Annotated[StrictInt, Field(ge=1)] = 30
    last: Annotated[StrictInt, Field(ge=1)] = 40

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.last < self.first:
            raise ValueError(f"batches {self.first} to {self.last} are no range; first comes first")
        return self


class AblateFile(_Strict):
    """A model, and the changes by name that make another of it."""

    base: str | dict[str, Any]
    full: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]


class RowFile(_Strict):
    """A row that is more than a model."""

    model: str | dict[str, Any]
    recipe: str | dict[str, Any] = Field(default_factory=dict)
    data: str | dict[str, Any] = Field(default_factory=dict)
    pretrained: str | dict[str, Any] | None = None  # given as null: from scratch
    reported: ReportedFile | None = None
    note: str | None = None


class StudyFile(_Strict):
    """A study's file."""

    title: str
    description: str = ""
    data: str | dict[str, Any]
    recipe: str | dict[str, Any]
    pretrained: str | dict[str, Any] | None = None
    seeds: Any = 1  # read by `read_seeds`, as those of the command line
    varies: list[str]
    baseline: str | None = None
    paired: StrictBool = False  # take out of differences what a seed does to every row
    margin: Annotated[float, Field(gt=0, le=100)] | None = None  # points that begin to matter
    model: dict[str, Any] = Field(default_factory=dict)
    rows: Any = None  # names, or rows by name: read by `read_rows`
    ablate: AblateFile | None = None  # in place of rows
    reported: dict[str, ReportedFile] = Field(default_factory=dict)
    reported_cost: ReportedCostFile = ReportedCostFile()
    errata: str | dict[str, str] = Field(default_factory=dict)
    general_errata: list[StrictInt] = Field(default_factory=list)  # shown among the notes
    claims: list[Claim] = Field(default_factory=list)
    tune: TuneFile | None = None
    diagnose: DiagnoseFile | None = None
    curves: Literal["test"] | None = None  # read the test set after each epoch, by any recipe
    notes: list[str] = Field(default_factory=list)


class CollectionFile(_Strict):
    """A file that names studies, and what it changes in all of them."""

    title: str
    description: str = ""
    seeds: Any = None  # read as a study's
    settings: dict[str, Any] = Field(default_factory=dict)  # fields of recipes, or of data.
    studies: Annotated[list[str], Field(min_length=1)]


def read_study_file(value: object, name: str) -> StudyFile:
    """Check a study file's content.

    Raises:
        InputError: in one line, if it holds something else.
    """
    if is_over_datasets(value):
        raise InputError(
            f"'{name}' is a study over several data sets: run `blocklab study {quote(name)}`, or "
            "blocklab.StudyCollection.load(...) in Python"
        )
    if is_collection(value):
        raise InputError(
            f"'{name}' is a collection of studies, not one: run `blocklab study {quote(name)}`, or "
            "blocklab.StudyCollection.load(...) in Python"
        )
    if not isinstance(value, Mapping):
        raise InputError(f"study '{name}' holds no fields; see the example in the documentation")
    try:
        return StudyFile.model_validate(value)
    except ValidationError as error:
        raise InputError(one_line(error, f"study '{name}'", StudyFile)) from None


def read_rows(given: object, name: str) -> dict[str, Any]:
    """Return rows by name, from a list of models' names or a mapping.

    Raises:
        InputError: if they are something else, none, or one is there twice.
    """
    if not isinstance(given, list | Mapping):
        raise InputError(
            f"study '{name}': rows are a list of models or rows by name, not {given!r}; write "
            "such as rows: [resnet20, resnet20_se]"
        )
    for row in given:
        if not is_row_name(row):
            raise InputError(
                f"study '{name}': {row!r} names no row; a row's name is a line of at most "
                f"{LONGEST_NAME} letters that can be seen: no control characters, and none that "
                "turn the direction of writing"
            )
    rows = dict(given) if isinstance(given, Mapping) else dict(zip(given, given, strict=True))
    if len(rows) != len(given):
        raise InputError(f"study '{name}' lists a row twice; give the rows names of their own")
    if not rows:
        raise InputError(f"study '{name}' has no rows; add one, such as rows: [resnet20]")
    return rows


def is_row_name(name: object) -> bool:
    """Whether tables, figures and terminals can show it: some text on one line."""
    if not isinstance(name, str) or len(name) > LONGEST_NAME:
        return False
    return name.isprintable() and bool(name.strip())


def in_list(name: str) -> str:
    """Return a row's name as it stands among others: quoted, where it has a comma itself."""
    return f'"{name}"' if "," in name else name


def read_seeds(given: object, name: str) -> tuple[int, ...]:
    """Return seeds, from how many they are or a list of them.

    Raises:
        InputError: if they are something else, too many, or one is there twice.
    """
    if isinstance(given, int) and not isinstance(given, bool):
        if not 1 <= given <= MOST_SEEDS:
            raise InputError(f"study '{name}' takes 1 to {MOST_SEEDS} seeds, not {given}")
        return tuple(range(given))
    if given == UNTIL_DECIDED:
        raise InputError(
            f"study '{name}': seeds: {UNTIL_DECIDED} stands in a study's own file, as what it says "
            "beforehand; for several studies give how many, or a list"
        )
    seeds = list(given) if isinstance(given, list | tuple) else []
    valid = all(isinstance(seed, int) and not isinstance(seed, bool) for seed in seeds)
    if not valid or not 1 <= len(seeds) <= MOST_SEEDS or len(set(seeds)) != len(seeds):
        raise InputError(
            f"study '{name}': seeds are how many, or a list of different numbers, such as "
            f"seeds: 3 or seeds: [0, 1, 2], or {UNTIL_DECIDED}, not {given!r}"
            f"{did_you_mean(str(given), [UNTIL_DECIDED])}"
        )
    for seed in seeds:
        if not 0 <= seed <= LARGEST_SEED:
            raise InputError(f"study '{name}': a seed is from 0 to {LARGEST_SEED}, not {seed}")
    return tuple(seeds)


def is_collection(value: object) -> bool:
    """Whether a file's content names studies instead of rows."""
    return isinstance(value, Mapping) and "studies" in value and "rows" not in value


def is_over_datasets(value: object) -> bool:
    """Whether a file's content is a study over several data sets."""
    return isinstance(value, Mapping) and "datasets" in value


def study_names() -> list[str]:
    """Names of the studies that are shipped with the package, collections of them included."""
    folder = resources.files("blocklab") / _FOLDER
    files = [file.name for file in folder.iterdir() if file.name.endswith(".yaml")]
    by_number = sorted(files, key=lambda file: (re.sub(r"\d+", "", file), len(file), file))
    return [file.removesuffix(".yaml") for file in by_number]  # table_2 before table_10


class FoundStudy(NamedTuple):
    """A study file's content, not yet checked; a shipped one has no path."""

    value: object
    name: str
    path: Path | None


def find_study(path_or_name: str | Path) -> FoundStudy:
    """Find a study file, or one shipped with the package.

    Raises:
        InputError: if there is no such study, or its file is not YAML.
    """
    text = str(path_or_name)
    if text in study_names():
        file = resources.files("blocklab") / _FOLDER / f"{text}.yaml"
        value = parse_yaml(file.read_text(encoding="utf-8"), f"study '{text}'")
        return FoundStudy(value, text, None)
    path = Path(text)
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(
            f"no study '{text}'{did_you_mean(text, study_names()) or ';'} "
            f"studies: {', '.join(study_names())}, or the path of a YAML file"
        )
    return FoundStudy(read_yaml(path), path.stem, path)


def study_text(path_or_name: str | Path) -> str:
    """Return the text of a study's file.

    Raises:
        InputError: as `find_study`.
    """
    _, name, path = find_study(path_or_name)
    shipped = resources.files("blocklab") / _FOLDER / f"{name}.yaml"
    return (shipped if path is None else path).read_text(encoding="utf-8")


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
