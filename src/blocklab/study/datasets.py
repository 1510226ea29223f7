"""One study on several data sets: the same rows and seeds on each, and claims over all of them.

In a study file, in place of ``data``::

    datasets: [cifar100, digits, folder:photos]
    datasets:                       # or by name, each an address or fields as under data
      photos: {source: folder:photos, image_size: 64}
      cifar100: cifar100
    claims:
      - se > plain                  # judged on each data set, by its own page
      - se > plain on all           # over the data sets; also: on average, on at least 2

Each data set has a study of its own, called after the file and the data set, with its own page;
the page of all has what holds over them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from blocklab.errors import InputError
from blocklab.study.dataset_claims import is_dataset_claim, parse_dataset_claim
from blocklab.study.folder_name import safe_name
from blocklab.study.named_rows import row_names
from blocklab.study.schema import is_row_name
from blocklab.study.statements import over_datasets_left_out
from blocklab.study.study import Study

MOST_DATASETS = 100


def read_datasets(value: Mapping[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """Return a study file's content for each data set, by the data set's name.

    Raises:
        InputError: if `datasets` are no such list, fewer than two, or two are called alike.
    """
    what, given = f"study '{name}'", value["datasets"]
    if "data" in value:
        raise InputError(f"{what} has data and datasets; keep one of them")
    if isinstance(given, Mapping):
        named = list(given.items())
    elif isinstance(given, list):
        named = [(_called(one), one) for one in given]
    else:
        named = []
    if not 2 <= len(named) <= MOST_DATASETS:
        raise InputError(
            f"{what}: datasets are two or more, such as datasets: [cifar100, digits], or by name; "
            f"of one, write data (there are {len(named)} here)"
        )
    found: dict[str, dict[str, Any]] = {}
    for dataset, data in named:
        if not is_row_name(dataset) or not isinstance(data, str | Mapping):
            raise InputError(
                f"{what}: {dataset!r} with {data!r} is no data set; write its address, or a name "
                "and its fields, as under data"
            )
        if safe_name(dataset).casefold() in map(str.casefold, map(safe_name, found)):
            raise InputError(
                f"{what}: two data sets are called '{dataset}'; give them names, such as "
                f"datasets: {{{dataset}: ..., {dataset}_small: ...}}"
            )
        found[dataset] = on_one_dataset(value, data)
        if isinstance(title := value.get("title"), str):
            found[dataset]["title"] = f"{title}: {dataset}"
    return found


def on_one_dataset(
    value: Mapping[str, Any], data: object, *, alone: bool = False
) -> dict[str, Any]:
    """Return a study file's content on one data set, without claims over several.

    `alone` is one in place of them all, whose notes say so of those claims.
    """
    one = {key: item for key, item in value.items() if key != "datasets"} | {"data": data}
    if isinstance(claims := value.get("claims"), list):
        one["claims"] = [item for item in claims if not is_dataset_claim(_text(item))]
        several = len(claims) - len(one["claims"])
        if alone and several and isinstance(notes := value.get("notes", []), list):
            one["notes"] = [*notes, *over_datasets_left_out(several)]
    return one


def stated_claims(value: Mapping[str, Any]) -> list[str]:
    """Return the text of every claim of a study file, in its order."""
    return [_text(item) for item in value.get("claims") or []]


def read_dataset_claims(
    value: Mapping[str, Any], name: str, studies: Sequence[Study]
) -> tuple[str, ...]:
    """Return the claims over data sets of a study file, whose studies these are.

    Claims of rows that were left out are left out too.

    Raises:
        InputError: if one is none, or a row is on other data than its study is.
    """
    for study in studies:
        for row in study.rows:
            if row.data.source != study.data.source:
                raise InputError(
                    f"study '{name}', row '{row.name}': it has data of its own, and the study "
                    "has datasets; leave its source out"
                )
    first = studies[0]
    names = row_names(value)
    kept = {row.name for row in first.rows}
    claims: list[str] = []
    for item in value.get("claims") or []:
        text = _text(item)
        if not is_dataset_claim(text):
            continue
        if isinstance(item, Mapping) and (more := [key for key in item if key != "claim"]):
            raise InputError(
                f"study '{name}': the claim '{text}' is over data sets and takes no '{more[0]}'; "
                "write it as text alone"
            )
        try:
            claim = parse_dataset_claim(text, names, first.baseline, len(studies))
        except InputError as error:
            raise InputError(f"study '{name}': {error}") from None
        if text in claims:
            raise InputError(f"study '{name}' makes the claim '{text}' twice; remove one")
        if claim.claim.rows <= kept:
            claims.append(text)
    return tuple(claims)


def _called(data: object) -> str:
    """Return what a data set is called that has no name: its address, or the end of its path."""
    source = data.get("source") if isinstance(data, Mapping) else data
    if not isinstance(source, str):
        return ""
    kind, _, path = source.partition(":")
    return path.rstrip("/").rpartition("/")[2] or kind


def _text(item: object) -> str:
    claim = item.get("claim") if isinstance(item, Mapping) else item
    return claim if isinstance(claim, str) else ""
