"""A study's row: a model, how and on what it trains, and what a publication printed for it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from blocklab.data.spec import DataSpec
from blocklab.errors import InputError, did_you_mean, one_line
from blocklab.measure.cost import cost
from blocklab.models.pretrained import Pretrained
from blocklab.models.spec import ModelSpec, model_spec, slot_names
from blocklab.study.reported import CostAt, Reported
from blocklab.study.schema import ReportedFile, RowFile, StudyFile
from blocklab.training.recipe import Recipe, load_recipe
from blocklab.training.run_definition import RunDefinition

RECIPE_PREFIX, DATA_PREFIX, START_PREFIX = "recipe", "data", "pretrained"
CHANGED = " (changed)"  # after the name of a recipe that a study does not take as it is


@dataclass(frozen=True)
class CountedAs:
    """How a publication counted a row's cost: the form of its model, and the sizes."""

    model: ModelSpec
    input_size: int
    num_classes: int
    merged: bool  # re-parameterised kernels as the one convolution that they become


@dataclass(frozen=True)
class Row:
    """One row: a model, and how and on what it is trained."""

    name: str
    model: ModelSpec
    data: DataSpec
    recipe: Recipe
    reported: Reported | None = None
    note: str | None = None
    counted_as: CountedAs | None = None
    tuned: dict[str, Any] | None = field(default=None, compare=False)
    pretrained: Pretrained | None = None

    @property
    def reported_cost(self) -> CostAt | None:
        """Our count of what the publication counted; None where it printed no cost."""
        if self.counted_as is None:
            return None
        form = self.counted_as
        counted = cost(form.model, form.input_size, form.num_classes, merged=form.merged)
        return CostAt(counted.macs, counted.params, form.input_size)

    def definition(self, seed: int) -> RunDefinition:
        """Return what defines this row's run from a seed."""
        return RunDefinition(self.model, self.data, self.recipe, seed, self.pretrained)


def read_row(
    name: str,
    value: object,
    study: StudyFile,
    errata: Mapping[str, str],
    data: tuple[Mapping[str, Any], Mapping[str, Any]],
    recipe: tuple[Mapping[str, Any], Mapping[str, Any]],
) -> Row:
    if isinstance(value, str) or (isinstance(value, Mapping) and not _has_model(value)):
        value = {"model": value}
    if not isinstance(value, Mapping):
        raise InputError(f"a row is a model's name or slots, such as resnet20_se, not {value!r}")
    try:
        file = RowFile.model_validate(_slots_in_model(value))
    except ValidationError as error:
        raise InputError(one_line(error, "it", RowFile)) from None
    if file.reported and name in study.reported:
        raise InputError("its figures are reported twice, here and under the study's reported")
    base_recipe, recipe_changes = recipe
    own = recipe_fields(file.recipe)[1] if isinstance(file.recipe, str) else file.recipe
    if isinstance(file.recipe, str) and study.curves == "test":  # by whatever recipe
        own["test_every_epoch"] = True
    base_data, data_changes = data
    own_data = {"source": file.data} if isinstance(file.data, str) else file.data
    reported = file.reported or study.reported.get(name)
    start = file.pretrained if "pretrained" in file.model_fields_set else study.pretrained
    return Row(
        name=name,
        model=filled_model(file.model, study.model),
        data=DataSpec.parse({**base_data, **own_data, **data_changes}),
        recipe=Recipe.parse({**base_recipe, **own, **recipe_changes}),
        reported=_reported(reported, errata) if reported else None,
        note=file.note,
        counted_as=_counted_as(reported, file.model, study) if reported else None,
        pretrained=None if start is None else Pretrained.parse(start),
    )


def _has_model(value: Mapping[str, Any]) -> bool:
    """Whether a row has its model as a field, perhaps misspelt, and is not a model itself."""
    if "base" in value or "backbone" in value:
        return "model" in value
    return any(did_you_mean(key, ["model"]) for key in value)


def _slots_in_model(value: Mapping[str, Any]) -> dict[str, Any]:
    """Put the slots that stand beside a row's model into it: ``{model: resnet20, stem: deep}``."""
    fields, known = RowFile.model_fields, slot_names()
    slots = {
        key: item
        for key, item in value.items()
        if key not in fields and (key in known or not did_you_mean(str(key), fields))
    }
    model = value.get("model")
    if not slots or not isinstance(model, str | Mapping):
        return dict(value)
    own = {"base": model} if isinstance(model, str) else dict(model)
    rest = {key: item for key, item in value.items() if key not in slots}
    return {**rest, "model": {**own, **slots}}


def filled_model(model: str | dict[str, Any], common: Mapping[str, Any]) -> ModelSpec:
    """Resolve a row's model, with the slots that all rows have alike where it says nothing."""
    if not common:
        return model_spec(model)
    return model_spec({**common, **({"base": model} if isinstance(model, str) else model)})


def _reported(file: ReportedFile, errata: Mapping[str, str]) -> Reported:
    return Reported(
        macs_g=file.macs_g,
        params_m=file.params_m,
        top1=file.top1,
        top5=file.top5,
        zeros=file.zeros,
        epoch=file.epoch,
        note=file.note,
        errata=tuple(erratum_text(number, errata) for number in file.errata),
        see=tuple(erratum_text(number, errata) for number in file.see),
    )


def erratum_text(number: int, errata: Mapping[str, str]) -> str:
    """Return ``number: text``.

    Raises:
        InputError: if the study has no such erratum.
    """
    if str(number) not in errata:
        known = f"those it has: {', '.join(errata)}" if errata else "it has none"
        raise InputError(f"the study has no erratum {number}; {known}")
    return f"{number}: {errata[str(number)]}"


def _counted_as(
    reported: ReportedFile, model: str | dict[str, Any], study: StudyFile
) -> CountedAs | None:
    if reported.macs_g is None and reported.params_m is None:
        return None
    at = study.reported_cost
    filled: str | dict[str, Any] = model
    if study.model:
        filled = {**study.model, **({"base": model} if isinstance(model, str) else model)}
    form = model_spec(filled, **{**at.model, **reported.model})
    return CountedAs(form, at.input_size, at.num_classes, reported.merged)


def recipe_fields(given: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a recipe's name and all its fields, from a name or a mapping with a base."""
    if isinstance(given, str):
        return Path(given).stem, _all_fields(load_recipe(given))
    changes = dict(given)
    base = changes.pop("base", None)
    if base is None:
        return "its own", _all_fields(Recipe.parse(changes))
    name = f"{Path(str(base)).stem}{CHANGED if changes else ''}"
    return name, _all_fields(load_recipe(str(base), changes))


def _all_fields(recipe: Recipe) -> dict[str, Any]:
    """Return those too that do nothing until a row changes another, and are left out elsewhere."""
    return {**recipe.model_dump(mode="json"), "ema_warmup": recipe.ema_warmup}


def merged_data(given: str | Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    fields = {"source": given} if isinstance(given, str) else dict(given)
    return {**fields, **changes}


def split_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part `--set` into the recipe's fields and, without their ``data.``, the data's."""
    data = {key.removeprefix("data."): v for key, v in settings.items() if key.startswith("data.")}
    return {key: v for key, v in settings.items() if not key.startswith("data.")}, data


def differing_paths(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return the keys whose values differ, or that only one of two flat mappings has."""
    missing = object()
    keys = [*first, *(key for key in second if key not in first)]
    return [key for key in keys if first.get(key, missing) != second.get(key, missing)]


def covers(varied: str, path: str) -> bool:
    if varied == "model":
        apart = (RECIPE_PREFIX, DATA_PREFIX, START_PREFIX)
        return not path.startswith(tuple(f"{prefix}." for prefix in apart))
    return path == varied or path.startswith(f"{varied}.")


def flat_row(row: Row) -> dict[str, Any]:
    """Return what defines a row's runs, as `flat_definition`."""
    return flat_definition(row.definition(0).to_dict())


def flat_definition(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Return what defines a run as dotted paths; a list (of blocks, of widths) is one value."""
    flat: dict[str, Any] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, Mapping) and value:
            for key, item in value.items():
                walk(item, f"{path}.{key}" if path else str(key))
        else:
            flat[path] = json.dumps(value, sort_keys=True)

    walk(definition["model"], "")
    walk(definition["recipe"], RECIPE_PREFIX)
    walk(definition["data"], DATA_PREFIX)
    if "pretrained" in definition:
        walk(definition["pretrained"], START_PREFIX)
    return flat
