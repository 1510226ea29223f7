"""Several studies as one: a file that names them, and every run of them once.

::

    title: All tables of the report
    studies: [table_1, table_2, my_own.yaml]    # paths are seen from the file's folder
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from blocklab.errors import InputError, did_you_mean, one_line
from blocklab.study.ablation import ablated_names
from blocklab.study.schema import CollectionFile, find_study, is_collection, study_names
from blocklab.study.study import PlannedRun, Study


@dataclass(frozen=True)
class StudyCollection:
    """Studies under one title; a single study is a collection of one."""

    name: str
    title: str
    description: str
    studies: tuple[Study, ...]

    @classmethod
    def load(cls, path_or_name: str | Path, **changes: Any) -> Self:
        """Load a collection, or one study, from a file or as shipped with the package.

        Args:
            path_or_name: as for `Study.load`.
            **changes: those of `Study.parse`. `rows` may name rows of any of the studies; studies
                that have none of them are left out.

        Raises:
            InputError: if there is no such file, or something in it or in a study is wrong.
        """
        value, name = find_study(path_or_name)
        if not is_collection(value):
            study = Study.parse(value, name, **changes)
            return cls(study.name, study.title, study.description, (study,))
        file = _read(value, name)
        shipped = str(path_or_name) in study_names()
        folder = Path() if shipped else Path(path_or_name).parent
        rows = changes.pop("rows", None)
        found = {}
        for given in file.studies:
            content, own_name = find_study(given if given in study_names() else folder / given)
            if own_name in found:
                raise InputError(f"collection '{name}' names study '{own_name}' twice; remove one")
            found[own_name] = content
        chosen = {study: None for study in found} if rows is None else _chosen(found, rows, name)
        studies = tuple(
            Study.parse(found[study], study, **changes, rows=kept) for study, kept in chosen.items()
        )
        return cls(name, file.title, file.description, studies)

    def plan(self) -> Iterator[PlannedRun]:
        """Every run once, though several studies or rows may need it."""
        seen: set[str] = set()
        for study in self.studies:
            for run in study.plan():
                run_hash = run.definition.hash
                if run_hash not in seen:
                    seen.add(run_hash)
                    yield run


def _read(value: object, name: str) -> CollectionFile:
    try:
        return CollectionFile.model_validate(value)
    except ValidationError as error:
        raise InputError(one_line(error, f"collection '{name}'", CollectionFile)) from None


def _chosen(
    found: Mapping[str, object], rows: Sequence[str], name: str
) -> dict[str, list[str] | None]:
    """Return the studies that have some of the rows, with those that they have."""
    given = {study: _row_names(content) for study, content in found.items()}
    known = dict.fromkeys(row for names in given.values() for row in names)
    for row in rows:
        if row not in known:
            raise InputError(
                f"no study of '{name}' has a row '{row}'{did_you_mean(row, known) or '.'} "
                f"Its studies: {', '.join(found)}"
            )
    kept = {study: [row for row in rows if row in names] for study, names in given.items()}
    return {study: names or None for study, names in kept.items() if names}


def _row_names(content: object) -> list[str]:
    if not isinstance(content, Mapping):
        return []
    ablate, rows = content.get("ablate"), content.get("rows")
    if isinstance(ablate, Mapping) and isinstance(ablate.get("full"), Mapping):
        rows = ablated_names([change for change in ablate["full"] if isinstance(change, str)])
    return [row for row in rows if isinstance(row, str)] if isinstance(rows, list | dict) else []
