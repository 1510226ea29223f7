"""collection.json: which studies share a page, so that it is made from folders alone.

It lies beside that page, in the collection's folder. The studies' folders are beside that folder,
or within it, of records: then `runs` within it holds the runs of them all.
"""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from blocklab.errors import RunError, one_line
from blocklab.files import LARGEST_JSON, parse_checked_json, read_regular, write_checked_json
from blocklab.results.study_file import COLLECTION, STUDY

Name = Annotated[str, StringConstraints(pattern=r"^[^/\\\x00]+$", max_length=255)]


class CollectionJson(BaseModel):
    """The whole file: folders of studies in their order, and of one study on several data sets
    their names and what it claims over them."""

    model_config = ConfigDict(strict=True)

    title: str = "Studies"
    studies: Annotated[list[Name], Field(min_length=1)]
    datasets: list[str] = []
    claims: list[str] = []


def read_collection(folder: Path) -> CollectionJson | None:
    """Read the collection.json of a folder; None where there is none.

    Raises:
        RunError: if it is damaged.
    """
    path = folder / COLLECTION
    if not path.exists():
        return None
    try:
        return CollectionJson.model_validate(parse_checked_json(read_regular(path, LARGEST_JSON)))
    except (OSError, ValueError) as error:
        why = one_line(error, "it") if isinstance(error, ValidationError) else str(error)
        raise RunError(
            f"{path} is damaged ({why}); run the collection again: finished runs are kept"
        ) from None


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
