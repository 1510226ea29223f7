"""Several studies as one: a file that names them, and every run of them once.

::

    title: All tables of the report
    studies: [table_1, table_2, my_own.yaml]    # paths are seen from the file's folder
    seeds: 2                                    # optional, in place of each study's own
    settings: {epochs: 10, step_epochs: 6}      # optional, as `--set` has them

A study's file with ``datasets`` in place of ``data`` is the same study on each of them; see
`blocklab.study.datasets`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from blocklab.errors import InputError, did_you_mean, one_line
from blocklab.study.dataset_claims import is_dataset_claim
from blocklab.study.datasets import (
    on_one_dataset,
    read_dataset_claims,
    read_datasets,
    stated_claims,
)
from blocklab.study.folder_name import joined_name, safe_name, worded_changes
from blocklab.study.named_rows import row_names
from blocklab.study.relative_paths import path_from
from blocklab.study.schema import (
    CollectionFile,
    FoundStudy,
    find_study,
    is_collection,
    is_over_datasets,
    study_names,
)
from blocklab.study.statements import claims_left_out, studies_left_out
from blocklab.study.study import PlannedRun, Study

OPTIONS = ("seeds", "recipe", "data")  # of a command that changes every study


@dataclass(frozen=True)
class StudyCollection:
    """Studies under one title; a single study is a collection of one.

    `datasets` are the names of the data sets of one study that is run on each, in the order of
    `studies`, and `claims` what it claims over them; `notes` say what of the file is not in it.
    """

    name: str
    title: str
    description: str
    studies: tuple[Study, ...]
    changes: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, study: Study) -> Self:
        """Return the collection of one study."""
        return cls(study.name, study.title, study.description, (study,), study.changes)

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
        value, name, path = find_study(path_or_name)
        if is_over_datasets(value):
            return cls._over_datasets(value, name, path, changes)
        if not is_collection(value):
            return cls.of(Study.parse(value, name, path=path, **changes))
        file = _read(value, name)
        settings = changes.get("settings") or {}
        asked = {what: changes.get(what) for what in OPTIONS}  # beyond what the file itself changes
        changes["settings"] = {**file.settings, **settings}
        if changes.get("seeds") is None:
            changes["seeds"] = file.seeds
        folder = Path() if path is None else path.parent
        rows = changes.pop("rows", None)
        found: dict[str, FoundStudy] = {}
        for given in file.studies:
            one = find_study(given if given in study_names() else path_from(folder, given))
            if one.name in found:
                raise InputError(
                    f"collection '{name}' names study '{one.name}' twice; remove or rename one"
                )
            found[one.name] = one
        chosen = {study: None for study in found} if rows is None else _chosen(found, rows, name)
        studies = tuple(
            Study.parse(found[study].value, study, path=found[study].path, **changes, rows=kept)
            for study, kept in chosen.items()
        )
        made = {change.partition("=")[0] for study in studies for change in study.changes}
        narrowed = "rows" in made or len(studies) < len(found)
        options = {what: value if what in made else None for what, value in asked.items()}
        all_changes = worded_changes(settings, rows=rows if narrowed else None, **options)
        notes = studies_left_out([study for study in found if study not in chosen])
        return cls(safe_name(name), file.title, file.description, studies, all_changes, notes=notes)

    @classmethod
    def _over_datasets(
        cls, value: Any, name: str, path: Path | None, changes: dict[str, Any]
    ) -> Self:
        if changes.get("data") is not None:  # one in place of all
            alone = on_one_dataset(value, changes["data"], alone=True)
            return cls.of(Study.parse(alone, name, path=path, **changes))
        datasets = read_datasets(value, name)
        studies = tuple(
            Study.parse(one, f"{name}-{dataset}", path=path, **changes)
            for dataset, one in datasets.items()
        )
        claims = read_dataset_claims(value, name, studies)
        studies = tuple(replace(study, claims_over=claims) for study in studies)
        first = studies[0]
        return cls(
            safe_name(name),
            value["title"],
            first.description,
            studies,
            first.changes,
            tuple(datasets),
            claims,
            claims_left_out(sum(map(is_dataset_claim, stated_claims(value))) - len(claims)),
        )

    @property
    def folder_name(self) -> str:
        """What the folder of the page of all its studies is called."""
        return joined_name(self.name, self.changes)

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
    found: Mapping[str, FoundStudy], rows: Sequence[str], name: str
) -> dict[str, list[str] | None]:
    """Return the studies that have some of the rows, with those that they have."""
    given = {study: row_names(one.value) for study, one in found.items()}
    known = dict.fromkeys(row for names in given.values() for row in names)
    for row in rows:
        if row not in known:
            raise InputError(
                f"no study of '{name}' has a row '{row}'{did_you_mean(row, known) or '.'} "
                f"Its studies: {', '.join(found)}"
            )
    kept = {study: [row for row in rows if row in names] for study, names in given.items()}
    return {study: names or None for study, names in kept.items() if names}
