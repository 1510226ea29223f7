"""Whether rows can be compared: they differ only in what is varied, and are tuned alike."""

from collections.abc import Sequence

from blocklab.data.spec import DataSpec
from blocklab.errors import InputError, did_you_mean
from blocklab.study.rows import (
    DATA_PREFIX,
    RECIPE_PREFIX,
    START_PREFIX,
    Row,
    covers,
    differing_paths,
    flat_row,
)
from blocklab.training.recipe import Recipe


def check_rows(study: str, rows: Sequence[Row], varies: Sequence[str]) -> None:
    """Check that rows differ from the first in what `varies` covers alone, and from one another.

    Raises:
        InputError: naming the row and the path, or what is varied that no row has.
    """
    known = dict.fromkeys(["model", RECIPE_PREFIX, DATA_PREFIX, START_PREFIX])
    for row in rows:
        known |= dict.fromkeys(row.model.slots)
        known |= dict.fromkeys(flat_row(row))
    # These are left out of a row where they do nothing.
    for prefix, schema in ((RECIPE_PREFIX, Recipe), (DATA_PREFIX, DataSpec)):
        known |= dict.fromkeys(f"{prefix}.{field}" for field in schema.model_fields)
    for varied in varies:
        if not any(f"{path}.".startswith(f"{varied}.") for path in known):
            raise InputError(
                f"study '{study}' varies '{varied}', which no row has"
                f"{did_you_mean(varied, known) or '.'} "
                "Name slots, model, recipe, data or pretrained, or such as recipe.lr"
            )
    reference = rows[0]
    seen: dict[str, str] = {}
    for row in rows:
        same_run = seen.setdefault(row.definition(0).hash, row.name)
        if same_run != row.name:
            raise InputError(
                f"study '{study}': rows '{same_run}' and '{row.name}' are the same run; remove one"
            )
        for path in differing_paths(flat_row(reference), flat_row(row)):
            if not any(covers(varied, path) for varied in varies):
                raise InputError(
                    f"study '{study}': row '{row.name}' differs from '{reference.name}' in {path}, "
                    "which is not in varies; add it there or make the rows alike"
                )


def check_tune(
    study: str,
    rows: Sequence[Row],
    seeds: Sequence[int],
    rates: Sequence[float],
    tuned_from: Sequence[int],
) -> None:
    """Check that every row can be given the same learning rates to try, from seeds of their own.

    Args:
        study: its name.
        rows: its rows.
        seeds: those that it reports.
        rates: the learning rates to try.
        tuned_from: seeds to try them from.

    Raises:
        InputError: if a row has a rate of its own, or seeds are shared.
    """
    what = f"study '{study}': tune"
    for values, of in ((rates, "lr"), (tuned_from, "seeds")):
        if len(set(values)) != len(values):
            raise InputError(f"{what}.{of} has a value twice; remove one")
    if shared := set(tuned_from) & set(seeds):
        raise InputError(
            f"{what}.seeds and the study's share {min(shared)}; tune from other seeds, so "
            "that no run is both chosen and reported"
        )
    for row in rows:
        if row.recipe.lr != rows[0].recipe.lr:
            raise InputError(
                f"{what} sets the learning rate of every row; leave lr out of row '{row.name}'"
            )
