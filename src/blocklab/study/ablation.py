"""The rows that take a model apart: all of its changes, all but one, none of them, and one alone.

In a study file, in place of rows::

    ablate:
      base: res2net50
      full:                       # changes by name, each what it fills slots with
        celu: {activation: celu}
        deep: {stem: deep}
        se: {attention: se}

which are the rows ``full``, ``without-celu``, ``without-deep``, ``without-se``, ``base``,
``with-celu``, ``with-deep`` and ``with-se``. Of two changes, each alone is the other one left out,
so ``with-`` rows are not there; one change is ``full`` and ``base``.
"""

from collections.abc import Collection, Mapping
from itertools import combinations
from typing import Any

from blocklab.errors import InputError
from blocklab.study.named_rows import ablated_parts
from blocklab.study.rows import filled_model
from blocklab.study.schema import AblateFile


def ablated_rows(file: AblateFile, common: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the rows of an ablation; `common` are slots that all rows of the study fill alike.

    Raises:
        InputError: if a change is empty, does nothing, or is another one again or in part.
    """
    what = f"study '{name}': ablate"
    _check_changes(file, common, what)
    return {row: _model(file, changes) for row, changes in ablated_parts(file.full).items()}


def _model(file: AblateFile, changes: Collection[str]) -> dict[str, Any]:
    base = {"base": file.base} if isinstance(file.base, str) else file.base
    filled = [file.full[change] for change in changes]
    return {**base, **{slot: value for slots in filled for slot, value in slots.items()}}


def _check_changes(file: AblateFile, common: Mapping[str, Any], what: str) -> None:
    for change, slots in file.full.items():
        if not slots:
            raise InputError(
                f"{what}: the change '{change}' is empty; say which slots it fills, such as "
                f"{change}: {{activation: celu}}"
            )
    try:
        base = filled_model(_model(file, ()), common)
        alone = {change: filled_model(_model(file, [change]), common) for change in file.full}
    except InputError as error:
        raise InputError(f"{what}: {error}") from None
    for change, model in alone.items():
        if model == base:
            raise InputError(f"{what}: the change '{change}' changes nothing; remove it")
    for one, other in combinations(file.full, 2):
        if alone[one] == alone[other]:
            raise InputError(f"{what}: the changes '{one}' and '{other}' are the same; remove one")
        for slot in file.full[one]:
            if any(_overlap(slot, theirs) for theirs in file.full[other]):
                raise InputError(
                    f"{what}: the changes '{one}' and '{other}' both fill {slot}; make them one"
                )


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")
