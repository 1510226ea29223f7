"""What a run was trained with, as its program wrote it down, and rows that mix several of it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from blocklab.errors import shortened
from blocklab.foreign.table_file import PREFIXES

# Fields that are each run's own, or say how it ran and not what it learnt.
_NO_SETTING = re.compile(
    r"seed|folder|project(?!ion)|experiment|^name$|^(run|exp|exper).*name|(?<!drop)(?<!drop_)path|"
    r"(?<![a-z])(dir|output|group|tags?|notes?|id|uuid|time|date|timestamp|version|log(ger|ging)?|save|"
    r"resume|checkpoint|ckpt|device|gpus?|rank|port|host|user|url|workers?|verbose|exist_ok|config|wandb|"
    r"entity|job|hash|commit)(?![a-z])",
    re.IGNORECASE,
)
# The columns of a table that are settings and no figures, by their usual names.
_USUAL = re.compile(
    r"(base_?|init_?|max_?)?(lr|learning_?rate)|weight_?decay|wd|momentum|(train_?)?batch_?size|bs|"
    r"(max_?|num_?|n_?)epochs|epochs|warmup_?epochs|opt|optim|optimizer|sched|scheduler|lr_?scheduler|"
    r"label_?smoothing|smoothing|mixup|cutmix|drop_?path|drop_?out|dataset|data_?set|"
    r"(img|image)_?size|precision|amp",
    re.IGNORECASE,
)
_PARAMETER = PREFIXES[0]
_MOST_TOLD = 4  # fields and values of one


def settings_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a run's configuration that are settings: plain, and no run's own."""
    return {
        name: value
        for name, value in fields.items()
        if isinstance(value, bool | int | float | str)
        and not _NO_SETTING.search(name)
        and not (isinstance(value, str) and ("/" in value or "\\" in value))
    }


def settings_of_cells(cells: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a table's line: MLflow's parameters, and what is usually called so."""
    named = {
        name.removeprefix(_PARAMETER): value
        for name, value in cells.items()
        if name.startswith(_PARAMETER) or _USUAL.fullmatch(name.rpartition(".")[2])
    }
    return settings_of({name: value for name, value in named.items() if value not in (None, "")})


def mixed_settings(runs: Iterable[tuple[str, int, Mapping[str, Any]]]) -> list[str]:
    """Say of which rows the runs, each with its seed, were not all trained alike."""
    by_row: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for row, seed, settings in runs:
        by_row.setdefault(row, []).append((seed, settings))
    return [note for row, mine in by_row.items() if (note := _mixed(row, mine))]


def _mixed(row: str, runs: Sequence[tuple[int, Mapping[str, Any]]]) -> str | None:
    told = []
    for name in dict.fromkeys(name for _, settings in runs for name in settings):
        seeds: dict[str, list[int]] = {}
        for seed, settings in runs:
            if name in settings:
                seeds.setdefault(_plain(settings[name]), []).append(seed)
        if len(seeds) > 1:
            each = [f"{value} (seed {', '.join(map(str, of))})" for value, of in seeds.items()]
            told.append(f"{name} {', '.join(_first(each, 'values'))}")
    if not told:
        return None
    return (
        f"runs of {row} were not trained alike, and count as one row: "
        f"{'; '.join(_first(told, 'fields'))}; tell them apart with --row"
    )


def _first(told: Sequence[str], what: str) -> list[str]:
    more = len(told) - _MOST_TOLD
    return [*told[:_MOST_TOLD], *([f"and {more} more {what}"] if more > 0 else [])]


def _plain(value: Any) -> str:
    """Write 0.10, "0.1" and 1e-1 alike."""
    try:
        return f"{float(value):g}" if not isinstance(value, bool) else str(value)
    except ValueError:
        return shortened(value)
