"""Writing a run's folder, for the process that trains the run; `run_reader` reads it.

Every file is written whole or not at all, and everything that is trusted later has a checksum:
run.json and result.json carry their own, a checkpoint's is the comment of its zip archive (so it
still opens with `torch.load`), and result.json holds those of the run's other files. A run whose
result or predictions are damaged counts as unfinished; done again, from its last checkpoint where
that was kept, it ends with the same bits.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors.torch import save as save_tensors
from torch import Tensor

from blocklab.errors import RunError
from blocklab.files import (
    check_stored,
    file_sha256,
    owner,
    read_regular,
    remove_leftovers,
    write_atomically,
    write_checked_json,
)
from blocklab.training.logits import pack_logits
from blocklab.training.predictions import pack
from blocklab.training.run_files import (
    CHECKPOINT,
    DIAGNOSIS,
    FAILURE,
    FINISHED,
    LISTED,
    LOCK,
    LOG,
    LOGITS,
    PREDICTIONS,
    PREVIOUS,
    RESULT,
    RUN,
    RUN_HASH,
    WEIGHTS,
)
from blocklab.training.run_reader import RunReader

_SEAL = b"sha256="  # then 64 hexadecimal digits: a checkpoint's last 71 bytes
_SEAL_BYTES = len(_SEAL) + 64


class BusyError(RunError):
    """Another process is training the run."""


class VanishedError(RunError):
    """The run's folder was removed, or replaced by another, while the run was trained."""


class RunFolder:
    """The folder of one run, for the process that trains it."""

    writes = True  # else the files are another process's to write

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inode: int | None = None

    @contextmanager
    def locked(self, keep_empty: bool = False) -> Iterator[None]:
        """Make the folder and hold its lock, which the system frees should this process die.

        Another run's files, as a folder that was renamed holds them, are removed first; its
        checkpoints are by `load_checkpoint`. What fails before anything was written leaves no
        folder that was not there, unless it is to `keep_empty` ones.

        Raises:
            BusyError: if another process holds it.
            RunError: if the folder cannot be made or written to.
        """
        lock = FileLock(self.path / LOCK, timeout=0)
        try:
            made = [place for place in (self.path, *self.path.parents) if not place.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            self._inode = self.path.stat().st_ino
            lock.acquire()
        except Timeout:
            raise BusyError(
                f"another process is training {self.path}; wait for it to end"
            ) from None
        except OSError as error:
            raise RunError(
                f"cannot write to {self.path}: {error.strerror or error}; choose another --out"
            ) from error
        try:
            remove_leftovers(self.path)
            if self.reader.holds_another:
                self._remove(RESULT, *LISTED, LOGITS, DIAGNOSIS, FAILURE)
            yield
        except BaseException:
            if made and not keep_empty:
                self._unmake(made)
            raise
        finally:
            with suppress(OSError):  # the folder may have vanished
                lock.release()

    def _unmake(self, made: Sequence[Path]) -> None:
        """Remove folders that were made, where no more than the lock, still held, lies in them."""
        with suppress(OSError):  # somebody else has put something there
            ours = self.path.stat().st_ino == self._inode
            if ours and {path.name for path in self.path.iterdir()} <= {LOCK}:
                self._remove(LOCK)
                for folder in made:
                    folder.rmdir()

    def check_there(self) -> None:
        """Check that the folder is the one that was locked.

        Raises:
            VanishedError: if it was removed or replaced meanwhile; its lock went with it.
        """
        try:
            there = self.path.stat().st_ino == self._inode
        except OSError:
            there = False
        if not there:
            raise VanishedError(
                f"{self.path} vanished while its run was trained; run the same command again"
            )

    @property
    def reader(self) -> RunReader:
        """The folder as it is now, to be read."""
        return RunReader(self.path)

    def write_run(self, run: dict[str, Any]) -> None:
        """Write run.json."""
        with self._there():
            write_checked_json(self.path / RUN, run, self.check_there)

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Write last.ckpt; the one before stays as previous.ckpt.

        `log` and `run` are made plain, as a checkpoint with any class in it would not be read.
        """
        plain = {name: json.loads(json.dumps(state[name])) for name in ("log", "run")}
        buffer = io.BytesIO()
        torch.save(state | plain, buffer)
        _seal(buffer)
        with self._there():
            self._keep_previous()
        self._write(CHECKPOINT, lambda path: _write_buffer(path, buffer))

    def _keep_previous(self) -> None:
        last, spare = self.path / CHECKPOINT, self.path / f".{PREVIOUS}.{owner()}.0.tmp"
        try:
            spare.unlink(missing_ok=True)
            if last.exists():
                try:
                    os.link(last, spare)  # so that last.ckpt is there at every moment
                except OSError:  # no hard links on this file system
                    shutil.copyfile(last, spare)
                spare.replace(self.path / PREVIOUS)
                spare.unlink(missing_ok=True)  # still there, where both were one file already
        except OSError as error:
            raise RunError(
                f"cannot write {self.path / PREVIOUS}: {error.strerror or error}; free some space"
            ) from error

    def load_checkpoint(self, run_hash: str) -> tuple[dict[str, Any] | None, list[str]]:
        """Return the newest checkpoint of the run that is whole, and what to say of the others.

        A damaged one is removed, so that it is not kept as the previous one.
        """
        notes = []
        for name in (CHECKPOINT, PREVIOUS):
            path = self.path / name
            if not path.exists():
                continue
            saved = load_sealed(path)
            if saved is not None and saved.get(RUN_HASH) == run_hash:
                if notes:
                    notes[-1] += f"; going on from {name}, epoch {saved['epochs_done']}"
                return saved, notes
            notes.append(f"{name} is damaged" if saved is None else f"{name} is another run's")
            self._remove(name)
        if notes:
            notes[-1] += "; no checkpoint is left, training from the start"
        return None, notes

    def write_log(self, log: list[dict[str, Any]]) -> None:
        """Write log.jsonl, all lines of it."""
        lines = (json.dumps(record, allow_nan=False) for record in log)
        self._write(LOG, "".join(f"{line}\n" for line in lines))

    def write_predictions(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Write predictions.npz."""
        self._write(PREDICTIONS, pack(arrays))

    def write_logits(self, logits: np.ndarray | None) -> None:
        """Write logits.npz; None removes what an earlier end of the run has left."""
        if logits is None:
            self.check_there()
            self._remove(LOGITS)
        else:
            self._write(LOGITS, pack_logits(logits))

    def write_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Write model.safetensors."""
        # Cloned, as safetensors takes no two names of one memory (a module that is shared).
        plain = {
            name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()
        }
        self._write(WEIGHTS, save_tensors(plain))

    def finish(self, result: dict[str, Any], keep_checkpoint: bool = False) -> None:
        """Write result.json, after which the run counts as finished.

        The last good checkpoint of a run that diverged stays, that of another one if it is to.
        """
        with self._there():
            if result["status"] != FINISHED:  # what is there of them is not of this result
                self._remove(PREDICTIONS, LOGITS, WEIGHTS)
            write_result(self.path, result, self.check_there)
        self.check_there()
        self._remove(PREVIOUS)
        if not keep_checkpoint and result["status"] == FINISHED:
            self._remove(CHECKPOINT)

    def _write(self, name: str, content: bytes | str | Callable[[Path], None]) -> None:
        with self._there():
            write_atomically(self.path / name, content, self.check_there)

    @contextmanager
    def _there(self) -> Iterator[None]:
        """Check that the folder is there, before and, where something failed, after it."""
        self.check_there()
        try:
            yield
        except RunError:
            self.check_there()  # else that is what there is to say
            raise

    def _remove(self, *names: str) -> None:
        for name in names:
            with suppress(OSError):
                (self.path / name).unlink()


def write_result(
    folder: Path, result: dict[str, Any], check: Callable[[], None] | None = None
) -> None:
    """Write result.json with the checksums of the run's other files, which are there by now.

    `check` is `write_atomically`'s.
    """
    files = {}
    for name in (*LISTED, LOGITS):
        if (folder / name).exists():
            size = (folder / name).stat().st_size
            files[name] = {"bytes": size, "sha256": file_sha256(folder / name)}
    write_checked_json(folder / RESULT, {**result, "files": files}, check)


def note_failure(folder: Path, message: str) -> None:
    """Write down why a run ended without a result; nothing, where its folder has vanished.

    An empty one was put in its place: a run's own holds its lock at least.
    """
    if folder.is_dir() and any(folder.iterdir()):
        write_checked_json(folder / FAILURE, {"message": message})


def forget_failure(folder: Path) -> None:
    """Remove the note of an earlier failure."""
    with suppress(OSError):
        (folder / FAILURE).unlink(missing_ok=True)


def _seal(archive: io.BytesIO) -> None:
    """Give a zip archive without a comment its own checksum as one, without copying it."""
    archive.seek(-22, io.SEEK_END)
    end = archive.read()
    assert end[:4] == b"PK\x05\x06" and end[-2:] == b"\0\0", "not as torch.save ends"
    archive.seek(-2, io.SEEK_END)
    archive.write(_SEAL_BYTES.to_bytes(2, "little"))
    seal = _SEAL + hashlib.sha256(archive.getbuffer()).hexdigest().encode()
    archive.write(seal)


def _write_buffer(path: Path, content: io.BytesIO) -> None:
    path.write_bytes(content.getbuffer())


def load_sealed(path: Path) -> dict[str, Any] | None:
    """Return what a checkpoint holds; None where it is damaged or not there."""
    try:
        content = read_regular(path)
        body, seal = content[:-_SEAL_BYTES], content[-_SEAL_BYTES:]
        if seal != _SEAL + hashlib.sha256(body).hexdigest().encode():
            return None
        check_stored(io.BytesIO(content), len(content))
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # a damaged file fails in many ways
        return None
