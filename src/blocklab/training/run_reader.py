"""Reading a run's folder: each file in one way, checked as it is read, and only as this run's own.

A file's checksum, text and types are looked at alike, so that none counts as whole that cannot be
read. What a folder holds is compared with its name, which is the hash of what defines its run.
run.json, checkpoints and a diagnosis say which run they are of; result.json holds the checksum of
run.json, and those of the files that say nothing of themselves.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from filelock import FileLock, Timeout
from safetensors.torch import load as load_tensors
from torch import Tensor

from blocklab.errors import InputError, RunError
from blocklab.files import LARGEST_JSON, parse_json, read_regular
from blocklab.training.logits import unpack_logits, why_none
from blocklab.training.predictions import PerImage, read_per_image, unpack
from blocklab.training.run_files import (
    DIAGNOSIS,
    FAILURE,
    FINISHED,
    LEFT_OUT,
    LISTED,
    LOCK,
    LOG,
    LOGITS,
    PREDICTIONS,
    RECORD,
    RESULT,
    RUN,
    RUN_HASH,
    WEIGHTS,
    DiagnosisJson,
    FailureJson,
    ResultJson,
    RunJson,
    definition_hash,
    parse_log,
    parse_object,
)

_ANOTHER = "name a run that finished, or train with a smaller lr"

T = TypeVar("T")
Files = Mapping[str, Mapping[str, Any]]  # name -> bytes and sha256, as result.json lists them


class DamageError(RunError):
    """A file of a run's folder is damaged, or another run's; says which, in a few words."""


@dataclass(frozen=True)
class _Ended:
    """What a run that has ended left, or what is wrong with it; nothing while it has not ended."""

    result: dict[str, Any] | None = None
    log: tuple[dict[str, Any], ...] = ()
    per_image: PerImage | None = None
    fault: str | None = None


class RunReader:
    """A run's folder, each file of which is read once, when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = os.path.basename(os.path.abspath(folder))  # also of "."

    @cached_property
    def holds(self) -> str | None:
        """The hash of the run that run.json is of; None where it is not there, or damaged."""
        run = self._run[0]
        return None if run is None else definition_hash(run["definition"])

    @property
    def holds_another(self) -> bool:
        """Whether the folder is another run's than its name says."""
        return self.holds not in (None, self.name)

    @property
    def run(self) -> dict[str, Any] | None:
        """run.json; None where it is not there, is damaged, or is another run's."""
        return None if self.holds_another else self._run[0]

    @property
    def result(self) -> dict[str, Any] | None:
        """result.json of a run that has ended, if all of its files are whole and its own.

        Weights are looked at by size alone, as they are large; `weights` hashes them.
        """
        return self._ended.result

    @property
    def finished(self) -> bool:
        """Whether the run has ended and its files are whole; it may have diverged."""
        return self._ended.result is not None

    @property
    def fault(self) -> str | None:
        """What is damaged, or which other run the folder holds; None where nothing is wrong."""
        return self._ended.fault

    @property
    def log(self) -> tuple[dict[str, Any], ...]:
        """The lines of log.jsonl, one an epoch, of a run that has ended."""
        return self._ended.log

    @property
    def per_image(self) -> PerImage | None:
        """What the network said of each test image; None of a run that has not finished."""
        return self._ended.per_image

    @property
    def failure(self) -> str | None:
        """Why the run last ended without a result, as far as that was written down."""
        try:
            return parse_object(self._content(FAILURE), FailureJson)["message"]
        except (OSError, ValueError):
            return None

    @cached_property
    def left_out(self) -> tuple[str, ...]:
        """Files of the run that its record was kept without; none of a folder that is whole."""
        try:
            named = parse_json(self._content(RECORD))["left_out"]
        except (OSError, ValueError, KeyError, TypeError):
            return ()
        return tuple(
            name for name in LEFT_OUT if name in named and not (self.folder / name).exists()
        )

    def diagnosis(self) -> dict[str, Any] | None:
        """Return diagnosis.json; None if the run was not diagnosed.

        See `blocklab.measure.activations`.

        Raises:
            DamageError: if the diagnosis is damaged, or another run's.
        """
        if not (self.folder / DIAGNOSIS).exists():
            return None
        value = self._read(DIAGNOSIS, lambda text: parse_object(text, DiagnosisJson))
        if value[RUN_HASH] != self.name:
            raise DamageError(f"{DIAGNOSIS} is another run's")
        return value

    def arrays(self) -> dict[str, np.ndarray]:
        """Read all arrays of predictions.npz: per test image the label, five classes, the loss.

        Raises:
            InputError: if the run has none, as one that diverged.
            RunError: if they are damaged.
        """
        result = self.require_result()
        files = result["files"]
        if PREDICTIONS not in files:
            raise InputError(
                f"the run {self.folder} {result['status']}: it has no predictions; {_ANOTHER}"
            )
        return self._read(PREDICTIONS, partial(unpack, images=self._test_images), files)

    def logits(self) -> np.ndarray:
        """Read the logits of the test images, (N, C) in fp16, less the largest of each image.

        Raises:
            InputError: if the folder is not that of a run that has ended.
            RunError: if the run kept none, or they are damaged.
        """
        files, run = self.require_result()["files"], self.require_run()
        images, classes = run["test_images"], len(run["class_names"])
        if LOGITS not in files or not (self.folder / LOGITS).exists():
            kept = (self.folder / RECORD).exists()
            why = "it was kept without them, as a record" if kept else why_none(images, classes)
            raise RunError(f"the run {self.folder.name} has no logits: {why}")
        read = partial(unpack_logits, images=images, classes=classes)
        try:
            return self._read(LOGITS, read, files)
        except DamageError as damage:
            raise RunError(f"{self.folder}: {damage}; `blocklab evaluate` has them anew") from None

    def weights(self) -> dict[str, Tensor]:
        """Read the trained weights.

        Raises:
            InputError: if the folder is not that of a run that has ended, or it has none: the run
                diverged, or the folder is a record.
            RunError: if a file is damaged.
        """
        result = self.require_result()
        if WEIGHTS not in result["files"]:
            raise InputError(
                f"the run {self.folder} {result['status']}: it has no weights to use; {_ANOTHER}"
            )
        if WEIGHTS in self.left_out:
            raise InputError(
                f"{self.folder} is a record, kept without its weights; train the run again, from "
                "its study, to have them"
            )
        try:
            return self._read(WEIGHTS, load_tensors, result["files"])
        except DamageError:
            raise RunError(
                f"{self.folder / WEIGHTS} is damaged; delete it and run again: it is written anew, "
                "from the last checkpoint where that was kept"
            ) from None

    def require_result(self) -> dict[str, Any]:
        """Return the result.

        Raises:
            InputError: if the folder is no run's, or its run has not ended.
            RunError: if a file of it is damaged, or another run's.
        """
        if not self.folder.exists():
            raise InputError(
                f"there is no run's folder {self.folder}: it has not run here, or is gone; name "
                "another, or run its study"
            )
        if not (self.folder / RUN).exists():
            raise InputError(f"{self.folder} is not a run's folder (it has no {RUN}); name one")
        if self.fault is not None:
            raise RunError(f"{self.folder}: {self.fault}; run its study or training again")
        if self.result is None:
            busy = is_busy(self.folder)
            mend = "run its study or training again, which goes on, or name a run that has ended"
            raise InputError(
                f"{self.folder} has no result yet: its run "
                f"{'is being trained; wait for it to end' if busy else f'has not ended; {mend}'}"
            )
        return self.result

    def require_run(self) -> dict[str, Any]:
        """Return run.json of a run that has ended; raises as `require_result`."""
        self.require_result()
        assert self.run is not None, "a result is only whole with it"
        return self.run

    @cached_property
    def _run(self) -> tuple[dict[str, Any] | None, bytes]:
        """run.json, whichever run's it is, and its bytes."""
        try:
            content = self._content(RUN)
            return parse_object(content, RunJson), content
        except (OSError, ValueError):
            return None, b""

    @property
    def _test_images(self) -> int:
        return self.run["test_images"] if self.run else 0

    @cached_property
    def _ended(self) -> _Ended:
        try:
            return self._read_ended()
        except DamageError as damage:
            return _Ended(fault=str(damage))
        except OSError as error:
            return _Ended(fault=f"its folder cannot be read ({error.strerror or error})")

    def _read_ended(self) -> _Ended:
        if self.holds_another:
            raise DamageError(f"its folder {self.name} holds another run, {self.holds}")
        if not (self.folder / RESULT).exists():
            return _Ended()
        result = self._read(RESULT, lambda content: parse_object(content, ResultJson))
        files: Files = result["files"]
        for name in LISTED:
            needed = name in files or name in (RUN, LOG)
            there = (self.folder / name).exists()
            if there != needed and not (needed and name in self.left_out):
                raise DamageError(f"{name} is gone" if needed else f"{name} is of another result")
        own, content = self._run
        if own is None or _sha256(content) != files.get(RUN, {}).get("sha256"):
            raise DamageError(f"{RUN} is damaged or of another result")
        weights = files.get(WEIGHTS)
        if weights and not (self._has_size(WEIGHTS, weights["bytes"]) or WEIGHTS in self.left_out):
            raise DamageError(f"{WEIGHTS} is damaged")
        log = self._read(LOG, parse_log, files)
        per_image = None
        if PREDICTIONS in files:
            read = partial(read_per_image, images=self._test_images)
            per_image = self._read(PREDICTIONS, read, files)
        if result["status"] != FINISHED:
            return _Ended(result, tuple(log))
        if result.get("test_top1_percent") is None:
            raise DamageError(f"{RESULT} is damaged (it has no test_top1_percent)")
        return _Ended(result, tuple(log), per_image)

    def _read(self, name: str, parse: Callable[[bytes], T], files: Files | None = None) -> T:
        """Read and parse a file; `files` has its checksum, where it holds none itself."""
        try:
            if files is None:
                return parse(self._content(name))
            content = self._content(name, files[name]["bytes"])
            if _sha256(content) != files[name]["sha256"]:
                raise DamageError(f"{name} is damaged")
            return parse(content)
        except DamageError:
            raise
        except Exception as error:  # a damaged file fails in many ways
            why = " ".join(str(error).split()) or type(error).__name__
            raise DamageError(f"{name} is damaged ({why})") from error

    def _content(self, name: str, most: int = LARGEST_JSON) -> bytes:
        return read_regular(self.folder / name, most)

    def _has_size(self, name: str, size: int) -> bool:
        path = self.folder / name
        return path.is_file() and path.stat().st_size == size


def is_finished(folder: Path) -> bool:
    """Whether a run's folder holds its result, and the result is whole."""
    return RunReader(folder).finished


def logged(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of the log of a run, ended or not, one for each epoch that is kept."""
    try:
        return parse_log(read_regular(folder / LOG, LARGEST_JSON))
    except (OSError, ValueError):
        return []


def is_busy(folder: Path) -> bool:
    """Whether another process is training the run of this folder."""
    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False  # whoever trains it will say what is wrong


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
