"""collection.json: which studies share a page, so that it is made from folders alone.

It lies beside that page, in the collection's folder. The studies' folders are beside that folder,
or within it, of records: then `runs` within it holds the runs of them all.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from blocklab.files import write_checked_json
from blocklab.results.checked_model import read_checked_model
from blocklab.results.over_datasets import OverDatasets
from blocklab.results.study_file import COLLECTION, STUDY
from blocklab.results.study_results import StudyResults

Name = Annotated[str, StringConstraints(pattern=r"^[^/\\\x00]+$", max_length=255)]


class CollectionJson(BaseModel):
    """The whole file: folders of studies in their order, and of one study on several data sets
    their names and what it claims over them; `notes` say what of the collection is left out."""

    model_config = ConfigDict(strict=True)

    title: str = "Studies"
    studies: Annotated[list[Name], Field(min_length=1)]
    datasets: list[str] = []
    claims: list[str] = []
    notes: list[str] = []


def read_collection(folder: Path) -> CollectionJson | None:
    """Read the collection.json of a folder; None where there is none.

    Raises:
        RunError: if it is damaged.
    """
    path = folder / COLLECTION
    if not path.exists():
        return None
    remedy = "run the collection again: finished runs are kept"
    return read_checked_model(path, CollectionJson, remedy)


def write_collection_file(folder: Path, content: CollectionJson) -> None:
    """Write collection.json to a folder.

    Raises:
        RunError: if it cannot be written.
    """
    write_checked_json(folder / COLLECTION, content.model_dump())


def folder_in(folder: Path, study: str) -> Path:
    """Return the folder of a study of the collection whose folder is given."""
    within = folder / study
    return within if (within / STUDY).exists() else folder.parent / study


def over_datasets(content: CollectionJson, results: Sequence[StudyResults]) -> OverDatasets | None:
    """Return what holds over the data sets of a study that has several; None of any other."""
    if not content.datasets:
        return None
    datasets, claims = tuple(content.datasets), tuple(content.claims)
    return OverDatasets(content.title, datasets, tuple(results), claims)
