"""Which parquet files of a folder hold which split."""

import os
import re
import stat
from collections import defaultdict
from pathlib import Path

from blocklab.data.faults import first_few
from blocklab.data.split_names import is_split_name
from blocklab.errors import InputError

SPLITS = ("train", "test", "validation")
# NAME-00000-of-00003.parquet, or with a hash at the end, as Hugging Face once wrote them.
_SHARD = re.compile(r"(.+?)-(\d+)-of-(\d+)(?:-[0-9A-Za-z]+)?\.parquet")

Tables = dict[str, list[Path]]


def list_parquet(root: Path, measure: bool = False) -> Tables:
    """List the files of each split, in `root` or in `root`/data; a split may be absent.

    Validation files are the test split where there are no others. With `measure`, test files
    alone will do.

    Raises:
        InputError: if there are none, or as `find_tables`.
    """
    if not os.path.isdir(root):  # unlike Path.is_dir, never raises
        what = "is a file" if os.path.isfile(root) else "does not exist"
        raise InputError(f"the data folder {root} {what}; give the folder of the parquet files")
    for folder in (root, root / "data"):
        tables = find_tables(folder)
        if tables["train"] or (measure and tables["test"]):
            return {split: paths for split, paths in tables.items() if paths}
        if any(tables.values()):
            raise InputError(f"{folder} has no train*.parquet; put it beside the other split")
    raise InputError(f"{root} has no train*.parquet and test*.parquet; put them there")


def find_tables(folder: Path) -> Tables:
    """Find the parquet files of each split; a list is empty where there are none.

    Raises:
        InputError: if shards are missing, or it is not clear which files are meant.
    """
    paths = sorted(folder.glob("*.parquet"))
    tables = {split: _of_split(folder, split, paths) for split in SPLITS}
    if not tables["test"]:
        tables["test"], tables["validation"] = tables["validation"], []
    return tables


def identify(paths: list[Path]) -> list[tuple[str, int, int]]:
    """Return where each file really lies, its size and its time of change.

    Raises:
        InputError: if one is no ordinary file, or a link to nothing.
    """
    found = []
    for path in paths:
        try:
            facts = path.stat()
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}; mend or remove it") from error
        if not stat.S_ISREG(facts.st_mode):
            raise InputError(f"{path} is no ordinary file; put the data's own file there")
        found.append((os.path.realpath(path), facts.st_size, facts.st_mtime_ns))
    return found


def _of_split(folder: Path, split: str, paths: list[Path]) -> list[Path]:
    """Return the files whose names say this split and nothing beside.

    Files of other names that begin alike (`train_masks`) are other data, unless there is nothing
    else.
    """
    names = {path: shard[1] if (shard := _SHARD.fullmatch(path.name)) else path.stem
             for path in paths}  # fmt: skip
    found = [path for path in paths if is_split_name(names[path]) == split]
    found = found or [path for path in paths if path.name.startswith(split)]
    whole: set[str] = set()
    shards: dict[str, list[re.Match[str]]] = defaultdict(list)
    for path in found:
        if shard := _SHARD.fullmatch(path.name):
            shards[shard[1]].append(shard)
        else:
            whole.add(path.stem)
    if len(shards) > 1 or (shards and whole) or (len(whole) > 1 and split in whole):
        first, *_, last = sorted((p.name for p in found), key=lambda n: n != f"{split}.parquet")
        raise InputError(f"{folder} holds both {first} and {last}; keep one of the two")
    for name, parts in shards.items():
        _check_shards(folder, name, parts)
    return found


def _check_shards(folder: Path, name: str, shards: list[re.Match[str]]) -> None:
    numbers = [int(shard[2]) for shard in shards]
    totals = {int(shard[3]) for shard in shards}
    twice = [shard[0] for shard in shards if numbers.count(int(shard[2])) > 1]
    if len(totals) > 1 or twice:
        shown = first_few(twice or [shard[0] for shard in shards], most=3)
        raise InputError(f"{folder} holds {shown}, which are not of one set; keep one of them")
    (total,) = totals
    if len(numbers) != total or set(numbers) not in (set(range(total)), set(range(1, total + 1))):
        raise InputError(
            f"{folder} has {len(shards)} of the {total} {name} parquet files; add the missing ones"
        )
