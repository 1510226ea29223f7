"""study.json: what a study asked of which runs, and what each row costs.

It lies in the study's folder, beside the folders of its runs, so that a page is made from folders
alone, without the data and without building a model.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from blocklab.errors import InputError
from blocklab.files import name_beside
from blocklab.results.checked_model import read_checked_model
from blocklab.study.schema import is_row_name
from blocklab.training.run_files import Cost, Count, Number

STUDY = "study.json"
COLLECTION = "collection.json"  # of several studies, in a folder of their own
RECORDS = "runs"  # the folder of a study's run folders, where they lie within its own


def _row_name(name: str) -> str:
    if not is_row_name(name):
        raise ValueError("it names no row")
    return name


RowName = Annotated[str, AfterValidator(_row_name)]
Seed = Annotated[str, Field(pattern=r"^\d{1,10}$")]
RunHash = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]  # names a folder, so nothing else will do


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class ReportedJson(_Strict):
    """What a publication printed for a row."""

    macs_g: Number | None = None
    params_m: Number | None = None
    top1: Number | None = None
    top5: Number | None = None
    zeros: Count | None = None
    epoch: str = "unknown"
    note: str | None = None
    errata: list[str] = []
    see: list[str] = []


class TunedJson(_Strict):
    """What was chosen for a row on validation images, and how."""

    model_config = ConfigDict(strict=True, extra="allow")

    lr: Number


class RowJson(_Strict):
    """A row: its model, its runs by seed, and its cost."""

    name: RowName
    model: dict[str, Any]
    runs: dict[Seed, RunHash]
    cost: Cost
    reported: ReportedJson | None = None
    reported_cost: Cost | None = None
    tuned: TunedJson | None = None
    note: str | None = None


class StudyJson(_Strict):
    """The whole file."""

    file: str | None = None  # a digest of the path of the study's own file
    title: str
    description: str
    data: dict[str, Any]
    recipe: dict[str, Any]
    recipe_name: str
    seeds: list[Count]
    varies: list[str]
    baseline: str | None
    paired: bool = False
    margin: Annotated[float, Field(gt=0, le=100)] | None = None
    notes: list[str]
    claims: list[str] = []
    claim_notes: dict[str, str] = {}
    command: str | None
    threads: Count | None = None
    designed: bool = False  # whether there is a design.json beside it, which older ones had not
    rows: Annotated[list[RowJson], Field(min_length=1)]

    @model_validator(mode="after")
    def _each_row_once(self) -> "StudyJson":
        names = {row.name for row in self.rows}
        runs = [run for row in self.rows for run in row.runs.values()]
        if len(names) != len(self.rows) or len(set(runs)) != len(runs):
            raise ValueError("a row or a run is in it twice")
        return self


def runs_of(folder: Path) -> Path:
    """Return where the run folders of a study's folder lie: beside it, or, of records, within it
    or within the folder of the collection that it lies in."""
    if (folder / RECORDS).is_dir():
        return folder / RECORDS
    collection = folder.absolute().parent
    return collection / RECORDS if (collection / COLLECTION).exists() else folder.parent


def read_study_file(folder: Path) -> StudyJson:
    """Read the study.json of a folder.

    Raises:
        InputError: if the folder is not a study's.
        RunError: if the file is damaged.
    """
    path = folder / STUDY
    if not path.exists():
        near = sorted(
            f.parent.name for name in (STUDY, COLLECTION) for f in folder.glob(f"*/{name}")
        )
        close = name_beside(folder)
        run = f"{close} Else" if close else ";"
        remedy = (
            f"; studies in it: {', '.join(near)}" if near else f"{run} run `blocklab study` first"
        )
        raise InputError(f"{folder} is not a study's folder{remedy}")
    return read_checked_model(path, StudyJson, "run the study again: finished runs are kept")
