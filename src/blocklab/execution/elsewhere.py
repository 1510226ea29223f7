"""What other folders of a study's runs or rows have stated, and looked at.

`blocklab study FILE --seeds 5` has a folder of its own, beside that of `--seeds 3`, whose runs it
takes over: what was said and seen there was said and seen.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from blocklab.errors import BlocklabError, RunError
from blocklab.files import canonical_json
from blocklab.results.design_file import DESIGN, DesignJson, LookJson, StatedJson, read_design
from blocklab.results.study_file import read_study_file
from blocklab.study.study import Study


def looks_elsewhere(
    runs: Mapping[str, Mapping[str, str]], study: Study, folder: Path
) -> list[LookJson]:
    """Return the looks at fewer seeds of these runs, from another folder of the same study.

    `blocklab study FILE --seeds 5` has a folder of its own, and the runs of `--seeds 3`.
    """
    found: dict[int, LookJson] = {}
    if study.looks is not None:
        return []
    for other in _designs_elsewhere(runs, study, folder):
        for one in other.looks:
            if one.planned < len(study.seeds):
                found.setdefault(one.planned, one)
    return [found[planned].model_copy(update={"going": []}) for planned in sorted(found)]


def other_looks(
    runs: Mapping[str, Mapping[str, str]],
    study: Study,
    folder: Path,
    looks: Iterable[LookJson],
    known: Sequence[LookJson] = (),
) -> list[LookJson]:
    """Return the looks at these rows in other folders, at other seeds than a look here is at.

    Also where they share no run, as those of `--seeds 5,6,7` and of `--seeds 3` do not.

    Args:
        runs: of the study, by row and seed.
        study: whose folder is given.
        folder: beside which others are looked for.
        looks: of the study itself.
        known: those that are on record, whose folders may be gone.
    """
    found = list(known)
    counted = {_identity(one) for one in (*looks, *known)}
    here = {} if study.looks else {row: sorted(study.seeds) for row in runs}
    for other in _designs_elsewhere(runs, study, folder, alike=True):
        for one in other.looks:
            same = all(here.get(row, seeds) == seeds for row, seeds in one.seeds.items())
            if one.rows and _identity(one) not in counted and not (here and same):
                found.append(one)
                counted.add(_identity(one))
    return sorted(found, key=lambda one: one.at)


def _identity(look: LookJson) -> str:
    return canonical_json([look.at, look.seeds])


def claims_elsewhere(
    runs: Mapping[str, Mapping[str, str]], study: Study, folder: Path
) -> Mapping[str, StatedJson]:
    """Return the claims that another folder has of these runs, each as it was first stated."""
    found: dict[str, StatedJson] = {}
    for other in _designs_elsewhere(runs, study, folder):
        for claim, one in {**other.left_out, **other.claims}.items():
            if claim not in found or one.after_runs < found[claim].after_runs:
                found[claim] = one
    return found


def _designs_elsewhere(
    runs: Mapping[str, Mapping[str, str]], study: Study, folder: Path, *, alike: bool = False
) -> Iterator[DesignJson]:
    """Yield what is stated in other folders of the runs of this study's baseline and other rows.

    Args:
        runs: of the study, by row and seed.
        study: whose folder is given.
        folder: beside which others are looked for.
        alike: whether rows that are the same but for their seeds are enough.
    """
    for file in sorted(folder.parent.glob(f"*/{DESIGN}")):
        if file.parent == folder:
            continue
        try:
            other = read_design(file.parent)
        except RunError:  # it is said where that study is run
            continue
        if other is None or other.baseline != study.baseline:
            continue
        shared = {
            name
            for name, of_row in runs.items()
            if name in other.rows and set(of_row.values()) & set(other.rows[name].runs.values())
        }
        if alike:
            shared |= _rows_alike(study, file.parent)
        if study.baseline in shared and len(shared) > 1:
            yield other


def _rows_alike(study: Study, other: Path) -> set[str]:
    """Return the rows that another folder's study has too, whatever their seeds."""
    try:
        there = read_study_file(other)
    except BlocklabError:  # it is said where that study is run
        return set()
    data, recipe = study.data.definition(), study.recipe.model_dump(mode="json")
    if (there.data, there.recipe) != (data, recipe):
        return set()
    models = {row.name: row.model for row in there.rows}
    return {row.name for row in study.rows if models.get(row.name) == row.model.to_dict()}
