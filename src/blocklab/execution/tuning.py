"""Each row's learning rate by its validation accuracy, before anything is compared.

``tune: {lr: [0.05, 0.1, 0.2]}`` trains every row at every rate, each with the study's own epochs
and from seeds that the study does not use. The best mean validation top-1 after the last epoch
decides; the test set has no say. What was tried and chosen is recorded with the row.
"""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from blocklab.errors import RunError
from blocklab.results.study_results import StudyResults
from blocklab.study.rows import Row
from blocklab.study.study import Study

_SCORE = "validation_top1_percent"
_CHOSEN = "chosen by validation top-1"


def candidates(study: Study) -> Study | None:
    """Return the study of all rows at all learning rates; None where nothing is tuned."""
    if study.tune is None:
        return None
    rows = [_candidate(row, lr) for row in study.rows for lr in study.tune.lr]
    return replace(
        study,
        name=f"{study.name}-tuning",
        title=f"{study.title}: learning rates tried",
        seeds=study.tune.seeds,
        recipe=study.recipe.model_copy(update={"test_every_epoch": False}),
        varies=tuple(dict.fromkeys((*study.varies, "recipe.lr"))),
        baseline=rows[0].name,
        rows=tuple(rows),
        notes=("To choose learning rates by validation top-1; no figures to compare rows by.",),
        claims=(),
        claim_notes={},
        tune=None,
        by_validation=True,
        diagnose=None,
        looks=None,
        seeds_by_row={},
    )


def with_candidates(studies: Sequence[Study]) -> tuple[Study, ...]:
    """Return the studies, each after the study of what it tries, for a list of what there is to do.

    Its own runs are shown at the learning rate of its recipe, since none is chosen yet.
    """
    stages = [one for study in studies for one in (candidates(study), study)]
    return tuple(one for one in stages if one is not None)


def choose(study: Study, results: StudyResults) -> Study:
    """Return a study with each row's recipe at its best learning rate.

    Args:
        study: the study that is tuned.
        results: of its `candidates`. A run that diverged counts for nothing; of equal rates the
            first one listed is taken.

    Raises:
        RunError: if a row has no learning rate whose runs have all finished.
    """
    if study.tune is None:
        return study
    scores = {
        row.name: row.by_seed(_SCORE) for row in results.rows
    }  # row at a rate -> seed -> validation top-1
    rows, notes = [], []
    for row in study.rows:
        tried: dict[float, float] = {}
        for lr in study.tune.lr:
            of_seeds = scores.get(_name(row, lr), {})
            if all(seed in of_seeds for seed in study.tune.seeds):
                tried[lr] = fmean(of_seeds[seed] for seed in study.tune.seeds)
        if not tried:
            raise RunError(
                f"row '{row.name}': no learning rate of {_listed(study.tune.lr)} has finished; "
                "run the same command again, or try smaller ones"
            )
        best = max(tried, key=lambda lr: tried[lr])
        rows.append(_tuned(row, best, tried, study))
        notes.append(_note(row, best, tried, study.tune.lr))
    return replace(
        study,
        rows=tuple(rows),
        varies=tuple(dict.fromkeys((*study.varies, "recipe.lr"))),
        notes=(*study.notes, *notes),
        tune=None,
    )


def _candidate(row: Row, lr: float) -> Row:
    # The test set is not looked at on the way, whatever the study's own recipe does.
    recipe = row.recipe.model_copy(update={"lr": lr, "test_every_epoch": False})
    return replace(row, name=_name(row, lr), recipe=recipe, reported=None, counted_as=None)


def _name(row: Row, lr: float) -> str:
    return f"{row.name} at lr {lr!r}"


def _tuned(row: Row, best: float, tried: dict[float, float], study: Study) -> Row:
    assert study.tune is not None
    record: dict[str, Any] = {
        "lr": best,
        "validation_top1_percent": {repr(lr): score for lr, score in tried.items()},
        "seeds": list(study.tune.seeds),
        "epochs": row.recipe.epochs,
    }
    return replace(row, recipe=row.recipe.model_copy(update={"lr": best}), tuned=record)


def _note(row: Row, best: float, tried: dict[float, float], given: Sequence[float]) -> str:
    scores = ", ".join(f"{lr:g}: {score:.2f} %" for lr, score in tried.items())
    note = f"{row.name}: lr {best:g} {_CHOSEN} ({scores})"
    if failed := [lr for lr in given if lr not in tried]:
        note += f"; not finished: {_listed(failed)}"
    if best in (min(given), max(given)):
        end = "smallest" if best == min(given) else "largest"
        note += f"; the best is the {end} tried, so a better one may lie beyond"
    return note


def is_choice(note: str) -> bool:
    """Whether a study's note is one that `choose` wrote."""
    return f" {_CHOSEN} (" in note


def _listed(rates: Sequence[float]) -> str:
    return ", ".join(f"{lr:g}" for lr in rates)
