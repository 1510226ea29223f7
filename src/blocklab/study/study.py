"""A study as data: rows x seeds, what the rows may differ in, and which one is the baseline.

A study file::

    title: Attention in ResNet-20
    data: {source: cifar100, train_images: 10000}
    recipe: {base: quick, epochs: 8}
    seeds: 3                        # or [0, 1, 2]
    varies: [attention]             # slots; or model, recipe, recipe.lr, data, data.image_size
    baseline: plain                 # default: the first row
    model: {stem: cifar}            # optional: slots filled alike in every row
    rows:
      plain: resnet20
      se: {base: resnet20, attention: {type: se, reduction: 8}}
      triplet: {model: resnet20_triplet, recipe: {lr: 0.05}, data: {image_size: 48},
                reported: {top1: 77.6, macs_g: 4.1}, note: what a reader must know}
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from blocklab.backbones import FAMILIES
from blocklab.data import DataSpec
from blocklab.errors import InputError, did_you_mean, one_line
from blocklab.files import parse_yaml, read_yaml
from blocklab.models import ModelSpec, model_spec
from blocklab.study.results import Reported
from blocklab.training.recipe import Recipe, load_recipe
from blocklab.training.run import RunDefinition

if TYPE_CHECKING:
    from blocklab.study.results import StudyResults

_RECIPE_PREFIX, _DATA_PREFIX = "recipe", "data"


class _Reported(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    macs_g: float | None = None
    params_m: float | None = None
    top1: float | None = None
    top5: float | None = None
    note: str | None = None


class _RowFile(BaseModel):
    model_config = ConfigDict(extra="forbid")
    model: str | dict[str, Any]
    recipe: str | dict[str, Any] = Field(default_factory=dict)
    data: str | dict[str, Any] = Field(default_factory=dict)
    reported: _Reported | None = None
    note: str | None = None


class _StudyFile(BaseModel):
    model_config = ConfigDict(extra="forbid")
    title: str
    description: str = ""
    data: str | dict[str, Any]
    recipe: str | dict[str, Any]
    seeds: int | list[int] = 1
    varies: list[str]
    baseline: str | None = None
    model: dict[str, Any] = Field(default_factory=dict)
    rows: dict[str, Any] | list[str]
    notes: list[str] = Field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """One row: a model, and how and on what it is trained."""

    name: str
    model: ModelSpec
    data: DataSpec
    recipe: Recipe
    reported: Reported | None = None
    note: str | None = None

    def definition(self, seed: int) -> RunDefinition:
        """Return what defines this row's run from a seed."""
        return RunDefinition(self.model, self.data, self.recipe, seed)


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study: its row, and what defines it."""

    row: Row
    definition: RunDefinition


@dataclass(frozen=True)
class Study:
    """Rows x seeds, checked: rows differ only in what `varies` says."""

    name: str
    title: str
    description: str
    data: DataSpec
    recipe: Recipe
    recipe_name: str
    seeds: tuple[int, ...]
    varies: tuple[str, ...]
    baseline: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def load(cls, path_or_name: str | Path, **changes: Any) -> Self:
        """Load a study file, or one that is shipped with the package, by name.

        `changes` are those of `parse`.

        Raises:
            InputError: if there is no such study, or something in it is wrong.
        """
        text = str(path_or_name)
        if text in study_names():
            file = resources.files("blocklab") / "studies" / f"{text}.yaml"
            value = parse_yaml(file.read_text(encoding="utf-8"), f"study '{text}'")
            return cls.parse(value, text, **changes)
        path = Path(text)
        if path.suffix not in (".yaml", ".yml"):
            raise InputError(
                f"no study '{text}'{did_you_mean(text, study_names()) or ';'} "
                f"studies: {', '.join(study_names())}, or the path of a YAML file"
            )
        return cls.parse(read_yaml(path), path.stem, **changes)

    @classmethod
    def parse(
        cls,
        value: object,
        name: str,
        *,
        data: str | Mapping[str, Any] | None = None,
        recipe: str | None = None,
        seeds: int | Sequence[int] | None = None,
        rows: Sequence[str] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Self:
        """Read a study from plain data.

        Args:
            value: the study file's content.
            name: what its folder of tables is called.
            data: images to use in place of the study's.
            recipe: recipe to use in place of the study's; what rows change in it still holds.
            seeds: how many seeds, or which.
            rows: names of rows to keep; the baseline is always kept.
            settings: fields of the recipe to change in all rows, or of the data (`data.` before).

        Raises:
            InputError: in one line, naming the row and the remedy.
        """
        file = _read_file(value, name)
        recipe_changes, data_changes = split_settings(settings or {})
        base_data = _merged_data(file.data if data is None else data, data_changes)
        recipe_name, base_recipe = _recipe_fields(file.recipe if recipe is None else recipe)
        given = {row: row for row in file.rows} if isinstance(file.rows, list) else file.rows
        if isinstance(file.rows, list) and len(given) != len(file.rows):
            raise InputError(f"study '{name}' lists a row twice; give the rows names of their own")
        if not given:
            raise InputError(f"study '{name}' has no rows; add one, such as rows: [resnet20]")
        baseline = file.baseline if file.baseline is not None else next(iter(given))
        if baseline not in given:
            raise InputError(
                f"study '{name}': the baseline '{baseline}' is not a row"
                f"{did_you_mean(baseline, given) or '.'} Rows: {', '.join(given)}"
            )
        built = []
        for row_name in _chosen(given, rows, baseline, name):
            what = f"row '{row_name}'"
            try:
                built.append(
                    _read_row(
                        row_name,
                        given[row_name],
                        file.model,
                        (base_data, data_changes),
                        (base_recipe, recipe_changes),
                    )
                )
            except InputError as error:
                raise InputError(f"study '{name}', {what}: {error}") from None
        study = cls(
            name=_folder_name(name),
            title=file.title,
            description=file.description,
            data=DataSpec.parse(base_data),
            recipe=Recipe.parse(base_recipe | recipe_changes, f"study '{name}': the recipe"),
            recipe_name=recipe_name,
            seeds=_seeds(file.seeds if seeds is None else seeds, name),
            varies=tuple(file.varies),
            baseline=baseline,
            rows=tuple(built),
            notes=tuple(file.notes),
        )
        study._check_rows()
        return study

    def plan(self) -> Iterator[PlannedRun]:
        """Every run: all rows from the first seed, then all from the next, and so on."""
        for seed in self.seeds:
            for row in self.rows:
                yield PlannedRun(row, row.definition(seed))

    def run(self, out: str | Path = "runs", workers: int | None = None) -> "StudyResults":
        """Train what has not finished, write the page and the tables; return the results.

        See `blocklab.study.execute.run_study`, which tells what happens on the way.

        Raises:
            InputError: if the study does not fit the data or the machine.
            RunError: if a folder cannot be written. A run that fails does not raise: see
                `StudyResults.rows[...].failed`.
        """
        from blocklab.study.execute import run_study  # processes are no business of a study's data

        return run_study(self, Path(out), workers=workers)

    def _check_rows(self) -> None:
        known = {"model", _RECIPE_PREFIX, _DATA_PREFIX, "family"}
        slots = {slot for row in self.rows for slot in FAMILIES[row.model.family][1].model_fields}
        for varied in self.varies:
            first = varied.partition(".")[0]
            if first not in known | slots:
                raise InputError(
                    f"study '{self.name}' varies '{varied}', which no row has"
                    f"{did_you_mean(first, known | slots) or '.'} "
                    "Name slots, model, recipe or data"
                )
        reference = self.rows[0]
        seen: dict[str, str] = {}
        for row in self.rows:
            same_run = seen.setdefault(row.definition(0).hash, row.name)
            if same_run != row.name:
                raise InputError(
                    f"study '{self.name}': rows '{same_run}' and '{row.name}' are the same run; "
                    "remove one"
                )
            for path in differing_paths(_flat_row(reference), _flat_row(row)):
                if not any(_covers(varied, path) for varied in self.varies):
                    raise InputError(
                        f"study '{self.name}': row '{row.name}' differs from '{reference.name}' "
                        f"in {path}, which is not in varies; add it there or make the rows alike"
                    )


def study_names() -> list[str]:
    """Names of the studies that are shipped with the package."""
    folder = resources.files("blocklab") / "studies"
    return sorted(
        file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml")
    )


def split_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part `--set` into the recipe's fields and, without their ``data.``, the data's."""
    data = {key.removeprefix("data."): v for key, v in settings.items() if key.startswith("data.")}
    return {key: v for key, v in settings.items() if not key.startswith("data.")}, data


def differing_paths(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return the keys whose values differ, or that only one of two flat mappings has."""
    missing = object()
    keys = [*first, *(key for key in second if key not in first)]
    return [key for key in keys if first.get(key, missing) != second.get(key, missing)]


def _covers(varied: str, path: str) -> bool:
    if varied == "model":
        return not path.startswith((f"{_RECIPE_PREFIX}.", f"{_DATA_PREFIX}."))
    return path == varied or path.startswith(f"{varied}.")


def _flat_row(row: Row) -> dict[str, Any]:
    """Return a row's definition as dotted paths; a list (of blocks, of widths) is one value."""
    flat: dict[str, Any] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, Mapping) and value:
            for key, item in value.items():
                walk(item, f"{path}.{key}" if path else str(key))
        else:
            flat[path] = json.dumps(value, sort_keys=True)

    definition = row.definition(0).to_dict()
    walk(definition["model"], "")
    walk(definition["recipe"], _RECIPE_PREFIX)
    walk(definition["data"], _DATA_PREFIX)
    return flat


def _read_file(value: object, name: str) -> _StudyFile:
    if not isinstance(value, Mapping):
        raise InputError(f"study '{name}' holds no fields; see the example in the documentation")
    try:
        return _StudyFile.model_validate(value)
    except ValidationError as error:
        raise InputError(one_line(error, f"study '{name}'", _StudyFile.model_fields)) from None


def _read_row(
    name: str,
    value: object,
    common: Mapping[str, Any],
    data: tuple[Mapping[str, Any], Mapping[str, Any]],
    recipe: tuple[Mapping[str, Any], Mapping[str, Any]],
) -> Row:
    if isinstance(value, str) or (isinstance(value, Mapping) and "model" not in value):
        value = {"model": value}
    try:
        file = _RowFile.model_validate(value)
    except ValidationError as error:
        raise InputError(one_line(error, "it", _RowFile.model_fields)) from None
    model: str | dict[str, Any] = file.model
    if common:
        base = {"base": model} if isinstance(model, str) else model
        model = {**common, **base}
    base_recipe, recipe_changes = recipe
    own = _recipe_fields(file.recipe)[1] if isinstance(file.recipe, str) else file.recipe
    base_data, data_changes = data
    own_data = {"source": file.data} if isinstance(file.data, str) else file.data
    return Row(
        name=name,
        model=model_spec(model),
        data=DataSpec.parse({**base_data, **own_data, **data_changes}),
        recipe=Recipe.parse({**base_recipe, **own, **recipe_changes}),
        reported=Reported(**file.reported.model_dump()) if file.reported else None,
        note=file.note,
    )


def _recipe_fields(given: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a recipe's name and all its fields, from a name or a mapping with a base."""
    if isinstance(given, str):
        return Path(given).stem, load_recipe(given).model_dump(mode="json")
    changes = dict(given)
    base = changes.pop("base", None)
    if base is None:
        return "its own", Recipe.parse(changes).model_dump(mode="json")
    fields = load_recipe(str(base), changes).model_dump(mode="json")
    return f"{Path(str(base)).stem}{' (changed)' if changes else ''}", fields


def _merged_data(given: str | Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    fields = {"source": given} if isinstance(given, str) else dict(given)
    return {**fields, **changes}


def _chosen(
    given: Mapping[str, Any], rows: Sequence[str] | None, baseline: str, name: str
) -> list[str]:
    if rows is None:
        return list(given)
    for row in rows:
        if row not in given:
            raise InputError(
                f"study '{name}' has no row '{row}'{did_you_mean(row, given) or '.'} "
                f"Rows: {', '.join(given)}"
            )
    return [row for row in given if row in rows or row == baseline]


def _seeds(given: int | Sequence[int], name: str) -> tuple[int, ...]:
    if isinstance(given, int):
        if given < 1:
            raise InputError(f"study '{name}' needs one seed or more, not {given}")
        return tuple(range(given))
    seeds = tuple(given)
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise InputError(f"study '{name}': seeds are different numbers from 0, not {list(seeds)}")
    return seeds


def _folder_name(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name).strip(".")
    if not plain:
        raise InputError(f"a study cannot be called '{name}'; rename its file")
    return plain
