"""A study as data: rows x seeds, what the rows may differ in, and which one is the baseline.

A study file::

    title: Attention in ResNet-20
    data: {source: cifar100, train_images: 10000}
    recipe: {base: quick, epochs: 8}
    seeds: 3                        # or [0, 1, 2], or until_decided
    varies: [attention]             # slots; or model, recipe, recipe.lr, data, data.image_size
    baseline: plain                 # default: the first row
    paired: true                    # optional: what a seed does to every row is no difference
    margin: 0.5                     # optional: points within which a row is as good
    model: {stem: cifar}            # optional: slots filled alike in every row
    rows:
      plain: resnet20
      se: {base: resnet20, attention: {type: se, reduction: 8}}
      triplet: {model: resnet20_triplet, recipe: {lr: 0.05}, data: {image_size: 48},
                reported: {top1: 77.6, macs_g: 4.1}, note: what a reader must know}
      tuned: {model: resnet20, recipe: finetune, pretrained: resnet20.safetensors}
    claims: [triplet > plain]       # optional: what the page says is supported or not
    tune: {lr: [0.05, 0.1, 0.2]}    # optional: each row's learning rate, by validation images
    diagnose: {first: 30, last: 40} # optional: count zeros over these test batches, from 1
    curves: test                    # optional: read the test set after each epoch

In place of rows, ``ablate`` names changes; see `blocklab.study.ablation`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from blocklab.data.spec import DataSpec
from blocklab.errors import InputError, did_you_mean
from blocklab.notebook import fields_html
from blocklab.statistics.sequential import Looks
from blocklab.study.ablation import ablated_rows
from blocklab.study.comparability import check_rows, check_tune
from blocklab.study.folder_name import joined_name, path_digest, safe_name, worded_changes
from blocklab.study.named_rows import BASE
from blocklab.study.relative_paths import seen_from
from blocklab.study.rows import (
    CHANGED,
    Row,
    merged_data,
    read_row,
    recipe_fields,
    split_settings,
)
from blocklab.study.schema import (
    StudyFile,
    find_study,
    in_list,
    read_errata,
    read_rows,
    read_seeds,
    read_study_file,
)
from blocklab.study.statements import left_out, read_claims, stated_notes
from blocklab.study.until_decided import is_until_decided, read_until_decided
from blocklab.training.recipe import USUAL, Recipe, check_schedule
from blocklab.training.run_definition import RunDefinition


@dataclass(frozen=True)
class Tune:
    """Learning rates to try for each row, from seeds that the study itself does not use."""

    lr: tuple[float, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Batches:
    """Test batches over which zeros are counted, from 1, both included."""

    first: int
    last: int


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study: its row, and what defines it."""

    row: Row
    definition: RunDefinition


@dataclass(frozen=True)
class Study:
    """Rows x seeds, checked: rows differ only in what `varies` says.

    `claims_left_out` are those of the file about rows that are not here, as `--rows` chose others;
    `claims_over` those over the data sets, of which this study is of one. `by_validation` is one
    that chooses learning rates.
    `claim_notes` says of a claim what it stands for and which errata a reader should know;
    `changes` what is not as the file of that name has it, such as ``seeds=1``; `file` which one
    that is, as a digest of its path. With `looks`, `seeds` are all that may be needed, and
    `seeds_by_row` those that are, which grow from look to look.
    """

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
    claims: tuple[str, ...] = ()
    claims_left_out: tuple[str, ...] = ()
    claims_over: tuple[str, ...] = ()
    claim_notes: Mapping[str, str] = field(default_factory=dict, hash=False)
    tune: Tune | None = None
    by_validation: bool = False
    diagnose: Batches | None = None
    changes: tuple[str, ...] = ()
    file: str | None = None
    paired: bool = False
    margin: float | None = None
    looks: Looks | None = None
    seeds_by_row: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)

    @property
    def folder_name(self) -> str:
        """What the folder of its page and tables is called."""
        return joined_name(self.name, self.changes)

    def __repr__(self) -> str:
        """Name it; the whole would fill a screen."""
        rows, seeds = len(self.rows), len(self.seeds)
        return f"<study {self.folder_name}: {rows} rows of {self.data.source}, {seeds} seeds>"

    def _repr_html_(self) -> str:
        """Show its rows and claims, in a notebook."""
        rows = (
            f"{in_list(row.name)}{' (baseline)' * (row.name == self.baseline)}" for row in self.rows
        )
        about = {
            "data": self.data.source,
            "recipe": f"{self.recipe_name}, {self.recipe.epochs} epochs",
            "seeds": ", ".join(map(str, self.seeds)),
            "varies": ", ".join(self.varies),
            "rows": ", ".join(rows),
            "claims": "; ".join(self.claims) or "none",
        }
        return fields_html(self.title, about)

    @classmethod
    def load(cls, path_or_name: str | Path, **changes: Any) -> Self:
        """Load a study file, or one that is shipped with the package, by name.

        `changes` are those of `parse`.

        Raises:
            InputError: if there is no such study, or something in it is wrong.
        """
        value, name, path = find_study(path_or_name)
        return cls.parse(value, name, path=path, **changes)

    @classmethod
    def parse(
        cls,
        value: object,
        name: str,
        *,
        path: Path | None = None,
        data: str | Mapping[str, Any] | None = None,
        recipe: str | None = None,
        seeds: int | Sequence[int] | None = None,
        rows: Sequence[str] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Self:
        """Read a study from plain data.

        Args:
            value: the study file's content.
            name: what its folder of tables is called, with the changes below after it.
            path: the file that it is from, from whose folder its relative paths are seen; without
                one they are seen from here.
            data: images to use in place of the study's.
            recipe: recipe to use in place of the study's; what rows change in it still holds.
            seeds: how many seeds, or which.
            rows: names of rows to keep; the baseline is always kept.
            settings: fields of the recipe to change in all rows, or of the data (`data.` before).

        Raises:
            InputError: in one line, naming the row and the remedy.
        """
        file = read_study_file(value if path is None else seen_from(path.parent, value), name)
        recipe_changes, data_changes = split_settings(settings or {})
        base_data = merged_data(file.data if data is None else data, data_changes)
        recipe_name, base_recipe = recipe_fields(file.recipe if recipe is None else recipe)
        reads_test_set = file.curves == "test" and not base_recipe["test_every_epoch"]
        base_recipe["test_every_epoch"] |= reads_test_set
        given = _given_rows(file, name)
        first = BASE if file.ablate else next(iter(given))
        baseline = file.baseline if file.baseline is not None else first
        if baseline not in given:
            raise InputError(
                f"study '{name}': the baseline '{baseline}' is not a row"
                f"{did_you_mean(baseline, given) or '.'} Rows: {', '.join(map(in_list, given))}"
            )
        for row_name in file.reported:
            if row_name not in given:
                raise InputError(
                    f"study '{name}': figures are reported for '{row_name}', which is not a row"
                    f"{did_you_mean(row_name, given) or '.'} Rows: {', '.join(map(in_list, given))}"
                )
        errata = read_errata(file.errata, name)
        claims = read_claims(file, list(given), baseline, name)
        chosen = _chosen(given, rows, baseline, name)
        looks, stated_seeds = _looks_and_seeds(file, name)
        if seeds is not None:
            looks = None
        chosen_seeds = stated_seeds if seeds is None else read_seeds(seeds, name)
        built = []
        for row_name in chosen:
            try:
                built.append(
                    read_row(
                        row_name,
                        given[row_name],
                        file,
                        errata,
                        (base_data, data_changes),
                        (base_recipe, recipe_changes),
                    )
                )
            except InputError as error:
                raise InputError(f"study '{name}', row '{row_name}': {error}") from None
        if recipe is None and "schedule" not in recipe_changes:  # else others than the file's hold
            _check_schedules(file, given, built, base_recipe, name)
        kept = [claim.text for claim in claims if claim.rows <= set(chosen)]
        others = [claim.text for claim in claims if claim.text not in kept]
        try:
            notes, claim_notes = stated_notes(file, kept, errata)
        except InputError as error:
            raise InputError(f"study '{name}': {error}") from None
        study = cls(
            name=safe_name(name),
            title=file.title,
            description=file.description,
            data=DataSpec.parse(base_data),
            recipe=Recipe.parse(base_recipe | recipe_changes, f"study '{name}': the recipe"),
            recipe_name=_recipe_name(recipe_name, bool(recipe_changes) or reads_test_set),
            seeds=chosen_seeds,
            varies=tuple(file.varies),
            baseline=baseline,
            rows=tuple(built),
            notes=(*notes, *left_out(given, chosen, len(others))),
            claims=tuple(kept),
            claims_left_out=tuple(others),
            claim_notes=claim_notes,
            tune=Tune(tuple(file.tune.lr), tuple(file.tune.seeds)) if file.tune else None,
            diagnose=Batches(file.diagnose.first, file.diagnose.last) if file.diagnose else None,
            file=None if path is None else path_digest(path),
            paired=file.paired,
            margin=file.margin,
            looks=looks,
            seeds_by_row=_first_look(looks, chosen, baseline) if looks else {},
            changes=worded_changes(
                settings or {},
                rows=None if chosen == list(given) else chosen,
                seeds=seeds
                if is_until_decided(file.seeds) or chosen_seeds != stated_seeds
                else None,
                recipe=None if recipe == file.recipe else recipe,
                data=None if data == file.data else data,
            ),
        )
        check_rows(study.name, study.rows, study.varies)
        if study.tune is not None:
            check_tune(study.name, study.rows, study.seeds, study.tune.lr, study.tune.seeds)
        return study

    def seeds_of(self, row: str) -> tuple[int, ...]:
        """Seeds that a row is planned from; of looks, up to the next one."""
        return self.seeds_by_row.get(row, self.seeds)

    def plan(self) -> Iterator[PlannedRun]:
        """Every run: all rows from the first seed, then all from the next, and so on."""
        for seed in self.seeds:
            for row in self.rows:
                if seed in self.seeds_of(row.name):
                    yield PlannedRun(row, row.definition(seed))


def _looks_and_seeds(file: StudyFile, name: str) -> tuple[Looks | None, tuple[int, ...]]:
    if not is_until_decided(file.seeds):
        return None, read_seeds(file.seeds, name)
    looks = read_until_decided(file.seeds, file.paired, name)
    return looks, tuple(range(looks.of_baseline(-1)))


def _first_look(looks: Looks, rows: Sequence[str], baseline: str) -> dict[str, tuple[int, ...]]:
    first = dict.fromkeys(rows, tuple(range(looks.seeds[0])))
    return first | {baseline: tuple(range(looks.of_baseline(0)))}


def _given_rows(file: StudyFile, name: str) -> dict[str, Any]:
    if file.ablate and file.rows is not None:
        raise InputError(f"study '{name}' has rows and ablate, which are rows; keep one of them")
    if file.ablate:
        return ablated_rows(file.ablate, file.model, name)
    if file.rows is None:
        raise InputError(f"study '{name}': rows: is missing; add it, such as rows: [resnet20]")
    return read_rows(file.rows, name)


def _chosen(
    given: Mapping[str, Any], rows: Sequence[str] | None, baseline: str, name: str
) -> list[str]:
    if rows is None:
        return list(given)
    for row in rows:
        if row not in given:
            raise InputError(
                f"study '{name}' has no row '{row}'{did_you_mean(row, given) or '.'} "
                f"Rows: {', '.join(map(in_list, given))}"
            )
    return [row for row in given if row in rows or row == baseline]


def _recipe_name(name: str, changed: bool) -> str:
    return f"{name.removesuffix(CHANGED)}{CHANGED}" if changed else name


def _check_schedules(
    file: StudyFile,
    given: Mapping[str, Any],
    built: Sequence[Row],
    base: Mapping[str, Any],
    name: str,
) -> None:
    """Check that what a file asks of schedules is read by one: a row's own by its, others by any.

    Raises:
        InputError: for a field that would do nothing.
    """
    for row in built:
        own = given[row.name].get("recipe") if isinstance(given[row.name], Mapping) else None
        if isinstance(own, Mapping):
            try:
                check_schedule(own, base, {row.recipe.schedule})
            except InputError as error:
                raise InputError(f"study '{name}', row '{row.name}': {error}") from None
    if isinstance(file.recipe, Mapping) and len(built) == len(given):
        before = recipe_fields(str(file.recipe["base"]))[1] if "base" in file.recipe else USUAL
        try:
            check_schedule(file.recipe, before, {row.recipe.schedule for row in built})
        except InputError as error:
            raise InputError(f"study '{name}': {error}") from None
