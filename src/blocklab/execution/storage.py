"""Run folders on object storage, for machines that share no file system.

BLOCKLAB_STORAGE names the place, by any URL that fsspec knows (``s3://bucket/runs``,
``gs://…``, ``file:///…``). A run is trained in a local folder, which is fetched before and sent
after each epoch: the checkpoint first, if there is a new one, the result last. Checksums tell a
file that arrived whole.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from blocklab.errors import InputError, RunError, error_line
from blocklab.files import owner
from blocklab.training.run_files import (
    CHECKPOINT,
    LOG,
    LOGITS,
    PREDICTIONS,
    RESULT,
    RUN,
    WEIGHTS,
    parse_log,
)

STORAGE_VARIABLE = "BLOCKLAB_STORAGE"
EPOCH_FILES = (CHECKPOINT, RUN, LOG)  # in the order in which they are sent
END_FILES = (*EPOCH_FILES, PREDICTIONS, LOGITS, WEIGHTS, RESULT)


class Storage:
    """A place for run folders, by URL; run folders are named by hash."""

    def __init__(self, url: str) -> None:
        try:
            from fsspec.core import url_to_fs

            self.files, self.root = url_to_fs(url, use_listings_cache=False)
            self.files.makedirs(self.root, exist_ok=True)
        except Exception as error:  # each kind of storage fails in its own ways
            raise InputError(
                f"cannot use {STORAGE_VARIABLE}={url} ({error_line(error)}); check the address, "
                "and that fsspec's package for it is installed"
            ) from None
        self.url = url
        self._sent: dict[Path, tuple[int, int]] = {}  # checkpoints, by inode and time

    @classmethod
    def named(cls) -> "Storage | None":
        """The storage that the variable names; None if it names none."""
        url = os.environ.get(STORAGE_VARIABLE)
        return cls(url) if url else None

    def fetch(self, folder: Path) -> None:
        """Copy a run's folder here, as far as it is there and not here.

        Raises:
            RunError: if the storage does not answer.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name in END_FILES:
            there, part = self._there(folder, name), folder / f".{name}.{owner()}.0.tmp"
            try:
                self.files.get_file(there, str(part))
                part.replace(folder / name)
            except FileNotFoundError:
                part.unlink(missing_ok=True)
            except Exception as error:
                raise RunError(f"cannot read {there}: {error_line(error)}") from error

    def send(self, folder: Path, names: tuple[str, ...] = END_FILES) -> None:
        """Copy files of a run's folder there, each under another name until it is whole.

        Raises:
            RunError: if the storage does not take them.
        """
        try:
            self.files.makedirs(self._there(folder, ""), exist_ok=True)
            for name in names:
                path, there = folder / name, self._there(folder, name)
                if not path.exists():
                    if name == CHECKPOINT and (folder / RESULT).exists():  # it is not kept
                        with suppress(FileNotFoundError):
                            self.files.rm_file(there)
                    continue
                file = path.stat().st_ino, path.stat().st_mtime_ns
                if name == CHECKPOINT and self._sent.get(path) == file:
                    continue
                self.files.put_file(str(path), f"{there}.part")
                self.files.mv(f"{there}.part", there)
                if name == CHECKPOINT:
                    self._sent[path] = file
        except Exception as error:
            raise RunError(f"cannot write to {self.url}: {error_line(error)}") from error

    def has_result(self, run_hash: str) -> bool:
        """Whether a run has ended there."""
        try:
            return bool(self.files.exists(f"{self.root}/{run_hash}/{RESULT}"))
        except Exception as error:
            raise RunError(f"cannot read {self.url}: {error_line(error)}") from error

    def log(self, run_hash: str) -> list[dict[str, Any]]:
        """Read the log of a run; empty while there is none."""
        with suppress(Exception):  # it is shown, no more: the next look may succeed
            return parse_log(self.files.cat_file(f"{self.root}/{run_hash}/{LOG}"))
        return []

    def _there(self, folder: Path, name: str) -> str:
        return f"{self.root}/{folder.name}/{name}".rstrip("/")
