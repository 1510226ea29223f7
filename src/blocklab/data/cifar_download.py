"""Fetch CIFAR: Hugging Face's parquet files, else the archive that torchvision knows."""

import os
from pathlib import Path

from filelock import FileLock

from blocklab.data.cifar import Cifar, find_cifar
from blocklab.data.table_files import find_tables
from blocklab.download import (
    cached_download,
    is_parquet,
    is_whole,
    offline,
    throw_away,
    was_downloaded,
)
from blocklab.errors import InputError, RunError

HUB = "https://huggingface.co"


def download_cifar(
    cifar: Cifar, root: Path, hub: str | None = None, archive_url: str | None = None
) -> None:
    """Put `cifar` below `root`, which then holds one of the layouts of `find_cifar`.

    `hub` is the hub's base address (default: the variable HF_ENDPOINT, else huggingface.co).

    Raises:
        InputError: if downloads are switched off.
        RunError: if neither the hub nor the archive's server gave whole files.
    """
    remedy = (
        f"put {cifar.name}/train.parquet and {cifar.name}/test.parquet, or {cifar.archive}, into "
        f"{root} (BLOCKLAB_DATA names that folder)"
    )
    if switch := offline():
        raise InputError(
            f"{cifar.name} is not in {root} and {switch} is set; unset it, or {remedy}"
        )
    folder = root / cifar.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".download.lock"):
            if find_cifar(cifar, root):  # another process may have just fetched it
                return
            failures = _fetch(cifar, root, hub, archive_url)
    except OSError as error:
        raise RunError(
            f"cannot write into {folder}: {error.strerror or error}; {remedy}"
        ) from error
    if failures:
        raise RunError(
            f"cannot download {cifar.name} ({'; '.join(failures)}); try again later, or {remedy}"
        )


def mend_cifar(cifar: Cifar, root: Path) -> bool:
    """Check what was downloaded against its hash; fetch what is damaged once more.

    Returns whether anything was.

    Raises:
        InputError, RunError: as `download_cifar`.
    """
    names = [_table_name(split) for split in ("train", "test")]
    paths = [root / cifar.archive, *(root / cifar.name / name for name in names)]
    damaged = [path for path in paths if was_downloaded(path) and not is_whole(path)]
    for path in damaged:
        throw_away(path)
    if damaged:
        download_cifar(cifar, root)
    return bool(damaged)


def _table_name(split: str) -> str:
    return f"{split}-00000-of-00001.parquet"


def _fetch(cifar: Cifar, root: Path, hub: str | None, archive_url: str | None) -> list[str]:
    """Try the hub, then the archive; return what went wrong, or nothing."""
    failures = []
    base = (hub or os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    try:
        for split in ("train", "test"):
            if not find_tables(root / cifar.name)[split]:
                name = _table_name(split)
                path = f"datasets/uoft-cs/{cifar.name}/resolve/main/{cifar.hub_folder}/{name}"
                cached_download(f"{base}/{path}", root / cifar.name / name, looks_right=is_parquet)
        return []
    except RunError as error:
        failures.append(str(error))
    url, md5 = _archive_address(cifar)
    try:
        cached_download(archive_url or url, root / cifar.archive, md5=md5)
        return []
    except RunError as error:
        failures.append(str(error))
    return failures


def _archive_address(cifar: Cifar) -> tuple[str, str]:
    from torchvision.datasets import CIFAR10, CIFAR100  # slow to import, seldom needed

    known = {10: CIFAR10, 100: CIFAR100}[cifar.num_classes]
    return known.url, known.tgz_md5
